"""Templates: Jinja2 in an immutable sandbox with strict undefined; model text stays data.

In:  prompts/*.jinja and the values of one row
Out: the text of one user turn

Values are never rendered a second time, so `{{ 7*7 }}` in a response stays what it is. The
judge's delimiters are neutralized inside responses: a response cannot close its own fence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError, TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import TemplateError
from pipeline.ids import content_hash
from pipeline.types import Message

REQUEST_VARIABLES = frozenset({"principle", "conversation", "response"})
JUDGE_VARIABLES = frozenset({"principle", "conversation", "slot_a", "slot_b"})

_FENCES = re.compile(r"\[{3,}|\]{3,}")
_TURN_HEADER = re.compile(r"(?m)^(\s*)(Human|Assistant|System)(\s*):")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        autoescape=False,
    )


@dataclass(frozen=True)
class PromptTemplate:
    """A parsed template with its hash, which is part of the id of every row it makes."""

    name: str
    source: str
    hash: str
    _template: Template

    @classmethod
    def from_text(cls, name: str, source: str, variables: frozenset[str]) -> "PromptTemplate":
        """Parse, and refuse any variable outside `variables` before a single row is paid for.

        Raises:
            TemplateError: syntax error (with line) or unknown variable.
        """
        environment = _environment()
        try:
            names = meta.find_undeclared_variables(environment.parse(source))
            template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateError(
                f"template {name}, line {error.lineno}: {error.message}; fix the Jinja syntax"
            ) from None
        if unknown := sorted(names - variables):
            raise TemplateError(
                f"template {name} uses '{unknown[0]}', but this stage passes "
                f"{', '.join(sorted(variables))}; correct the name"
            )
        if not names:
            raise TemplateError(
                f"template {name} uses no variable, so every row would get the same text; use "
                f"{', '.join(sorted(variables))}"
            )
        return cls(name, source, content_hash(source)[:16], template)

    @classmethod
    def from_file(cls, path: Path, variables: frozenset[str]) -> "PromptTemplate":
        """Read and parse a file. Raises TemplateError when it is missing or wrong."""
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else str(error)
            raise TemplateError(f"template {path} {reason}; check the path in the recipe") from None
        return cls.from_text(str(path), source, variables)

    def render(self, **values: Any) -> str:
        """The text, stripped at its end. Raises TemplateError for a value that does not exist."""
        try:
            return self._template.render(**values).rstrip()
        except (JinjaError, SecurityError, TypeError) as error:
            raise TemplateError(f"template {self.name}: {error}; correct the template") from None


def neutralize(text: str) -> str:
    """The text with the judge's delimiters and turn headers made harmless, words unchanged.

    `[[[` becomes `[ [ [`, a line that starts with `Human:` gets a quotation bar, and control
    characters go. Used on every text that a model or a stranger wrote, when it is shown to a judge.
    """
    text = _FENCES.sub(lambda match: " ".join(match.group()), text)
    text = _TURN_HEADER.sub(r"\1| \2\3:", text)
    return _CONTROL.sub("", text)


def neutralize_conversation(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as dictionaries for a template, contents neutralized."""
    return [{"role": m.role, "content": neutralize(m.content)} for m in messages]
