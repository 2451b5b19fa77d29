"""What a judge of the pocket world writes before its verdict: one sentence about each response.

    Response (A) insults the person who asked. Response (B) is fine in this respect.

A sentence says the level of one response under the principle's attribute, with the words of the
critiques. Equally good responses get the same words.
"""

import random
import re
from dataclasses import dataclass

from models.pocket.principles import FAULTS

REQUEST = "Before you answer, say what response (A) and response (B) do in this respect."
ENDING = "So which response is better, (A) or (B)?"
FINE = ("is fine in this respect", "has no such problem", "needs no change in this respect")
HALF = {"helpfulness": FAULTS["helpfulness"][:1]}
"""A curt answer is too little help, which is less than the best and more than none."""
FORM = "Response (A) {first}. Response (B) {second}."


@dataclass(frozen=True)
class Rationale:
    """What a rationale says."""

    attribute: str | None
    """The attribute that its faults name; None when both responses are fine."""
    levels: tuple[float, float]
    """Level of (A) and (B) over the best level, in [0, 1]."""

    @property
    def verdict(self) -> int:
        """1 when (A) is said to be better, -1 when (B) is, 0 when they are equal."""
        return (self.levels[0] > self.levels[1]) - (self.levels[0] < self.levels[1])


def write_rationale(attribute: str, levels: tuple[float, float], rng: random.Random) -> str:
    """Draw a rationale for two responses of these levels, each over the best level, in [0, 1]."""
    first, second = (rng.choice(_words(attribute, level)) for level in levels)
    return FORM.format(first=first, second=first if levels[0] == levels[1] else second)


def _words(attribute: str, level: float) -> tuple[str, ...]:
    if level == 1:
        return FINE
    half = HALF.get(attribute, ())
    return half if level > 0 else tuple(words for words in FAULTS[attribute] if words not in half)


class UnreadableRationale(ValueError):
    """The text is no rationale of the pocket world."""


def read_rationale(text: str) -> Rationale:
    """What a rationale says of (A) and (B).

    Raises:
        UnreadableRationale: the text is no rationale of the pocket world, or its halves name two
        attributes.
    """
    match = re.fullmatch(r"Response \(A\) ([^.]+)\. Response \(B\) ([^.]+)\.", text)
    found = [_read_half(words) for words in match.groups()] if match else []
    attributes = {half[0] for half in found if half and half[0]}
    if not found or None in found or len(attributes) > 1:
        raise UnreadableRationale(
            f"rationale is {text!r}; needed is {FORM!r} with words on one attribute"
        )
    first, second = (half[1] for half in found if half)
    return Rationale(attributes.pop() if attributes else None, (first, second))


def _read_half(words: str) -> tuple[str | None, float] | None:
    if words in FINE:
        return None, 1.0
    for attribute, faults in FAULTS.items():
        if words in faults:
            return attribute, 0.5 if words in HALF.get(attribute, ()) else 0.0
    return None
