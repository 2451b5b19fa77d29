"""The figures of one judge: how often it is right, what biases it, how far its confidence holds.

In:  verdicts (P(chosen) of both orders, whether it could be read)
Out: JudgeFigures for metrics.json; every share with its number of labels and a 95 % interval

Intervals resample contexts, not rows: pairs of one context are alike. The headline share has a
cluster bootstrap, the many small ones Wilson's interval with the effective number of rows.

Reliability bins confidences max(p, 1 - p) and not P(first): they do not depend on which response
was called first, so the drawn order adds no noise. With few rows the calibration error is well
above 0 even for a perfectly calibrated judge; `chance_error` is that floor.

Does not: correct for looking at many principles or tags at once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.judge_eval.items import Verdict, readable
from pipeline.records import STATUSES
from pipeline.soft_labels import outcome
from pipeline.stats import Estimate, Tally, generator, log_loss, wilson

NUM_BINS = 15
CHANCE_DRAWS = 400
Value = Callable[[Verdict], float | None]
"""A value in [0, 1] of one verdict; None where the question does not arise."""


@dataclass(frozen=True)
class RowCounts:
    """Rows by status, and their shares of all rows in [0, 1]."""

    expected: int
    ok: int
    unparsed: int
    failed: int
    dropped: int
    unparsed_share: float
    failed_share: float
    dropped_share: float


@dataclass(frozen=True)
class OrderFigures:
    """Accuracy of single calls; a call of exactly 0.5 counts half."""

    forward: Estimate | None
    swapped: Estimate | None
    chosen_in_a: Estimate | None
    """Calls with the better response in slot A."""
    chosen_in_b: Estimate | None


@dataclass(frozen=True)
class PositionFigures:
    """What the place of a response decides.

    Two orders that prefer different responses are two wins of one slot (position bias, Lee et al.
    2023): one share, split by the slot that wins.
    """

    order_disagreement: Estimate | None
    """Pairs whose two orders prefer different responses."""
    same_slot_a: Estimate | None
    """Pairs of which slot A wins both orders."""
    same_slot_b: Estimate | None
    slot_a_share: Estimate | None
    """Calls that slot A wins, undecided ones half."""
    undecided_share: Estimate | None
    """Calls of exactly 0.5."""


@dataclass(frozen=True)
class LengthFigures:
    """Influence of length, in words, on pairs whose lengths differ."""

    longer_wins: Estimate | None
    """Labels that prefer the longer response."""
    chosen_longer: Estimate | None
    """Pairs whose better response is the longer one."""
    accuracy_longer_right: Estimate | None
    """Accuracy where the better response is the longer one."""
    accuracy_shorter_right: Estimate | None


@dataclass(frozen=True, slots=True)
class Bin:
    """Labels of about the same confidence."""

    low: float
    """Least confidence, in [0.5, 1]."""
    high: float
    n: int
    confidence: float
    """Mean confidence."""
    accuracy: float
    """Share of right labels, an even one half."""
    accuracy_low: float
    """Wilson's 95 % interval of the accuracy; takes rows for independent."""
    accuracy_high: float


@dataclass(frozen=True)
class Confidence:
    """How far the labels P(chosen) can be taken at their word."""

    n: int
    mean: float
    """Mean of max(p, 1 - p), in [0.5, 1]."""
    brier_score: float
    """Mean of (1 - P(chosen))^2, in [0, 1]."""
    log_loss: float
    """Mean of -ln P(chosen), in nats."""
    ece: float
    """Expected calibration error, in [0, 1]."""
    ece_by_chance: float
    """Mean error of a perfectly calibrated judge with these confidences."""
    num_bins: int
    """Greatest number of bins."""
    bins: tuple[Bin, ...]
    brier: Estimate | None = None
    """The Brier score with its interval."""


@dataclass(frozen=True)
class GroupFigures:
    """The rows of one principle or tag."""

    id: str
    expected: int
    """All rows."""
    unreadable: int
    """Rows without a label."""
    accuracy: Estimate | None


@dataclass(frozen=True)
class JudgeFigures:
    """All figures of the labels of one judge, or of a pool of labels."""

    rows: RowCounts
    unreadable: dict[str, int]
    """Rows without a label by reason, the most frequent first."""
    accuracy: Estimate | None
    """Right labels of the readable ones; 0.5 counts half."""
    accuracy_all: Estimate | None
    """Right labels of all rows: leaving out what could not be read would flatter a judge that
    answers the easy rows only."""
    tie_share: Estimate | None
    """Labels of exactly 0.5."""
    orders: OrderFigures
    position: PositionFigures
    length: LengthFigures
    confidence: Confidence | None
    raw_confidence: Confidence | None
    """Before calibration; None where none was applied."""
    inexact_share: Estimate | None
    """Labels for which an option was absent and its bound was used."""
    by_principle: tuple[GroupFigures, ...]
    by_tag: tuple[GroupFigures, ...]


@dataclass(frozen=True)
class Baselines:
    """Accuracy of rules that read nothing; a judge below the best of them is useless."""

    always_a: Estimate | None
    """Answers A in the drawn order; over both orders it scores exactly 0.5."""
    longer: Estimate | None
    shorter: Estimate | None
    coin: Estimate


def judge_figures(verdicts: Sequence[Verdict], *, draws: int, seed: int) -> JudgeFigures:
    """All figures of one judge, or of a pool of labels.

    Args:
        draws: bootstrap samples.
    """

    def bootstrap(rows: Sequence[Verdict], value: Value) -> Estimate | None:
        return _tally(rows, value).bootstrap(draws=draws, seed=seed)

    read = readable(verdicts)
    statuses = Counter(v.status for v in verdicts)
    total = max(1, len(verdicts))
    counts: dict[str, Any] = {name: statuses[name] for name in STATUSES}
    counts |= {f"{name}_share": counts[name] / total for name in STATUSES if name != "ok"}
    brier = bootstrap(read, lambda v: None if v.label is None else (1 - v.label) ** 2)
    labels = [v.label for v in read if v.label is not None]
    raw_labels = [v.raw_label for v in read if v.raw_label is not None]
    return JudgeFigures(
        rows=RowCounts(expected=len(verdicts), **counts),
        unreadable=dict(Counter(v.reason for v in verdicts if v.label is None).most_common()),
        accuracy=bootstrap(verdicts, lambda v: v.right),
        accuracy_all=bootstrap(verdicts, lambda v: v.right or 0.0),
        tie_share=_share(read, lambda v: float(v.right == 0.5)),
        orders=OrderFigures(
            forward=_share(read, lambda v: _decided(v.forward)),
            swapped=_share(read, lambda v: _decided(v.swapped)),
            chosen_in_a=_share(read, lambda v: _decided(v.by_slot and v.by_slot[0])),
            chosen_in_b=_share(read, lambda v: _decided(v.by_slot and v.by_slot[1])),
        ),
        position=_position(read),
        length=LengthFigures(
            longer_wins=_share(read, _longer_wins),
            chosen_longer=_share(read, lambda v: float(v.longer > 0) if v.longer else None),
            accuracy_longer_right=_share(read, lambda v: v.right if v.longer > 0 else None),
            accuracy_shorter_right=_share(read, lambda v: v.right if v.longer < 0 else None),
        ),
        confidence=confidence_figures(labels, seed=seed, brier=brier) if labels else None,
        raw_confidence=confidence_figures(raw_labels, seed=seed) if labels != raw_labels else None,
        inexact_share=_share(read, lambda v: float(not v.exact)),
        by_principle=_groups(verdicts, lambda v: filter(None, [v.principle_id])),
        by_tag=_groups(verdicts, lambda v: v.tags),
    )


def baselines(verdicts: Sequence[Verdict]) -> Baselines:
    """Accuracy of rules that read nothing, on the same pairs."""
    return Baselines(
        always_a=_share(verdicts, lambda v: float(v.chosen_first)),
        longer=_share(verdicts, lambda v: (1 + v.longer) / 2),
        shorter=_share(verdicts, lambda v: (1 - v.longer) / 2),
        coin=Estimate(0.5, 0.5, 0.5, len(verdicts)),
    )


def confidence_figures(
    labels: Sequence[float], *, seed: int, brier: Estimate | None = None
) -> Confidence:
    """Brier score, log-loss, calibration error and reliability of labels P(chosen)."""
    confidences = [max(p, 1.0 - p) for p in labels]
    bins = equal_mass_bins(confidences, [outcome(p) for p in labels])
    return Confidence(
        n=len(labels),
        mean=sum(confidences) / len(labels),
        brier_score=sum((1 - p) ** 2 for p in labels) / len(labels),
        log_loss=log_loss(labels, [1.0] * len(labels)),
        ece=expected_error(bins),
        ece_by_chance=chance_error(confidences, seed=seed),
        num_bins=NUM_BINS,
        bins=tuple(bins),
        brier=brier,
    )


def equal_mass_bins(
    confidences: Sequence[float], right: Sequence[float], num_bins: int = NUM_BINS
) -> list[Bin]:
    """At most `num_bins` bins with as nearly equal numbers of labels as ties allow.

    Equal confidences stay in one bin: which of them falls left of a cut would be chance.
    """
    c, r = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    return [
        Bin(
            float(c[part].min()),
            float(c[part].max()),
            len(part),
            float(c[part].mean()),
            float(r[part].mean()),
            *wilson(float(r[part].sum()), len(part)),
        )
        for part in _cuts(c, num_bins)
    ]


def expected_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error, in [0, 1]: mean |accuracy - confidence|, bins weighted by size
    (Naeini et al. 2015).
    """
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.accuracy - each.confidence) for each in bins) / total


def chance_error(confidences: Sequence[float], num_bins: int = NUM_BINS, *, seed: int) -> float:
    """Mean expected calibration error of a perfectly calibrated judge with these confidences."""
    c = np.asarray(confidences, dtype=float)
    right = generator(seed).random((CHANCE_DRAWS, len(c))) < c
    gaps = [np.abs(right[:, part].sum(axis=1) - c[part].sum()) for part in _cuts(c, num_bins)]
    return float(np.sum(gaps, axis=0).mean() / len(c))


def _cuts(values: NDArray[np.float64], num_bins: int) -> list[NDArray[np.int64]]:
    """Indices of each bin, from the smallest value; each cut moves past values that are equal."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    cuts = {
        int(np.searchsorted(ordered, ordered[at - 1] + 1e-12, side="right"))
        for at in (round(len(order) * k / num_bins) for k in range(1, num_bins))
        if at > 0
    }
    return [part for part in np.split(order, sorted(cuts)) if len(part)]


def _position(read: Sequence[Verdict]) -> PositionFigures:
    def by_slot(value: Callable[[float, float], float]) -> Estimate | None:
        """A share from the outcomes of the calls with the chosen response in A, and in B."""
        return _share(
            read, lambda v: None if v.by_slot is None else value(*map(outcome, v.by_slot))
        )

    # The outcome with the chosen response in A is a win of A, the one with it in B a loss of A.
    return PositionFigures(
        order_disagreement=by_slot(lambda in_a, in_b: float({in_a, in_b} == {0.0, 1.0})),
        same_slot_a=by_slot(lambda in_a, in_b: float((in_a, in_b) == (1.0, 0.0))),
        same_slot_b=by_slot(lambda in_a, in_b: float((in_a, in_b) == (0.0, 1.0))),
        slot_a_share=by_slot(lambda in_a, in_b: (in_a + 1 - in_b) / 2),
        undecided_share=by_slot(lambda in_a, in_b: ((in_a == 0.5) + (in_b == 0.5)) / 2),
    )


def _longer_wins(verdict: Verdict) -> float | None:
    if verdict.right is None or verdict.longer == 0:
        return None
    return verdict.right if verdict.longer > 0 else 1.0 - verdict.right


def _groups(
    verdicts: Sequence[Verdict], names: Callable[[Verdict], Iterable[str]]
) -> tuple[GroupFigures, ...]:
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        for name in dict.fromkeys(names(verdict)):
            groups.setdefault(name, []).append(verdict)
    return tuple(
        GroupFigures(
            name,
            expected=len(group),
            unreadable=len(group) - len(readable(group)),
            accuracy=_share(group, lambda v: v.right),
        )
        for name, group in sorted(groups.items())
    )


def _decided(probability: float | None) -> float | None:
    return None if probability is None else outcome(probability)


def _tally(verdicts: Iterable[Verdict], value: Value) -> Tally:
    """The values by context."""
    by_context: dict[str, list[float]] = {}
    for verdict in verdicts:
        if (number := value(verdict)) is not None:
            by_context.setdefault(verdict.prompt_id, []).append(number)
    tally = Tally()
    for values in by_context.values():
        tally.add(values)
    return tally


def _share(verdicts: Iterable[Verdict], value: Value) -> Estimate | None:
    return _tally(verdicts, value).share()
