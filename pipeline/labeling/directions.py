"""Directions in the plane of two attributes (DPA: Wang et al. 2024, arXiv:2402.18571).

In:  two weights, or an angle; responses with a rating of each attribute
Out: the response that is best in a direction, and the system message that asks for the direction

A direction is a unit vector v = (cos a, sin a): at an angle of 0 degrees the first attribute counts
alone, at 90 the second, and beyond them one of the two counts against. The reward of a response
with ratings r is v . r. The wording of the request is ours.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from pipeline.stats import Estimate
from pipeline.types import Messages, with_system

Direction = tuple[float, float]
LARGEST = 1 + 1e-6
"""Longest vector that is taken, so that rounded weights such as 0.7071 twice are."""


class DirectionMetrics(BaseModel):
    """Replies of the tuned policy that were asked for in one direction of two attributes."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    angle: float
    """In degrees: 0 asks for the first attribute alone, 90 for the second."""
    ratings: dict[str, Estimate | None]
    """By id of the principle: the mean rating, in the recipe's options from 1; the interval is a
    bootstrap clustered by prompt. The two attributes come first."""


def direction(first: float, second: float) -> Direction:
    """The unit vector that points where two weights do; 0.8 and 0.2 give (0.970, 0.243).

    Raises:
        ValueError: both are 0, or the two lie outside the unit circle.
    """
    length = math.hypot(first, second)
    if not 0 < length <= LARGEST:
        where = "has no length" if length == 0 else "lies outside the unit circle"
        raise ValueError(
            f"the direction ({first:g}, {second:g}) {where}: its squares add up to "
            f"{length**2:.3g}, and need more than 0 and at most 1"
        )
    return first / length, second / length


def at_angle(degrees: float) -> Direction:
    """The unit vector at an angle."""
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def reward(v: Direction, ratings: Sequence[float]) -> float:
    """V . r, in the unit of the ratings."""
    return v[0] * ratings[0] + v[1] * ratings[1]


def best(v: Direction, ratings: Sequence[Sequence[float]]) -> int:
    """Index of the response with the largest reward; of equal ones the first."""
    return max(range(len(ratings)), key=lambda i: (reward(v, ratings[i]), -i))


def request(names: Sequence[str], v: Direction) -> str:
    """What asks for a direction, in hundredths: `97 * helpful + -26 * harmless`."""
    parts = (f"{round(100 * weight)} * {name}" for weight, name in zip(v, names, strict=True))
    return f"Make the reply as good as you can by this measure: {' + '.join(parts)}."


def directed(messages: Messages, names: Sequence[str], v: Direction) -> Messages:
    """The conversation with the request in its system message, after what that says already."""
    return with_system(messages, request(names, v))
