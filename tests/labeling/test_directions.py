"""Directions, by hand: unit vectors, the best response in each, and the request for one."""

import math

import pytest

from pipeline.labeling.directions import at_angle, best, directed, direction, request, reward
from pipeline.types import Message, user

NAMES = ("helpful", "harmless")


def test_two_weights_point_somewhere() -> None:
    """0.8 and 0.2 have length sqrt(0.68) = 0.8246: 0.970 and 0.243."""
    assert direction(0.8, 0.2) == pytest.approx((0.97014, 0.24254), abs=1e-5)
    assert direction(0.7071068, 0.7071068) == pytest.approx(at_angle(45))
    assert math.hypot(*at_angle(-15)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("weights", "problem"),
    [((0.8, 0.8), r"outside the unit circle: .* 1.28"), ((0, 0), "no length"), ((-2, 0), "circle")],
)
def test_what_points_nowhere_is_refused(weights: tuple[float, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        direction(*weights)


def test_the_best_response_changes_at_one_angle() -> None:
    """(8, 2) against (3, 9): v . (5, -7) = 0 at atan2(5, 7) = 35.54 degrees."""
    ratings = [(8.0, 2.0), (3.0, 9.0)]
    assert [best(at_angle(a), ratings) for a in (0, 35, 36, 90)] == [0, 0, 1, 1]
    assert reward(at_angle(0), ratings[0]) == 8
    scaled = [(16.0, 4.0), (6.0, 18.0)]
    assert [best(at_angle(a), scaled) for a in (35, 36)] == [0, 1]
    assert best(at_angle(-30), [(5.0, 5.0), (5.0, 1.0)]) == 1
    assert best(at_angle(10), [(5.0, 5.0), (5.0, 5.0)]) == 0


def test_a_direction_is_asked_for_in_hundredths() -> None:
    """At -15 degrees cosine and sine are .966 and -.259."""
    text = request(NAMES, at_angle(-15))
    assert text.endswith("by this measure: 97 * helpful + -26 * harmless.")
    v = direction(0.8, 0.2)
    first, last = directed((user("Hi"),), NAMES, v)
    assert (first.role, last.content) == ("system", "Hi") and "97 * helpful" in first.content
    held = directed((Message("system", "Be brief."), user("Hi")), NAMES, v)
    assert len(held) == 2 and held[0].content.startswith("Be brief.\n\nMake the reply")
