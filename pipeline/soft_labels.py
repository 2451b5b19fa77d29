"""Label arithmetic: from log-probabilities of options to soft labels, margins, ratings. All pure.

    P(A)     exp(lpA) / (exp(lpA) + exp(lpB))          slot A is preferred, one call, in [0, 1]
    label    (P(A, forward) + 1 - P(A, swapped)) / 2   the first response is preferred, in [0, 1]
    gap      |P(A, forward) - (1 - P(A, swapped))|     in [0, 1]; 0 when the order changes nothing
    margin   ln(label / (1 - label))                   in nats, within +-30
    rating   sum_i i P(i), P(i) = p_i / sum_j p_j      of one response, in [1, number of ratings]

The order is fixed: probability of each call, its clamp (for chain of thought only), mean of the
probabilities over both orders, then margin, tie, threshold. Log-probabilities are never averaged,
an absent option is never zero, and what cannot be read raises.

Sources: Bai et al. 2022 (arXiv:2212.08073) for normalized option probabilities and the clamp;
Lee et al. 2023 (arXiv:2309.00267) for the mean over both orders and for expected ratings.

Does not: make ratings under two prompts, principles, or judges comparable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import VerdictError
from pipeline.types import OptionScores

MAX_MARGIN = 30.0
"""Nats; a probability closer to 1 than float64 resolves would give an infinite margin."""
EVEN = 1e-12
"""Distance from 0.5 that is rounding: a judge that sees nothing but the slot must not decide."""


@dataclass(frozen=True, slots=True)
class SlotProbability:
    """P(slot A is preferred) of one call, and how reliable that number is."""

    prob_a: float
    """In [0, 1], normalized over the two options."""
    option_mass: float
    """Probability that the model gave to either option, in [0, 1]."""
    exact: bool
    """False when one option was absent and its bound was used."""


@dataclass(frozen=True, slots=True)
class Rating:
    """The score of one response, and how reliable that number is."""

    score: float
    """Mean rating, in [1, number of ratings]."""
    option_mass: float
    """Probability that the model gave to any rating, in [0, 1]."""
    exact: bool
    """False when a rating was absent and its bound was used."""


def prob_slot_a(scores: OptionScores, *, min_option_mass: float = 0.0) -> SlotProbability:
    """P(A) = exp(lpA) / (exp(lpA) + exp(lpB)), Bai et al. 2022, section 4.1 (from memory).

    One absent option is taken at its upper bound, which moves the label toward 0.5 and never
    past it; the result is flagged.

    Raises:
        VerdictError: the engine calls the reply unreadable, both options are absent, a value is
            not a number, or the model gave the two options together less than `min_option_mass`:
            it answered something else.
    """
    if len(scores.logprobs) != 2:
        raise VerdictError(f"{len(scores.logprobs)} options were scored, but a verdict has two")
    # An absent option ranks below the reported one, whatever a loose bound says.
    lp_a, lp_b = _without_gaps(scores, limit=min(_reported(scores)))
    mass = _checked_mass((lp_a, lp_b), min_option_mass)
    return SlotProbability(sigmoid(lp_a - lp_b), mass, scores.exact)


def expected_rating(scores: OptionScores, *, min_option_mass: float = 0.0) -> Rating:
    """Mean rating under the normalized probabilities of all options, worst first.

    The mean and not the most probable rating: that one is 7 for a certain 7 and also for a coin
    toss between 7 and 8. An absent option is at most as probable as the endpoint's bound, and all
    absent ones together have at most what the others leave; they are taken there, never at zero,
    and the result is flagged.

    Raises:
        VerdictError: the engine calls the reply unreadable, all options are absent, one is absent
            without a bound, a value is not a number, or the model gave all options together less
            than `min_option_mass`.
    """
    if len(scores.logprobs) < 2:
        raise VerdictError(
            f"{len(scores.logprobs)} options were scored, but a rating has two or more"
        )
    known = _reported(scores)
    mass = _checked_mass(known, min_option_mass)
    left, num_absent = 1.0 - mass, len(scores.logprobs) - len(known)
    limit = math.log(left / num_absent) if num_absent and left > 0 else -math.inf
    probabilities = softmax(_without_gaps(scores, limit))
    score = sum(number * p for number, p in enumerate(probabilities, start=1))
    return Rating(score, mass, scores.exact)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), in [0, 1], without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    z = math.exp(x)
    return z / (1.0 + z)


def softmax(logprobs: Sequence[float]) -> list[float]:
    """exp(x_i) / sum_j exp(x_j): adds up to 1, without overflow; -inf is probability 0."""
    highest = max(logprobs)
    weights = [math.exp(value - highest) for value in logprobs]
    total = sum(weights)
    return [weight / total for weight in weights]


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """sum_k w_k v_k / sum_k w_k."""
    total = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return total / sum(weights)


def clamp(probability: float, low: float, high: float) -> float:
    """The nearest number in [low, high]; for a pair use p and 1 - p, so that they add up to 1.

    Raises:
        ValueError: the bounds are not symmetric around 0.5, which would prefer a slot.
    """
    if not math.isclose(low + high, 1.0, abs_tol=1e-9) or not 0.0 <= low <= 0.5:
        raise ValueError(f"clamp bounds [{low}, {high}] must be symmetric around 0.5")
    return min(max(probability, low), high)


def swap_average(prob_a_forward: float, prob_a_swapped: float) -> tuple[float, float]:
    """Soft label P(first preferred) and position gap |difference of the two orders|, in [0, 1].

    In the forward order slot A holds `first`; in the swapped order it holds `second`, so its
    probability is mapped back before the mean (Lee et al. 2023, position debiasing).
    """
    first_forward = prob_a_forward
    first_swapped = 1.0 - prob_a_swapped
    return (first_forward + first_swapped) / 2, abs(first_forward - first_swapped)


def orders_agree(prob_a_forward: float, prob_a_swapped: float) -> bool:
    """True when both orders prefer the same response; exactly 0.5 in either agrees with nothing."""
    return (prob_a_forward - 0.5) * ((1.0 - prob_a_swapped) - 0.5) > 0


def margin(soft_label: float) -> float:
    """Log-odds that the first response is preferred, in nats, within +-30. 0.75 gives 1.0986."""
    if soft_label <= 0.0:
        return -MAX_MARGIN
    if soft_label >= 1.0:
        return MAX_MARGIN
    value = math.log(soft_label) - math.log1p(-soft_label)
    return max(-MAX_MARGIN, min(MAX_MARGIN, value))


def is_tie(soft_label: float, tie_width: float) -> bool:
    """True when the label is within `tie_width` of 0.5 (0.5 itself is always a tie)."""
    return abs(soft_label - 0.5) <= tie_width + EVEN


def outcome(soft_label: float, tie_width: float = 0.0) -> float:
    """Hard label of the first response: 1 preferred, 0 not preferred, 0.5 a tie."""
    return 0.5 if is_tie(soft_label, tie_width) else float(soft_label > 0.5)


def _reported(scores: OptionScores) -> list[float]:
    """The log-probabilities that the engine reported: at least one, and all of them numbers."""
    if scores.unreadable:
        raise VerdictError(scores.unreadable)
    known = [value for value in scores.logprobs if value is not None]
    if not known:
        raise VerdictError(
            f"none of the {len(scores.logprobs)} options is among the reported tokens"
            + ("" if scores.upper_bound is None else f", the last at {scores.upper_bound:.3g} nats")
        )
    if any(map(math.isnan, known)):
        raise VerdictError(f"a log-probability is not a number: {_listed(scores)}")
    return known


def _without_gaps(scores: OptionScores, limit: float) -> list[float]:
    """All log-probabilities, those of absent options at the endpoint's bound or at `limit`."""
    if scores.exact:
        return _reported(scores)
    if scores.upper_bound is None:
        raise VerdictError(
            f"an option is absent and the endpoint gave no bound for it; the log-probabilities are "
            f"{_listed(scores)}"
        )
    absent = min(scores.upper_bound, limit)
    return [absent if value is None else value for value in scores.logprobs]


def _checked_mass(logprobs: Sequence[float], least: float) -> float:
    """Probability of all options together, in [0, 1]."""
    mass = min(1.0, sum(map(math.exp, logprobs)))
    if max(logprobs) == -math.inf or mass < least:
        raise VerdictError(
            f"the {len(logprobs)} options have probability {mass:.3g} together, below {least:g}: "
            "the model answers something else"
        )
    return mass


def _listed(scores: OptionScores) -> str:
    return ", ".join("absent" if v is None else f"{v:.3g}" for v in scores.logprobs)
