"""Templates: Jinja2 in an immutable sandbox with strict undefined; model text stays data.

In:  prompts/*.jinja and the values of one row
Out: the text of one user turn

Values are never rendered a second time, so `{{ 7*7 }}` in a response stays as it is. Text that
could imitate the prompt around it is changed before it gets here: see `neutralize.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import TemplateError
from pipeline.ids import content_hash

REQUEST_VARIABLES = frozenset({"principle", "conversation", "response"})
SCORE_VARIABLES = REQUEST_VARIABLES | {"options"}
JUDGE_VARIABLES = frozenset({"principle", "conversation", "slot_a", "slot_b"})

_TRIAL = {
    "principle": SimpleNamespace(
        id="id",
        critique_request="-",
        revision_request="-",
        comparison_request="-",
        weight=1.0,
        tags=(),
    ),
    "conversation": [{"role": "user", "content": "-"}],
    "response": "-",
    "slot_a": "-",
    "slot_b": "-",
    "options": ("1", "10"),
}
"""Values for a rendering that only checks the template."""


@dataclass(frozen=True)
class PromptTemplate:
    """A parsed template and its hash, which is part of the id of every row made with it."""

    name: str
    source: str
    hash: str
    _template: Template

    @classmethod
    def from_text(cls, name: str, source: str, variables: frozenset[str]) -> "PromptTemplate":
        """Parse, and refuse any variable outside `variables` before a single row is paid for.

        Raises:
            TemplateError: syntax error (with line), unknown variable or attribute.
        """
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        try:
            names = meta.find_undeclared_variables(environment.parse(source))
            parsed = environment.from_string(source)
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
        template = cls(name, source, content_hash(source)[:16], parsed)
        # A misspelled attribute, such as principle.critique_reqest, shows only when rendered.
        template.render_trial()
        return template

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
        except (JinjaError, TypeError, ValueError, ArithmeticError) as error:
            raise TemplateError(f"template {self.name}: {error}; correct the template") from None

    def render_trial(self, **values: str) -> str:
        """The text with these values and placeholders for the others. Raises as `render`."""
        return self.render(**_TRIAL | values)


def variables_of(name: str) -> frozenset[str]:
    """Variables that a template gets, by the name of its file."""
    if "judge" in name:
        return JUDGE_VARIABLES
    return SCORE_VARIABLES if "score" in name else REQUEST_VARIABLES
