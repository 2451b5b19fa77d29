"""Templates: Jinja2 in an immutable sandbox with strict undefined; model text stays data.

In:  prompts/*.jinja and the values of one row
Out: the text of one user turn

Values are never rendered a second time, so `{{ 7*7 }}` in a response stays as it is. Text that
could imitate the prompt around it is changed before it gets here: see `neutralize.py`.

A template may have a place for reasons, `{% if principle.rationale %} ... {% endif %}`. Principles
without a rationale never show it, so it counts only in the hash that belongs to one that has one:
a place that is added to a template leaves the rows of all other principles as they are.
"""

import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.config.paths import file_problem
from pipeline.constitution import Principle
from pipeline.errors import TemplateError
from pipeline.ids import content_hash

REQUEST_VARIABLES = frozenset({"principle", "conversation", "response"})
SCORE_VARIABLES = REQUEST_VARIABLES | {"options", "fence"}
JUDGE_VARIABLES = frozenset({"principle", "conversation", "slot_a", "slot_b", "fence"})

MAX_NUMBER = 100_000
"""Largest number in a template, and the longest text or list that `*` makes."""
MAX_TEXT = 1_000_000
"""Characters of a text that a template makes from placeholders."""
MAX_TRIAL_S = 0.5
"""Seconds of CPU for a trial rendering; a real template takes under a millisecond."""
MAX_TRIAL_KIB = 256 * 1024
"""Memory by which a trial rendering may raise the peak of the process."""

_PLACE = re.compile(
    r"(?:^[ \t]*)?{%\s*if\s+principle\.rationale\s*%}(?:(?!{%).)*{%\s*endif\s*%}\n?",
    re.DOTALL | re.MULTILINE,
)
"""The place for a rationale, with the white space that goes with its tags; one that holds another
block is not found."""

_TRIAL = {
    "principle": SimpleNamespace(
        id="id",
        critique_request="<<principle.critique_request>>",
        revision_request="<<principle.revision_request>>",
        comparison_request="<<principle.comparison_request>>",
        weight=1.0,
        tags=(),
        check=None,
        rationale="<<principle.rationale>>",
        priority=0,
        conflicts=(),
    ),
    "conversation": [{"role": "user", "content": "-"}],
    "response": "-",
    "slot_a": "-",
    "slot_b": "-",
    "options": ("1", "10"),
    "fence": "-",
}
"""Values for a rendering that only checks the template."""


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which `*`, `**` and `%` cannot fill the memory."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        # Without the optimizer: it would compute constants before any bound holds.
        super().__init__(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, optimized=False
        )
        del self.globals["lipsum"]
        # A row's id holds its template, so the same template must always give the same text.
        del self.filters["random"]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%":
            if isinstance(left, str) and re.search(r"\d{6}|\*", left):
                raise OverflowError(f"'%' makes a field wider than {MAX_NUMBER:,}")
            return super().call_binop(context, operator, left, right)
        sizes = [abs(v) if isinstance(v, int | float) else len(v) for v in (left, right)]
        result = float(sizes[0]) ** sizes[1] if operator == "**" else sizes[0] * sizes[1]
        if result > MAX_NUMBER:
            raise OverflowError(f"'{operator}' gives more than {MAX_NUMBER:,}")
        return super().call_binop(context, operator, left, right)


@lru_cache(maxsize=64)
def _parsed(source: str) -> tuple[Template, frozenset[str]]:
    """A template and the variables that it uses. A run reads each of its templates twice, to check
    it and to use it.
    """
    environment = _Environment()
    tree = environment.parse(source)
    numbers = [n.value for n in tree.find_all(nodes.Const) if isinstance(n.value, int)]
    if any(abs(number) > MAX_NUMBER for number in numbers):
        raise OverflowError(f"a number is over {MAX_NUMBER:,}")
    names = frozenset(meta.find_undeclared_variables(tree))
    return environment.from_string(tree), names


@dataclass(frozen=True)
class PromptTemplate:
    """A parsed template and its hash, which is part of the id of every row made with it."""

    name: str
    source: str
    hash: str
    """Of the source without its place for a rationale, 16 hex digits."""
    _template: Template

    def hash_for(self, *principles: Principle) -> str:
        """`hash`, or that of the whole source where one of the principles has a rationale."""
        shows_reasons = any(p.rationale for p in principles)
        return content_hash(self.source)[:16] if shows_reasons else self.hash

    @property
    def shows_reasons(self) -> bool:
        """Whether it shows the rationale of a principle."""
        return "<<principle.rationale>>" in self.render_trial()

    @classmethod
    def from_text(cls, name: str, source: str, variables: frozenset[str]) -> "PromptTemplate":
        """Parse, and refuse any variable outside `variables` before a single row is paid for.

        Raises:
            TemplateError: syntax error (with line), unknown variable or attribute.
        """
        try:
            parsed, names = _parsed(source)
        except TemplateSyntaxError as error:
            raise TemplateError(
                f"template {name}, line {error.lineno}: {error.message}; fix the Jinja syntax"
            ) from None
        except Exception as error:
            # Python's own compiler and stack have bounds too: 500 blocks in one another, say.
            raise TemplateError(
                f"template {name} cannot be parsed ({_reason(error)}); make it simpler"
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
        template = cls(name, source, content_hash(_PLACE.sub("", source))[:16], parsed)
        # A misspelled attribute, such as principle.critique_reqest, shows only when rendered.
        template.render_trial()
        return template

    @classmethod
    def from_file(cls, path: Path, variables: frozenset[str]) -> "PromptTemplate":
        """Read and parse a file. Raises TemplateError when it is missing or wrong."""
        if problem := file_problem(path):
            raise TemplateError(f"template {path} {problem}; check the path in the recipe")
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"template {path} {error}; save it as UTF-8") from None
        return cls.from_text(str(path), source, variables)

    def render(self, **values: Any) -> str:
        """The text, stripped at its end. Raises TemplateError for whatever goes wrong in it."""
        try:
            return self._template.render(**values).rstrip()
        except Exception as error:
            # A template is the user's code: its division by zero is the user's to correct.
            reason = _reason(error)
            raise TemplateError(f"template {self.name}: {reason}; correct the template") from None

    def render_trial(self, **values: str) -> str:
        """The text with these values and placeholders for the others. Raises as `render`, and for
        a template that takes too long or makes too long a text.
        """
        with bounded():
            text = self.render(**_TRIAL | values)
        if len(text) > MAX_TEXT:
            raise TemplateError(
                f"template {self.name}: makes {len(text):,} characters of placeholders, and at "
                f"most {MAX_TEXT:,} make sense; correct the template"
            )
        return text


_TEMPLATE_CODE = ("<template>", "<unknown>", "jinja2", "textwrap.py")
"""Files in which a template spends its time."""


@contextmanager
def bounded() -> Iterator[None]:
    """A trial of anyone's template: Python code within it that takes too long or too much ends, in
    any thread, since it is asked at each line.
    """
    end = time.thread_time() + MAX_TRIAL_S
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + MAX_TRIAL_KIB

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        # A generator of somebody else's may be closed in here, and must not get our error.
        if not any(part in frame.f_code.co_filename for part in _TEMPLATE_CODE):
            return watch
        if time.thread_time() > end:
            raise TimeoutError(f"takes over {MAX_TRIAL_S:g} s with placeholders")
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > most:
            raise MemoryError(f"takes over {MAX_TRIAL_KIB // 1024} MiB with placeholders")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__


def variables_of(name: str) -> frozenset[str]:
    """Variables that a template gets, by the name of its file."""
    if "judge" in name:
        return JUDGE_VARIABLES
    return SCORE_VARIABLES if "score" in name else REQUEST_VARIABLES
