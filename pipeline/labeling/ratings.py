"""From log-probabilities of ratings to a score of one response. All pure.

    P(i) = p_i / sum_j p_j        over the complete ratings "1" to "10"
    s    = sum_i i P(i)           in [1, number of ratings]

Lee et al. 2023 (arXiv:2309.00267), direct RLAIF, from memory: the policy is rewarded with the mean
rating instead of a reward model. Scores are probabilities' means, never the most probable rating:
that one says 7 for a sure 7 and for a coin between 7 and 8.

Does not: make ratings of two prompts, two principles or two judges comparable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import VerdictError
from pipeline.types import OptionScores


@dataclass(frozen=True, slots=True)
class Rating:
    """The score of one response, and how sure we are of the number itself."""

    score: float
    """Mean rating, in [1, number of ratings]."""
    option_mass: float
    """Probability that the model gave to any rating, in [0, 1]."""
    exact: bool
    """False when a rating was absent and its bound was used."""


def expected_rating(scores: OptionScores, *, min_option_mass: float = 0.0) -> Rating:
    """Mean rating under the normalized probabilities of all options, worst first.

    An absent option is at most as probable as the endpoint's bound, and all absent ones together
    have at most what the others leave; they are taken there, never at zero, and the result is
    flagged.

    Raises:
        VerdictError: all options are absent, one is absent without a bound, a value is not a
            number, or the model gave all options together less than `min_option_mass`.
    """
    logprobs = scores.logprobs
    if len(logprobs) < 2:
        raise VerdictError(f"{len(logprobs)} options were scored, but a rating has two or more")
    if any(value is not None and math.isnan(value) for value in logprobs):
        raise VerdictError("a rating's log-probability is not a number")
    known = [value for value in logprobs if value is not None]
    if not known:
        raise VerdictError("no rating is among the reported tokens")
    mass = min(1.0, sum(math.exp(value) for value in known))
    if len(known) < len(logprobs):
        if scores.upper_bound is None:
            raise VerdictError("a rating is absent and the endpoint gave no bound for it")
        absent = min(scores.upper_bound, _log((1.0 - mass) / (len(logprobs) - len(known))))
        logprobs = tuple(absent if value is None else value for value in logprobs)
    if max(known) == -math.inf or mass < min_option_mass:
        raise VerdictError(
            f"the ratings have probability {mass:.3g} together, below {min_option_mass:g}: "
            "the model answers something else"
        )
    return Rating(mean_rating(softmax([v for v in logprobs if v is not None])), mass, scores.exact)


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Probabilities that add up to 1, without overflow; -inf is probability 0."""
    highest = max(logprobs)
    weights = [math.exp(value - highest) for value in logprobs]
    total = sum(weights)
    return [weight / total for weight in weights]


def mean_rating(probabilities: Sequence[float]) -> float:
    """sum_i i P(i) for the ratings 1, 2, ..."""
    return sum(number * p for number, p in enumerate(probabilities, start=1))


def rescaled(score: float, num_ratings: int = 10) -> float:
    """A mean rating in [-1, 1]: (s - 5.5) / 4.5 for ten ratings.

    The paper says that scores are rescaled to [-1, 1] and not how; this is the linear map.
    """
    return (score - (num_ratings + 1) / 2) / ((num_ratings - 1) / 2)


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """sum_k w_k v_k / sum_k w_k."""
    total = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return total / sum(weights)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
