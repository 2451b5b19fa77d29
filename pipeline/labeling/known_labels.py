"""A bound on the share of wrong pairs, from labels whose truth is known.

In:  what the recipe's judges said about labeled comparisons (`rlaif judge-eval --known-labels`)
Out: the least soft label of a pair, such that with the given confidence at most `max_error` of the
     pairs at or above it are wrong

Thresholds are tested from the highest down, each by the exact binomial bound of Clopper and Pearson
(1934), and the first that fails ends the search. All tests together then err with a probability of
at most 1 - confidence: fixed-sequence testing, as in Learn then Test (Angelopoulos et al. 2021,
arXiv:2110.01052) and, for judges, in Trust or Escalate (Jung et al. 2024, arXiv:2407.18370). The
thresholds must not be chosen on the labels that test them, so a fifth of the contexts chooses them
and is not tested on. One comparison per context is used: others would not be independent.

Does not: hold for comparisons of another kind. The known ones have to be like those of the run.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from pipeline.config.labeling import PairConfig
from pipeline.config.paths import plain_bytes
from pipeline.config.section import Section
from pipeline.errors import ConfigError
from pipeline.ids import uniform
from pipeline.soft_labels import is_tie, margin

ORDER_SHARE = 0.2
"""Share of the contexts that chooses the thresholds."""
FIRST = 3
"""Comparisons at the first threshold, in expectation, for each that the bound needs at least."""
STEP = 0.05
"""Share of the comparisons that each further threshold adds."""
MAKE_IT = "make it with `rlaif judge-eval --recipe RECIPE FILE --known-labels KNOWN`"


class KnownLabel(Section):
    """One comparison whose better response is known."""

    prompt_id: str
    label: float = Field(ge=0, le=1)
    """The soft label of the better response, in [0, 1]: wrong below 0.5."""
    orders_agree: bool
    """Whether both orders prefer the same response."""


class KnownLabels(Section):
    """What `rlaif judge-eval --known-labels` writes and `pair.known_labels` names."""

    judges: tuple[str, ...]
    """Hash of each judge with its way of labeling, in the order of the panel."""
    measured_on: str
    """Names and hashes of the labeled files."""
    labels: tuple[KnownLabel, ...]


class ErrorBound(Section):
    """The least label of a pair, and what it rests on."""

    max_error: float
    """Largest share of wrong pairs, as the recipe asks."""
    confidence: float
    """Probability that the bound holds, over the draw of the known labels."""
    least_label: float
    """Least P(chosen preferred) of a pair, in [0.5, 1]."""
    tested: int
    """Known comparisons that thresholds were tested on, one per context."""
    kept: int
    """Of `tested`: at or above `least_label`."""
    errors: int
    """Of `kept`: wrong."""
    coverage: float
    """`kept` as a share of `tested`."""
    upper_bound: float
    """Upper bound of the error at or above `least_label`, at `confidence`."""

    def describe(self) -> str:
        """Two sentences for cards and reports."""
        return (
            f"With a confidence of {100 * self.confidence:.0f} %, at most "
            f"{100 * self.max_error:.1f} % of the pairs are wrong, if the known comparisons "
            f"are like those of the run: labels below {self.least_label:.4g} are left "
            f"out. Of {self.tested} known comparisons of other contexts, {self.kept} "
            f"({100 * self.coverage:.0f} %) lie at or above it, "
            f"{self.errors} of them wrong (exact binomial bound {100 * self.upper_bound:.1f} %)."
        )


def upper_bound(errors: int, n: int, confidence: float) -> float:
    """Clopper and Pearson's one-sided upper bound of a share, in [0, 1].

    The share at which `errors` or fewer of `n` have a probability of 1 - confidence. Without an
    error it is 1 - (1 - confidence)^(1/n): 0.0739 for n = 30 at 0.9.
    """
    from scipy.special import betaincinv  # the quantile of a beta distribution

    return 1.0 if errors >= n else float(betaincinv(errors + 1, n - errors, confidence))


def needed(max_error: float, confidence: float) -> int:
    """Least number of comparisons, all of them right, that bounds the error at `max_error`."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - max_error))


def bound_error(labels: Sequence[KnownLabel], pair: PairConfig) -> ErrorBound:
    """The lowest threshold that passes.

    Args:
        labels: known comparisons, in any order.
        pair: the recipe's section; its other conditions hold for the known comparisons too.

    Raises:
        ConfigError: no threshold passes; the message says why and how many labels are needed.
    """
    assert pair.max_error is not None
    one_per_context = {label.prompt_id: label for label in reversed(labels)}.values()
    usable = [label for label in one_per_context if _may_become_a_pair(label, pair)]
    order: list[float] = []
    tested: list[tuple[float, bool]] = []
    for label in usable:
        if uniform("threshold", label.prompt_id) < ORDER_SHARE:
            order.append(_confidence(label))
        else:
            tested.append((_confidence(label), label.label < 0.5))
    least = needed(pair.max_error, pair.error_confidence)
    if len(tested) < least:
        raise ConfigError(
            f"pair.max_error {pair.max_error:g} needs about {math.ceil(least / (1 - ORDER_SHARE))} "
            f"known labels of different contexts or more, but {pair.known_labels} has "
            f"{len(usable)} that could become pairs; label more comparisons, or allow a larger "
            "error"
        )
    passed: ErrorBound | None = None
    for threshold in _thresholds(order, FIRST * least / len(tested)):
        above = [is_wrong for confidence, is_wrong in tested if confidence >= threshold]
        errors = sum(above)
        bound = upper_bound(errors, len(above), pair.error_confidence)
        if bound > pair.max_error:
            if passed is None:
                raise ConfigError(
                    f"no label is sure enough for pair.max_error {pair.max_error:g}: of the "
                    f"{len(above)} surest known labels {errors} are wrong (bound {bound:.3f}); use "
                    "a better judge, more known labels, or allow a larger error"
                )
            break
        passed = ErrorBound(
            least_label=threshold,
            max_error=pair.max_error,
            confidence=pair.error_confidence,
            tested=len(tested),
            kept=len(above),
            errors=errors,
            coverage=len(above) / len(tested),
            upper_bound=bound,
        )
    assert passed is not None
    return passed


def load_known_labels(path: Path) -> KnownLabels:
    """Read a file of known labels. Raises ConfigError when it is missing or damaged."""
    try:
        return KnownLabels.model_validate(json.loads(plain_bytes(path)))
    except FileNotFoundError:
        raise ConfigError(f"known labels {path} do not exist; {MAKE_IT}") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"known labels {path} cannot be read: {reason}; {MAKE_IT}") from None


def error_bound_of(run: Path, pair: PairConfig) -> ErrorBound | None:
    """The bound of a run, from the copy of the known labels in its folder; None without one."""
    path = run / "labeling" / "known_labels.json"
    if pair.max_error is None or not path.is_file():
        return None
    return bound_error(load_known_labels(path).labels, pair)


def check_known_labels(known: KnownLabels, judge: str, number: int) -> None:
    """Raises ConfigError unless judge `number` of the panel made them, in this way of labeling."""
    if judge not in known.judges[number : number + 1]:
        raise ConfigError(
            "the known labels of pair.known_labels were made by another judge, template, "
            f"calibration or constitution than this recipe's; {MAKE_IT}"
        )


def _confidence(label: KnownLabel) -> float:
    return max(label.label, 1.0 - label.label)


def _may_become_a_pair(label: KnownLabel, pair: PairConfig) -> bool:
    sure = _confidence(label)
    return (
        not is_tie(sure, pair.tie_width)
        and margin(sure) >= pair.min_margin
        and (label.orders_agree or not pair.require_orders_agree)
    )


def _thresholds(order: Sequence[float], first_share: float) -> list[float]:
    """Thresholds from the highest down; the last keeps every label.

    Args:
        order: confidences of the comparisons that choose the thresholds.
        first_share: share of comparisons at or above the first threshold: with fewer, no bound
            could be small enough.
    """
    ranked = sorted(order, reverse=True)
    shares = [first_share + STEP * n for n in range(math.ceil(1 / STEP))]
    chosen = [ranked[max(0, math.ceil(q * len(ranked)) - 1)] for q in shares if q < 1 and ranked]
    return [*dict.fromkeys(chosen), 0.5]
