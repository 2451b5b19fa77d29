"""Ratings: expected scores by hand, absent options, masses, and no overflow."""

import math

import pytest

from pipeline.errors import VerdictError
from pipeline.labeling.ratings import expected_rating, mean_rating, rescaled, softmax, weighted_mean
from pipeline.types import OptionScores


def scores(*probabilities: float | None, bound: float | None = None) -> OptionScores:
    """Option scores from probabilities; None is absent."""
    return OptionScores(
        tuple(None if p is None else math.log(p) if p else -math.inf for p in probabilities),
        math.log(bound) if bound is not None else None,
    )


def point(rating: int) -> OptionScores:
    """All probability on one of ten ratings."""
    return scores(*(float(number == rating) for number in range(1, 11)))


def test_uniform_ratings_are_in_the_middle() -> None:
    """(1 + ... + 10) / 10 = 5.5, and (5.5 - 5.5) / 4.5 = 0."""
    rating = expected_rating(scores(*[0.05] * 10))
    assert rating.score == pytest.approx(5.5)
    assert rescaled(rating.score) == pytest.approx(0.0)
    assert (rating.option_mass, rating.exact) == (pytest.approx(0.5), True)


@pytest.mark.parametrize("rating, expected", [(10, 1.0), (1, -1.0), (7, 1.5 / 4.5)])
def test_point_mass_is_its_rating(rating: int, expected: float) -> None:
    found = expected_rating(point(rating)).score
    assert found == pytest.approx(rating)
    assert rescaled(found) == pytest.approx(expected)


def test_rescaling_takes_other_numbers_of_ratings() -> None:
    assert [rescaled(s, 5) for s in (1, 3, 5)] == [-1.0, 0.0, 1.0]


def test_score_is_normalized_over_the_ratings() -> None:
    """0.1 on rating 1 and 0.3 on rating 2 of three: (0.1 * 1 + 0.3 * 2) / 0.4 = 1.75."""
    assert expected_rating(scores(0.1, 0.3, 0.0)).score == pytest.approx(1.75)


def test_absent_option_is_at_its_bound_and_flagged() -> None:
    """0.6 on rating 1, and rating 2 at its bound 0.2: (0.6 + 0.4) / 0.8 = 1.25."""
    rating = expected_rating(scores(0.6, None, bound=0.2))
    assert rating.score == pytest.approx(1.25)
    assert not rating.exact


def test_absent_options_share_what_is_left() -> None:
    """0.9 is known, so two absent options have 0.05 each at most, although their bound is 0.3."""
    rating = expected_rating(scores(0.9, None, None, bound=0.3))
    assert rating.score == pytest.approx(0.9 + 0.1 + 0.15)


def test_nothing_to_read_is_no_score() -> None:
    with pytest.raises(VerdictError, match="no rating is among"):
        expected_rating(scores(None, None, bound=0.1))
    with pytest.raises(VerdictError, match="gave no bound"):
        expected_rating(scores(0.5, None))
    with pytest.raises(VerdictError, match="not a number"):
        expected_rating(OptionScores((math.nan, -1.0)))
    with pytest.raises(VerdictError, match="below 0"):
        expected_rating(scores(0.0, 0.0))
    with pytest.raises(VerdictError, match="1 options were scored"):
        expected_rating(scores(0.5))


def test_low_mass_is_no_score() -> None:
    low = scores(0.02, 0.03)
    assert expected_rating(low, min_option_mass=0.04).score == pytest.approx(1.6)
    with pytest.raises(VerdictError, match="probability 0.05 together, below 0.1"):
        expected_rating(low, min_option_mass=0.1)


def test_softmax_neither_overflows_nor_vanishes() -> None:
    assert softmax([1000.0, 1000.0]) == [0.5, 0.5]
    assert softmax([-5000.0, -5000.0 + math.log(3)]) == pytest.approx([0.25, 0.75])
    assert softmax([0.0, -math.inf]) == [1.0, 0.0]
    assert expected_rating(OptionScores((-5000.0, -5000.0))).score == pytest.approx(1.5)


def test_means_by_hand() -> None:
    assert mean_rating([0.25, 0.75]) == 1.75
    assert weighted_mean([2.0, 8.0], [3.0, 1.0]) == 3.5
