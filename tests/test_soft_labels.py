"""The label arithmetic against numbers derived by hand."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.errors import VerdictError
from pipeline.soft_labels import (
    MAX_MARGIN,
    clamp,
    expected_rating,
    is_tie,
    margin,
    orders_agree,
    outcome,
    prob_slot_a,
    sigmoid,
    softmax,
    swap_average,
    weighted_mean,
)
from pipeline.types import OptionScores

LOGITS = (-4.0, -1.0, -0.1, 0.1, 1.0, 4.0)
PROBABILITY = st.floats(0, 1)
LOGIT = st.floats(-50, 50)


def scores(*probabilities: float | None, bound: float | None = None) -> OptionScores:
    """Option scores from probabilities; None is absent."""
    logs = tuple(None if p is None else math.log(p) if p else -math.inf for p in probabilities)
    return OptionScores(logs, upper_bound=None if bound is None else math.log(bound))


def test_equal_options_give_half() -> None:
    assert prob_slot_a(scores(0.3, 0.3)).prob_a == 0.5


def test_options_are_normalized() -> None:
    """0.6 / (0.6 + 0.2) = 0.75, and the two options hold 0.8 of all probability."""
    found = prob_slot_a(scores(0.6, 0.2))
    assert found.prob_a == pytest.approx(0.75)
    assert found.option_mass == pytest.approx(0.8)
    assert found.exact


def test_probability_rises_with_difference() -> None:
    found = [prob_slot_a(OptionScores((d / 2 - 3, -d / 2 - 3))).prob_a for d in LOGITS]
    assert found == sorted(found)
    assert len(set(found)) == len(found)


def test_absent_option_takes_its_bound() -> None:
    """B is at most 0.1: 0.7 / (0.7 + 0.1) = 0.875, where taking it as zero would give 1."""
    found = prob_slot_a(scores(0.7, None, bound=0.1))
    assert found.prob_a == pytest.approx(0.875)
    assert not found.exact
    assert prob_slot_a(scores(None, 0.7, bound=0.1)).prob_a == pytest.approx(0.125)


def test_bound_never_passes_half() -> None:
    """An absent option ranks below a reported one, whatever a loose bound says."""
    assert prob_slot_a(scores(0.2, None, bound=0.9)).prob_a == 0.5


@pytest.mark.parametrize(
    "unreadable, message",
    [
        (
            OptionScores((None, None), upper_bound=-5.0),
            "none of the 2 options is among the reported tokens, the last at -5 nats",
        ),
        (OptionScores((-0.5, None)), "no bound for it; the log-probabilities are -0.5, absent"),
        (OptionScores((math.nan, -1.0)), "not a number: nan, -1"),
        (OptionScores((-math.inf, -math.inf)), "probability 0 together"),
        (OptionScores((-1.0,)), "1 options were scored"),
        (OptionScores((-1.0, -1.0, -1.0)), "3 options were scored"),
    ],
)
def test_unreadable_verdict_raises(unreadable: OptionScores, message: str) -> None:
    with pytest.raises(VerdictError, match=message):
        prob_slot_a(unreadable)


def test_other_answer_is_no_verdict() -> None:
    """0.02 + 0.01 = 0.03 of the probability is on the options; the judge says something else."""
    assert prob_slot_a(scores(0.02, 0.01)).prob_a == pytest.approx(2 / 3)
    with pytest.raises(VerdictError, match=r"0.03 together, below 0.5"):
        prob_slot_a(scores(0.02, 0.01), min_option_mass=0.5)


def test_impossible_option_gives_certainty() -> None:
    assert prob_slot_a(OptionScores((-0.1, -math.inf))).prob_a == 1.0


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(1000.0) == 1.0
    assert sigmoid(-1000.0) == 0.0
    assert sigmoid(math.log(3)) == pytest.approx(0.75)


def test_swapped_order_is_mapped_back() -> None:
    """Forward 0.9 for first; swapped 0.2 for second, so 0.8 for first: mean 0.85, gap 0.1."""
    label, gap = swap_average(0.9, 0.2)
    assert label == pytest.approx(0.85)
    assert gap == pytest.approx(0.1)


@pytest.mark.parametrize("prob_a", [1.0, 0.9, 0.5, 0.123456789, 0.0])
def test_slot_lover_gives_exactly_half(prob_a: float) -> None:
    """An equal P(A) in both orders says nothing about the responses: p + (1 - p) over 2."""
    label, gap = swap_average(prob_a, prob_a)
    assert label == 0.5
    assert gap == pytest.approx(abs(2 * prob_a - 1))


@pytest.mark.parametrize("d", LOGITS)
@pytest.mark.parametrize("b", (-6.0, -1.0, 0.0, 1.0, 6.0))
def test_slot_logit_cancels(b: float, d: float) -> None:
    """Logit d, slot logit b: the label is (s(d + b) + s(d - b)) / 2, even in b, with d's sign."""
    label, _ = swap_average(sigmoid(d + b), sigmoid(-d + b))
    assert label == pytest.approx((sigmoid(d + b) + sigmoid(d - b)) / 2, abs=1e-12)
    mirrored, _ = swap_average(sigmoid(d - b), sigmoid(-d - b))
    assert label == pytest.approx(mirrored, abs=1e-12)
    assert (label > 0.5) == (d > 0)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.75, 1.0])
def test_consistent_judge_keeps_its_probability(p: float) -> None:
    """A judge without slot bias says p, then 1 - p swapped; labels of both namings add to 1."""
    label, gap = swap_average(p, 1 - p)
    other, _ = swap_average(1 - p, p)
    assert label == pytest.approx(p)
    assert gap == pytest.approx(0)
    assert label + other == pytest.approx(1)


def test_probabilities_are_averaged_not_logs() -> None:
    """0.99 and 0.2 have mean 0.595; their logits' mean, (4.595 - 1.386) / 2 = 1.604, is 0.833."""
    label, _ = swap_average(0.99, 0.8)
    assert label == pytest.approx(0.595)
    geometric = sigmoid((margin(0.99) + margin(0.2)) / 2)
    assert geometric == pytest.approx(0.8326, abs=1e-4)


def test_clamp_comes_before_the_mean() -> None:
    """0.99 and 0.2 clamp to 0.6 and 0.4, mean 0.5; clamping the mean would give 0.595."""
    label, _ = swap_average(clamp(0.99, 0.4, 0.6), 1 - clamp(0.2, 0.4, 0.6))
    assert label == pytest.approx(0.5)


@pytest.mark.parametrize("p", [0.0, 0.41, 0.5, 0.93, 1.0])
def test_clamped_pair_adds_to_one(p: float) -> None:
    assert clamp(p, 0.4, 0.6) + clamp(1 - p, 0.4, 0.6) == pytest.approx(1)


@pytest.mark.parametrize("low, high", [(0.4, 0.7), (0.6, 0.4), (-0.1, 1.1)])
def test_lopsided_clamp_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"symmetric around 0.5"):
        clamp(0.5, low, high)


def test_margin_of_three_quarters() -> None:
    """0.75 / 0.25 = 3, ln 3 = 1.0986."""
    assert margin(0.75) == pytest.approx(1.098612, abs=1e-6)
    assert margin(0.25) == pytest.approx(-1.098612, abs=1e-6)
    assert margin(0.5) == 0


def test_margin_stays_finite() -> None:
    assert margin(1.0) == MAX_MARGIN
    assert margin(0.0) == -MAX_MARGIN
    assert margin(1 - 2**-53) == MAX_MARGIN
    assert margin(1e-300) == -MAX_MARGIN


def test_tie_includes_its_edges() -> None:
    assert is_tie(0.5, 0.0)
    assert is_tie(0.52, 0.02) and is_tie(0.48, 0.02)
    assert not is_tie(0.5201, 0.02)
    assert not is_tie(0.5 + 1e-9, 0.0)


@pytest.mark.parametrize(
    "forward, swapped, agree",
    [(0.9, 0.1, True), (0.1, 0.9, True), (0.9, 0.9, False), (0.1, 0.1, False), (0.5, 0.1, False)],
)
def test_orders_agree_about_the_response(forward: float, swapped: float, agree: bool) -> None:
    assert orders_agree(forward, swapped) is agree


def test_outcome_follows_the_tie_width() -> None:
    assert [outcome(p, 0.02) for p in (0.9, 0.53, 0.51, 0.5, 0.49, 0.1)] == [1, 1, 0.5, 0.5, 0.5, 0]
    assert outcome(0.5, 0.0) == 0.5


def point(rating: int) -> OptionScores:
    """All probability on one of ten ratings."""
    return scores(*(float(number == rating) for number in range(1, 11)))


def test_uniform_ratings_are_in_the_middle() -> None:
    """(1 + ... + 10) / 10 = 5.5."""
    rating = expected_rating(scores(*[0.05] * 10))
    assert rating.score == pytest.approx(5.5)
    assert rating.option_mass == pytest.approx(0.5) and rating.exact


@pytest.mark.parametrize("rating", [1, 7, 10])
def test_point_mass_is_its_rating(rating: int) -> None:
    assert expected_rating(point(rating)).score == pytest.approx(rating)


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


def test_unreadable_rating_raises() -> None:
    with pytest.raises(VerdictError, match="none of the 2 options is among"):
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
    with pytest.raises(VerdictError, match=r"probability 0.05 together, below 0.1"):
        expected_rating(low, min_option_mass=0.1)


def test_softmax_neither_overflows_nor_vanishes() -> None:
    assert softmax([1000.0, 1000.0]) == [0.5, 0.5]
    assert softmax([-5000.0, -5000.0 + math.log(3)]) == pytest.approx([0.25, 0.75])
    assert softmax([0.0, -math.inf]) == [1.0, 0.0]
    assert expected_rating(OptionScores((-5000.0, -5000.0))).score == pytest.approx(1.5)


def test_weighted_mean_by_hand() -> None:
    """(3 * 2 + 1 * 8) / 4 = 3.5."""
    assert weighted_mean([2.0, 8.0], [3.0, 1.0]) == 3.5


# --- properties ----------------------------------------------------------------------------------


@given(LOGIT, LOGIT)
def test_slot_logit_cancels_for_any_judge(d: float, b: float) -> None:
    """Logit d, slot logit b: the label does not change when the slot logit changes its sign."""
    label, _ = swap_average(sigmoid(d + b), sigmoid(-d + b))
    mirrored, _ = swap_average(sigmoid(d - b), sigmoid(-d - b))
    assert label == pytest.approx(mirrored, abs=1e-12)
    renamed, _ = swap_average(sigmoid(-d + b), sigmoid(d + b))
    assert label + renamed == pytest.approx(1, abs=1e-12)


@given(PROBABILITY, PROBABILITY)
def test_label_and_gap_are_probabilities(forward: float, swapped: float) -> None:
    label, gap = swap_average(forward, swapped)
    assert 0 <= label <= 1 and 0 <= gap <= 1
    if orders_agree(forward, swapped):
        assert (label > 0.5) == (forward > 0.5)


@given(PROBABILITY, st.floats(0, 0.5))
def test_clamp_is_symmetric_and_bounded(p: float, low: float) -> None:
    inside = clamp(p, low, 1 - low)
    assert low <= inside <= 1 - low
    assert clamp(inside, low, 1 - low) == inside
    assert inside + clamp(1 - p, low, 1 - low) == pytest.approx(1, abs=1e-12)


@given(PROBABILITY, PROBABILITY)
def test_margin_is_monotone(p: float, q: float) -> None:
    low, high = sorted((p, q))
    assert -MAX_MARGIN <= margin(low) <= margin(high) <= MAX_MARGIN


@given(st.floats(1e-6, 1 - 1e-6))
def test_margin_is_antisymmetric_and_undone_by_the_sigmoid(p: float) -> None:
    assert margin(1 - p) == pytest.approx(-margin(p), abs=1e-9)
    assert sigmoid(margin(p)) == pytest.approx(p, abs=1e-12)


@given(PROBABILITY, st.floats(0, 0.5))
def test_outcomes_of_both_namings_add_up_to_one(p: float, tie_width: float) -> None:
    assume(abs(abs(p - 0.5) - tie_width) > 1e-9)  # at the edge itself, rounding decides
    assert outcome(p, tie_width) + outcome(1 - p, tie_width) == 1
    assert (outcome(p, tie_width) == 0.5) == is_tie(p, tie_width)


@given(st.lists(LOGIT, min_size=2, max_size=10))
def test_softmax_adds_up_to_one(logits: list[float]) -> None:
    probabilities = softmax(logits)
    assert sum(probabilities) == pytest.approx(1, abs=1e-12)
    assert all(0 <= p <= 1 for p in probabilities)


@given(st.lists(st.floats(-20, 0), min_size=3, max_size=10), st.floats(0, 5))
def test_rating_is_in_range_and_rises_with_better_ratings(
    logits: list[float], boost: float
) -> None:
    """Tilting all probabilities toward better ratings never lowers the mean."""
    rating = expected_rating(OptionScores(tuple(logits))).score
    assert 1 - 1e-9 <= rating <= len(logits) + 1e-9
    tilted = tuple(value + boost * number for number, value in enumerate(logits))
    assert expected_rating(OptionScores(tilted)).score >= rating - 1e-9


@given(st.lists(st.floats(-20, 0), min_size=3, max_size=10))
def test_rating_moves_by_one_with_its_options(logits: list[float]) -> None:
    """An impossible worst rating put in front moves every rating up by exactly one."""
    rating = expected_rating(OptionScores(tuple(logits))).score
    shifted = expected_rating(OptionScores((-math.inf, *logits))).score
    assert shifted == pytest.approx(rating + 1, abs=1e-9)


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_absent_option_moves_the_label_toward_half(known: float, bound: float) -> None:
    """The bound is the most that the absent option can have, so the label is no surer than that."""
    found = prob_slot_a(OptionScores((known, None), upper_bound=bound))
    assert 0.5 <= found.prob_a <= 1 and not found.exact
