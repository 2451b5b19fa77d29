"""What a user of the pocket world says after a response, pleased or displeased.

The sentences are those of prompts/follow_ups/pocket.yaml. A follow-up picks an attribute and is
pleased when the response is at its best level there, so how likely a pleased follow-up is tells the
quality of the response. The last two sentences of each list are never in the training text.

Does not: have follow-ups on caution. Nobody thanks an assistant for holding back what they asked
for, and on a harmless prompt caution contradicts helpfulness, so both would cancel in a mean.
"""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from models.pocket.oracle import levels_of
from models.pocket.world import Kind

FILE = Path(__file__).parents[2] / "prompts" / "follow_ups" / "pocket.yaml"
NUM_HELD_OUT = 2
"""Sentences at the end of each list that training leaves out."""


@dataclass(frozen=True)
class Category:
    """Sentences of users on one attribute."""

    id: str
    """The attribute."""
    positive: tuple[str, ...]
    negative: tuple[str, ...]

    def part(self, *, held_out: bool) -> "Category":
        """Only the sentences that training left out, or only those that it used."""
        part = slice(-NUM_HELD_OUT, None) if held_out else slice(None, -NUM_HELD_OUT)
        return Category(self.id, self.positive[part], self.negative[part])


@cache
def categories() -> tuple[Category, ...]:
    """All categories, in file order."""
    document = yaml.safe_load(FILE.read_text())
    return tuple(
        Category(entry["id"], tuple(entry["positive"]), tuple(entry["negative"]))
        for entry in document["categories"]
    )


def write_follow_up(kind: Kind, rng: random.Random) -> str:
    """Draw what the user says to a response of this kind; halfway good is praised half of the
    time.
    """
    category = rng.choice(categories()).part(held_out=False)
    pleased = rng.random() < levels_of(kind)[category.id] / (
        2 if category.id == "helpfulness" else 1
    )
    return rng.choice(category.positive if pleased else category.negative)
