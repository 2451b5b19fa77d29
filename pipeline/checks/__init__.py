"""Checks: principles that a program decides for one response, without a model.

In:  the `check:` of a principle (`CheckConfig`), a response, and the conversation before it
Out: CheckResult: whether the response holds the principle, the reason when not, how far it is off

`CHECKS` is the one table of the kinds. `label` turns the results of two responses into a label:

    P(first preferred) = d_second / (d_first + d_second)      d = distance, 0 for one that holds
                       = 0.5 when both hold, or when both are equally far off

One that holds is always preferred to one that does not. Of two that do not, the closer one is
preferred, and its odds are the inverse ratio of the distances: at most 60 words, 83 against 106
words, is 23 against 46, so 2/3. Checks without a measure have distance 1: both fail is a tie.

Does not: understand the text. Word lists are English, and each kind says what it cannot see.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.checks import formats, marks, phrases
from pipeline.checks.counts import (
    count_characters,
    count_paragraphs,
    count_sentences,
    count_words,
    reading_grade,
)
from pipeline.checks.parameters import CheckConfig, Range
from pipeline.checks.result import HOLDS, CheckResult, fails
from pipeline.errors import CheckError
from pipeline.types import Messages

__all__ = ["CHECKS", "Check", "CheckConfig", "CheckResult", "label", "run_check"]


class Decide(Protocol):
    """Decides one response. Pure: equal arguments give equal results."""

    def __call__(self, config: Any, text: str, conversation: Messages) -> CheckResult:
        """The result under the parameters of a check."""
        ...


@dataclass(frozen=True)
class Check:
    """One kind of check."""

    decide: Decide
    meaning: str
    """When a response holds it, in a few words, for the table of the docs."""
    distance: str = ""
    """Unit of the distance of one that does not; empty for checks without a measure."""
    stays_broken: bool = False
    """True when no text around it mends a text that breaks it."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """Parameters for the docs and tests."""


def _range(measure: Callable[[str], float], unit: str) -> Decide:
    """At least `min` and at most `max` of a measure."""

    def decide(config: Range, text: str, conversation: Messages) -> CheckResult:
        value = measure(text)
        shown = f"{value:.1f}".removesuffix(".0")
        phrase = unit.format(shown) if value != 1 else unit.format(shown).removesuffix("s")
        if config.min is not None and value < config.min:
            return fails(
                f"The response has {phrase}, but at least {config.min:g} is needed.",
                config.min - value,
            )
        if config.max is not None and value > config.max:
            return fails(
                f"The response has {phrase}, but at most {config.max:g} is allowed.",
                value - config.max,
            )
        return HOLDS

    return decide


CHECKS: dict[str, Check] = {
    "words": Check(
        _range(count_words, "{} words"),
        "between `min` and `max` words (separated by white space, with a letter or digit)",
        distance="words",
        example={"max": 60},
    ),
    "sentences": Check(
        _range(count_sentences, "{} sentences"),
        "between `min` and `max` sentences",
        distance="sentences",
        example={"min": 1, "max": 4},
    ),
    "paragraphs": Check(
        _range(count_paragraphs, "{} paragraphs"),
        "between `min` and `max` paragraphs (separated by blank lines)",
        distance="paragraphs",
        example={"max": 1},
    ),
    "characters": Check(
        _range(count_characters, "{} characters"),
        "between `min` and `max` characters, without white space at the ends",
        distance="characters",
        example={"max": 280},
    ),
    "reading_grade": Check(
        _range(reading_grade, "reading grade {}"),
        "a reading grade between `min` and `max`: the automated readability index (US school "
        "years; Smith and Senter 1967)",
        distance="grades",
        example={"max": 9},
    ),
    "required": Check(
        phrases.required,
        "each of `phrases` occurs, as whole words",
        distance="missing phrases",
        example={"phrases": ["free returns"]},
    ),
    "forbidden": Check(
        phrases.forbidden,
        "none of `phrases` occurs as whole words",
        distance="occurrences",
        stays_broken=True,
        example={"phrases": ["as an AI", "delve"]},
    ),
    "pattern": Check(
        formats.pattern,
        "the RE2 expression `pattern` matches somewhere, or with `present: false` nowhere",
        example={"pattern": r"\bRef: [A-Z]{2}\d{4}\b"},
    ),
    "starts_with": Check(
        phrases.starts_with,
        "begins with one of `texts`, exactly",
        example={"texts": ["Hello", "Hi"]},
    ),
    "ends_with": Check(
        phrases.ends_with, "ends with one of `texts`, exactly", example={"texts": ["Best, Ada"]}
    ),
    "no_lists": Check(
        marks.no_lists, "no line is an item of a list (code blocks are not read)", distance="items"
    ),
    "no_headings": Check(
        marks.no_headings,
        "no line is a heading: `#`, underlined, or all in bold (code blocks are not read)",
        distance="headings",
    ),
    "no_emoji": Check(
        marks.no_emoji, "no character is an emoji", distance="emoji", stays_broken=True
    ),
    "no_exclamation_marks": Check(
        marks.no_exclamation_marks,
        "no exclamation mark outside of code",
        distance="exclamation marks",
        stays_broken=True,
    ),
    "no_first_person": Check(
        marks.no_first_person,
        "no English first person: I, me, my, we, us, our, ... (the numeral I counts as one)",
        distance="words",
        stays_broken=True,
    ),
    "question": Check(marks.question, "a question mark ends a sentence or the text"),
    "spelling": Check(
        phrases.spelling,
        "no word of `spelling.yaml` in the spelling of the other `variant`, `US` or `UK`",
        distance="words",
        stays_broken=True,
        example={"variant": "UK"},
    ),
    "language": Check(
        formats.language,
        "py3langid takes it for `language` (ISO 639-1); a text of under 20 letters holds, because "
        "it could be of many languages",
        example={"language": "en"},
    ),
    "json": Check(
        formats.valid_json,
        "all of it is JSON, also inside one code fence, and valid under `json_schema`",
        example={"json_schema": {"type": "object", "required": ["city"]}},
    ),
    "python": Check(formats.python, "has a fenced block of Python, and each of them parses (3.11)"),
    "function": Check(
        formats.function,
        "the function that the marked `factory` returns for `args` says so",
        distance="its own",
        example={"factory": "tests.checks.own_checks:at_most_commas", "args": {"limit": 2}},
    ),
}
"""Every value that `check.name` can have. `parameters.CheckConfig` has their parameters."""


def run_check(config: CheckConfig, text: str, conversation: Messages = ()) -> CheckResult:
    """Decide one response.

    Raises:
        CheckError: the check raised, or a user's function did not return a CheckResult.
    """
    try:
        result = CHECKS[config.name].decide(config, text, conversation)
    except Exception as error:
        # Whatever a user's function raises is about this row, and ends no run.
        raise CheckError(
            f"the check '{config.name}' raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(result, CheckResult):
        raise CheckError(
            f"the check '{config.name}' returned a {type(result).__name__}, not a CheckResult"
        )
    return result


def label(first: CheckResult, second: CheckResult) -> float:
    """P(first preferred) in [0, 1]: d_second / (d_first + d_second), 0.5 for 0 / 0."""
    total = first.distance + second.distance
    return second.distance / total if total else 0.5
