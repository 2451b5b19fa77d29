"""The label arithmetic against numbers derived by hand."""

import math

import pytest

from pipeline.errors import VerdictError
from pipeline.soft_labels import (
    MAX_MARGIN,
    clamp,
    is_tie,
    margin,
    orders_agree,
    prob_slot_a,
    sigmoid,
    swap_average,
)
from pipeline.types import OptionScores

LOGITS = (-4.0, -1.0, -0.1, 0.1, 1.0, 4.0)


def scores(prob_a: float | None, prob_b: float | None, bound: float | None = None) -> OptionScores:
    logs = tuple(None if p is None else math.log(p) for p in (prob_a, prob_b))
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
        (OptionScores((None, None), upper_bound=-5.0), "neither option"),
        (OptionScores((-0.5, None)), "no bound"),
        (OptionScores((math.nan, -1.0)), "not a number"),
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
    with pytest.raises(VerdictError, match="0.03 together, below 0.5"):
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
    """The same P(A) in both orders says nothing about the responses: p + (1 - p) over 2."""
    label, gap = swap_average(prob_a, prob_a)
    assert label == 0.5
    assert gap == pytest.approx(abs(2 * prob_a - 1))


@pytest.mark.parametrize("d", LOGITS)
@pytest.mark.parametrize("b", (-6.0, -1.0, 0.0, 1.0, 6.0))
def test_slot_logit_cancels(b: float, d: float) -> None:
    """True logit d, slot logit b: the label is (s(d + b) + s(d - b)) / 2, even in b, with d's sign."""
    label, _ = swap_average(sigmoid(d + b), sigmoid(-d + b))
    assert label == pytest.approx((sigmoid(d + b) + sigmoid(d - b)) / 2, abs=1e-12)
    mirrored, _ = swap_average(sigmoid(d - b), sigmoid(-d - b))
    assert label == pytest.approx(mirrored, abs=1e-12)
    assert (label > 0.5) == (d > 0)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.75, 1.0])
def test_consistent_judge_keeps_its_probability(p: float) -> None:
    """A judge without slot bias says p forward and 1 - p swapped; labels of both namings add to 1."""
    label, gap = swap_average(p, 1 - p)
    other, _ = swap_average(1 - p, p)
    assert label == pytest.approx(p)
    assert gap == pytest.approx(0)
    assert label + other == pytest.approx(1)


def test_probabilities_are_averaged_not_logs() -> None:
    """0.99 and 0.2 have the mean 0.595; their logits' mean, (4.595 - 1.386) / 2 = 1.604, is 0.833."""
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
    with pytest.raises(ValueError, match="symmetric around 0.5"):
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
