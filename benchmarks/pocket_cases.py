"""What the pocket model is asked when it is measured: prompts in ways of asking that training never
saw.

In:  a seed
Out: comparisons, and responses with the requests of one principle, with the truth

Used by pocket_quality.py and pocket_labeling.py.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from models.pocket import principles, world
from models.pocket.corpus import draw_any_kind, draw_pair, level_of
from models.pocket.follow_ups import categories
from models.pocket.oracle import ATTRIBUTES, Oracle, violates
from models.pocket.world import Kind

Dicts = list[dict[str, str]]


@dataclass(frozen=True)
class Comparison:
    """Two responses, and which is better under the principle's attribute (1 first, -1 second, 0
    equal).
    """

    conversation: Dicts
    attribute: str
    request: str
    first: str
    second: str
    truth: int
    levels: tuple[float, float]
    """Level of each response over the best level, in [0, 1]."""


@dataclass(frozen=True)
class Case:
    """A response of a known kind and the requests of one principle."""

    conversation: Dicts
    attribute: str
    kind: Kind
    response: str
    critique_request: str
    revision_request: str


def draw_comparisons(
    count: int, relation: str, seed: int, *, reworded: bool = False
) -> list[Comparison]:
    """Draw comparisons over all attributes in turn; `relation` is differ, equal or identical."""
    rng, oracle, comparisons = random.Random(seed), Oracle(), []
    for index in range(count):
        attribute = ATTRIBUTES[index % len(ATTRIBUTES)]
        task, a, b = draw_pair(attribute, "differ" if relation == "differ" else "equal", rng)
        conversation = world.write_conversation(task, rng, world.ASKS_HELD_OUT, held_out=True)
        first, second = world.write_response(task, a, rng), world.write_response(task, b, rng)
        second = first if relation == "identical" else second
        levels = level_of(a, attribute), level_of(b, attribute)
        truth = oracle.compare(conversation, first, second, attribute)
        assert truth is not None, (
            f"the grammar wrote a text that the oracle cannot read: {first!r} or {second!r}"
        )
        request = principles.write_request("comparison", attribute, rng, held_out=reworded)
        comparisons.append(
            Comparison(conversation, attribute, request, first, second, truth, levels)
        )
    return comparisons


def draw_cases(count: int, seed: int, *, reworded: bool = False) -> list[Case]:
    """Draw responses with requests, half of them violating the principle."""
    rng = random.Random(seed)
    cases: list[Case] = []
    while len(cases) < count:
        attribute = ATTRIBUTES[len(cases) % len(ATTRIBUTES)]
        task = rng.choice(world.tasks())
        kind = draw_any_kind(task, rng)
        if violates(kind, attribute) != (len(cases) // len(ATTRIBUTES) % 2 == 0):
            continue
        requests = [
            principles.write_request(p, attribute, rng, held_out=reworded)
            for p in ("critique", "revision")
        ]
        conversation = world.write_conversation(task, rng, world.ASKS_HELD_OUT, held_out=True)
        cases.append(
            Case(conversation, attribute, kind, world.write_response(task, kind, rng), *requests)
        )
    return cases


@dataclass(frozen=True)
class FollowUpPair:
    """Two responses, one better under some attributes that follow-ups speak of and worse under
    none.
    """

    conversation: Dicts
    better: str
    worse: str


def draw_follow_up_pairs(count: int, seed: int) -> list[FollowUpPair]:
    """Draw pairs of which one side is better under every attribute in which they differ, caution
    aside.
    """
    rng = random.Random(seed)
    pairs: list[FollowUpPair] = []
    names = [category.id for category in categories()]
    while len(pairs) < count:
        task = rng.choice(world.tasks())
        better, worse = draw_any_kind(task, rng), draw_any_kind(task, rng)
        gaps = [level_of(better, name) - level_of(worse, name) for name in names]
        if min(gaps) < 0 or max(gaps) == 0:
            continue
        conversation = world.write_conversation(task, rng, world.ASKS_HELD_OUT, held_out=True)
        pairs.append(
            FollowUpPair(
                conversation, *(world.write_response(task, kind, rng) for kind in (better, worse))
            )
        )
    return pairs


def share(values: Sequence[bool]) -> float:
    """Share of true values, NaN when there are none."""
    return round(sum(values) / len(values), 5) if values else math.nan
