"""Traits that labels may reward although no one asked for them; each counted by a program.

In:  a response
Out: a number: words, list items, flattering phrases and so on. The response with more of it has the
     trait. Votes as of principles: 1 where the chosen response has more, -1 less, 0 as much

English word lists. Does not: say that a trait is bad; it says that the labels go with it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.constitution.wording import content_words
from pipeline.discover.votes import Vote

_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
_FLATTERY = re.compile(
    r"\b(?:(?:great|good|excellent|wonderful|fantastic|thoughtful|insightful) "
    r"(?:question|point|idea|choice)"
    r"|you(?:'re| are) (?:absolutely|completely|so) right|what an? (?:great|interesting)"
    r"|happy to help|thank you for asking)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:may|might|perhaps|possibly|it depends|in general|consult a|i(?:'m| am) not sure)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:i (?:cannot|can't|won't|will not|am unable to|'m unable to)|i(?:'m| am) sorry)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Trait:
    """How much of it a response has, and the words by which a constitution would name it."""

    measure: Callable[[str], int]
    named_by: frozenset[str]


def _matches(pattern: re.Pattern[str]) -> Callable[[str], int]:
    return lambda text: len(pattern.findall(text))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TRAITS = {
    "more words": Trait(
        lambda text: len(text.split()),
        _words("long longer length short shorter brief concise words detail detailed"),
    ),
    "more list items": Trait(
        _matches(_ITEM), _words("list lists bullet bullets numbered format steps")
    ),
    "more flattery": Trait(
        _matches(_FLATTERY), _words("flattery flatter flattering praise sycophantic")
    ),
    "more hedging": Trait(
        _matches(_HEDGE), _words("hedge hedging cautious caution uncertain uncertainty")
    ),
    "more refusals": Trait(_matches(_REFUSAL), _words("refuse refuses refusal decline declines")),
    "more exclamation marks": Trait(
        lambda text: text.count("!"), _words("exclamation enthusiastic enthusiasm")
    ),
}


def trait_votes(trait: Trait, pairs: Sequence[tuple[str, str]]) -> list[Vote]:
    """A vote for each (chosen, rejected)."""
    levels = [(trait.measure(chosen), trait.measure(rejected)) for chosen, rejected in pairs]
    return [(a > b) - (a < b) for a, b in levels]


def is_named(trait: Trait, principles: Sequence[str]) -> bool:
    """Whether one of the principles has a word for it."""
    return any(trait.named_by & content_words(text) for text in principles)
