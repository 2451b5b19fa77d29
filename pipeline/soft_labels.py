"""From log-probabilities of options to a soft label, a margin and a decision. All pure.

The order is fixed: probability per call, (clamp per call, for chain-of-thought only), mean of
the probabilities over both orders, then margin, tie, threshold. Log-probabilities are never
averaged, an absent option is never zero, and what cannot be read raises.

Sources: Bai et al. 2022 (arXiv:2212.08073) for normalized option probabilities and the clamp;
Lee et al. 2023 (arXiv:2309.00267) for the mean over both orders.
"""

import math
from dataclasses import dataclass

from pipeline.errors import VerdictError
from pipeline.types import OptionScores

MAX_MARGIN = 30.0
"""Nats; a probability closer to 1 than float64 resolves would give an infinite margin."""


@dataclass(frozen=True, slots=True)
class SlotProbability:
    """P(slot A is preferred) of one call, and how sure we are of the number itself."""

    prob_a: float
    """In [0, 1], normalized over the two options."""
    option_mass: float
    """Probability that the model gave to either option, in [0, 1]."""
    exact: bool
    """False when one option was absent and its bound was used."""


def prob_slot_a(scores: OptionScores, *, min_option_mass: float = 0.0) -> SlotProbability:
    """P(A) = exp(lpA) / (exp(lpA) + exp(lpB)), Bai et al. 2022, section 4.1 (from memory).

    One absent option is taken at its upper bound, which moves the label toward 0.5 and never
    past it; the result is flagged.

    Raises:
        VerdictError: both options are absent, a value is not a number, or the model gave the two
            options together less than `min_option_mass`: it answered something else.
    """
    if len(scores.logprobs) != 2:
        raise VerdictError(f"{len(scores.logprobs)} options were scored, but a verdict has two")
    lp_a, lp_b = scores.logprobs
    if lp_a is None and lp_b is None:
        raise VerdictError("neither option is among the reported tokens")
    if any(value is not None and math.isnan(value) for value in (lp_a, lp_b)):
        raise VerdictError("an option's log-probability is not a number")
    bound = scores.upper_bound
    if lp_a is None or lp_b is None:
        known = lp_b if lp_a is None else lp_a
        if bound is None or known is None:
            raise VerdictError("one option is absent and the endpoint gave no bound for it")
        # The absent one is at most the bound, and at most the known one's rank allows it.
        absent = min(bound, known)
        lp_a, lp_b = (absent, known) if lp_a is None else (known, absent)
    mass = min(1.0, math.exp(lp_a) + math.exp(lp_b))
    if max(lp_a, lp_b) == -math.inf or mass < min_option_mass:
        raise VerdictError(
            f"the two options have probability {mass:.3g} together, below {min_option_mass:g}: "
            "the judge answers something else"
        )
    return SlotProbability(sigmoid(lp_a - lp_b), mass, scores.exact)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    z = math.exp(x)
    return z / (1.0 + z)


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
    return abs(soft_label - 0.5) <= tie_width + 1e-12
