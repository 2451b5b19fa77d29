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
from types import SimpleNamespace
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import TemplateError
from pipeline.ids import content_hash
from pipeline.types import Message

REQUEST_VARIABLES = frozenset({"principle", "conversation", "response"})
SCORE_VARIABLES = REQUEST_VARIABLES | {"options"}
JUDGE_VARIABLES = frozenset({"principle", "conversation", "slot_a", "slot_b"})

# Brackets that look like the judge's fence, each perhaps with combining marks on it.
_OPENING, _CLOSING = (
    "[\uff3b\u27e6\u301a\u2045\u3010\u3014",
    "]\uff3d\u27e7\u301b\u2046\u3011\u3015",
)
_FENCES = re.compile(
    f"(?:[{re.escape(_OPENING)}][\u0300-\u036f]*){{3,}}|(?:[{re.escape(_CLOSING)}][\u0300-\u036f]*){{3,}}"
)
_FENCE_PARTS = re.compile(".[\u0300-\u036f]*")
# Also in bold, in a list, as a heading or a quotation, and with a colon that only looks like one.
_TURN_HEADER = re.compile(
    r"(?mi)^((?:[^\S\n]|[>*#_\-\"'`(\[]){0,80})(Human|User|Assistant|System|Developer)"
    r"([\s*_\"'`)\]]{0,80}[:\uff1a\u2236\ua789])"
)
_NEW_LINES = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
# Joiners and variation selectors belong between letters of some scripts and in emoji, nowhere else.
_JOINED = rf"[^\x00-\x7f{_OPENING[1:]}{_CLOSING[1:]}]"
_JOINERS = re.compile(rf"(?<!{_JOINED})[\u200c\u200d\ufe00-\ufe0f]+|[\u200c\u200d]+(?!{_JOINED})")
# Tokens with which the chat templates of common models open and close a turn or a part of it.
_TURN_TOKENS = re.compile(
    r"<(?:[|\uff5c][^|\uff5c<>\n]{1,60}[|\uff5c]|/?s|bos|eos|unk|pad|(?:start|end)_of_turn"
    r"|/?think|/?tool_(?:call|response))>"
    r"|<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|TOOL_(?:CALLS|RESULTS)|AVAILABLE_TOOLS)\]"
)

_TRIAL_MESSAGE = {"role": "user", "content": "text"}
_TRIAL_PRINCIPLE = SimpleNamespace(
    id="id",
    critique_request="text",
    revision_request="text",
    comparison_request="text",
    weight=1.0,
    tags=(),
)
_TRIAL = {
    "principle": _TRIAL_PRINCIPLE,
    "conversation": [_TRIAL_MESSAGE],
    "response": "text",
    "slot_a": "text",
    "slot_b": "text",
    "options": ("1", "10"),
}


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
    _by_principle: dict[Any, str] | None = None
    """Texts of a template that uses nothing but the principle: as many as there are principles."""

    @classmethod
    def from_text(cls, name: str, source: str, variables: frozenset[str]) -> "PromptTemplate":
        """Parse, and refuse any variable outside `variables` before a single row is paid for.

        Raises:
            TemplateError: syntax error (with line), unknown variable or attribute.
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
        known: dict[Any, str] | None = {} if names == {"principle"} else None
        made = cls(name, source, content_hash(source)[:16], template, known)
        # A misspelt attribute, such as principle.critique_reqest, shows only when rendered.
        made.render(**{variable: _TRIAL[variable] for variable in variables & _TRIAL.keys()})
        return made

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
        if self._by_principle is None or not hasattr(values["principle"], "hash"):
            return self._render(values)
        principle = values["principle"]
        key = (principle.hash, principle.weight, principle.tags)
        if key not in self._by_principle:
            self._by_principle[key] = self._render(values)
        return self._by_principle[key]

    def _render(self, values: dict[str, Any]) -> str:
        try:
            return self._template.render(**values).rstrip()
        except (JinjaError, SecurityError, TypeError) as error:
            raise TemplateError(f"template {self.name}: {error}; correct the template") from None


def variables_of(name: str) -> frozenset[str]:
    """Variables that a template whose file has this name is given."""
    if "judge" in name:
        return JUDGE_VARIABLES
    return SCORE_VARIABLES if "score" in name else REQUEST_VARIABLES


def neutralize(text: str) -> str:
    """The text with the judge's delimiters and turn headers made harmless, words unchanged.

    `[[[` becomes `[ [ [`, a line that starts with `Human:` gets a quotation bar, tokens that open
    or close a turn (`<|im_end|>`, `[INST]`) get a space, and invisible characters go. Used on every
    text that a model or a stranger wrote, when it is shown to a judge.

    Does not: hinder a text from arguing with the judge in plain words; `audits/` measures that.
    """
    # What cannot be seen goes first: it could hide a fence from the patterns below.
    text = _INVISIBLE.sub("", _NEW_LINES.sub("\n", text))
    text = _JOINERS.sub("", text)
    text = _FENCES.sub(lambda match: " ".join(_FENCE_PARTS.findall(match.group())), text)
    text = _TURN_TOKENS.sub(lambda match: f"{match[0][0]} {match[0][1:-1]} {match[0][-1]}", text)
    return _TURN_HEADER.sub(r"\1| \2\3", text)


def neutralize_conversation(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as dictionaries for a template, contents neutralized."""
    return [{"role": m.role, "content": neutralize(m.content)} for m in messages]
