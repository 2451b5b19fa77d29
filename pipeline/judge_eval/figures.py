"""The figures of one judge: how often it is right, what it is pulled by, how far to believe it.

In:  verdicts (P(chosen) of both orders, whether it could be read)
Out: plain values for metrics.json; every share with its number of labels and a 95 % interval

Contexts are drawn anew for intervals, not rows: pairs of one context are alike. The headline share
has a cluster bootstrap, the many small ones Wilson's interval with the effective number of rows.

Does not: correct for looking at many principles or tags at once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.judge_eval.answers import Verdict, decided, readable
from pipeline.judge_eval.reliability import NUM_BINS, chance_error, equal_mass_bins, expected_error
from pipeline.stats import Estimate, cluster_bootstrap, clustered_share, log_loss

Value = Callable[[Verdict], float | None]
"""A value in [0, 1] of one verdict; None where the question does not arise."""


def judge_figures(verdicts: Sequence[Verdict], *, draws: int, seed: int) -> dict[str, Any]:
    """All figures of the labels of one judge, or of a pool of labels."""
    found = readable(verdicts)
    return {
        "rows": {"expected": len(verdicts), **_statuses(verdicts)},
        "unreadable": dict(Counter(v.reason for v in verdicts if v.label is None).most_common()),
        "accuracy": _bootstrapped(verdicts, lambda v: v.right, draws, seed),
        # Leaving out what could not be read would flatter a judge that answers the easy rows only.
        "accuracy_all": _bootstrapped(verdicts, lambda v: v.right or 0.0, draws, seed),
        "tie_share": _share(found, lambda v: float(v.right == 0.5)),
        "orders": _orders(found),
        "position": _position(found),
        "length": _length(found),
        "confidence": confidence_figures([v.label for v in found if v.label is not None], seed=seed)
        | {
            "brier": _bootstrapped(
                found, lambda v: None if v.label is None else (1 - v.label) ** 2, draws, seed
            )
        }
        if found
        else None,
        "raw_confidence": _raw(found, seed),
        "inexact_share": _share(found, lambda v: float(not v.exact)),
        "by_principle": _groups(verdicts, lambda v: [v.principle_id]),
        "by_tag": _groups(verdicts, lambda v: v.tags),
    }


def confidence_figures(labels: Sequence[float], *, seed: int) -> dict[str, Any]:
    """Brier score, log-loss, calibration error and reliability of labels P(chosen)."""
    confidences = [max(p, 1.0 - p) for p in labels]
    bins = equal_mass_bins(confidences, [decided(p) for p in labels])
    return {
        "n": len(labels),
        "mean": sum(confidences) / len(labels),
        "brier_score": sum((1 - p) ** 2 for p in labels) / len(labels),
        "log_loss": log_loss(labels, [1.0] * len(labels)),
        "ece": expected_error(bins),
        "ece_by_chance": chance_error(confidences, seed=seed),
        "num_bins": NUM_BINS,
        "bins": [each.as_dict() for each in bins],
    }


def baselines(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Accuracy of rules that read nothing; a judge below the best of them is of no use.

    `always_a` answers A in one order, the drawn one; in both orders it scores exactly 0.5.
    """
    return {
        "always_a": _share(verdicts, lambda v: float(v.chosen_first)),
        "longer": _share(verdicts, lambda v: (1 + v.longer) / 2),
        "shorter": _share(verdicts, lambda v: (1 - v.longer) / 2),
        "coin": {"share": 0.5, "low": 0.5, "high": 0.5, "n": len(verdicts)},
    }


def _statuses(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    counts: dict[str, Any] = {name: 0 for name in ("ok", "unparsed", "failed", "dropped")}
    for verdict in verdicts:
        counts[verdict.status] += 1
    total = max(1, len(verdicts))
    return counts | {
        f"{name}_share": counts[name] / total for name in ("unparsed", "failed", "dropped")
    }


def _orders(found: Sequence[Verdict]) -> dict[str, Any]:
    """Accuracy of single calls: by order, and by the slot of the better response."""
    return {
        "forward": _share(found, lambda v: _decided(v.forward)),
        "swapped": _share(found, lambda v: _decided(v.swapped)),
        "chosen_in_a": _share(found, lambda v: _decided(v.by_slot and v.by_slot[0])),
        "chosen_in_b": _share(found, lambda v: _decided(v.by_slot and v.by_slot[1])),
    }


def _position(found: Sequence[Verdict]) -> dict[str, Any]:
    """What the place of a response decides.

    A flip (the orders prefer different responses) is a same-slot win seen from the other side
    (Lee et al. 2023, position bias): one share, split by the slot that wins.
    """
    return {
        "flip_rate": _share(found, lambda v: None if v.by_slot is None else float(bool(_slot(v)))),
        "same_slot_a": _share(
            found, lambda v: None if v.by_slot is None else float(_slot(v) == "A")
        ),
        "same_slot_b": _share(
            found, lambda v: None if v.by_slot is None else float(_slot(v) == "B")
        ),
        "slot_a_share": _share(found, _slot_a_wins),
        "undecided_share": _share(found, _undecided),
    }


def _slot(verdict: Verdict) -> str:
    """The slot that wins in both orders; empty when none does."""
    assert verdict.by_slot is not None
    # P(chosen in A) above 0.5 is a win of A; P(chosen in B) above 0.5 is a win of B.
    when_a, when_b = (decided(p) for p in verdict.by_slot)
    if when_a == 1 and when_b == 0:
        return "A"
    return "B" if when_a == 0 and when_b == 1 else ""


def _slot_a_wins(verdict: Verdict) -> float | None:
    """Mean over the two calls of a win of slot A."""
    if verdict.by_slot is None:
        return None
    when_a, when_b = (decided(p) for p in verdict.by_slot)
    return (when_a + 1 - when_b) / 2


def _undecided(verdict: Verdict) -> float | None:
    """Share of the two calls that were exactly 0.5."""
    if verdict.by_slot is None:
        return None
    return sum(decided(p) == 0.5 for p in verdict.by_slot) / 2


def _length(found: Sequence[Verdict]) -> dict[str, Any]:
    """Pull of length, in words, on pairs whose lengths differ."""
    return {
        "longer_wins": _share(found, _longer_wins),
        "chosen_longer": _share(found, lambda v: float(v.longer > 0) if v.longer else None),
        "accuracy_longer_right": _share(found, lambda v: v.right if v.longer > 0 else None),
        "accuracy_shorter_right": _share(found, lambda v: v.right if v.longer < 0 else None),
    }


def _longer_wins(verdict: Verdict) -> float | None:
    if verdict.right is None or verdict.longer == 0:
        return None
    return verdict.right if verdict.longer > 0 else 1.0 - verdict.right


def _raw(found: Sequence[Verdict], seed: int) -> dict[str, Any] | None:
    """The same confidences before calibration; None where none was applied."""
    if all(v.label == v.raw_label for v in found):
        return None
    return confidence_figures([v.raw_label for v in found if v.raw_label is not None], seed=seed)


def _groups(
    verdicts: Sequence[Verdict], names: Callable[[Verdict], Iterable[str]]
) -> list[dict[str, Any]]:
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        for name in dict.fromkeys(names(verdict)):
            groups.setdefault(name, []).append(verdict)
    return [
        {
            "id": name,
            "expected": len(group),
            "unreadable": len(group) - len(readable(group)),
            "accuracy": _share(group, lambda v: v.right),
        }
        for name, group in sorted(groups.items())
    ]


def _decided(probability: float | None) -> float | None:
    return None if probability is None else decided(probability)


def _tallied(verdicts: Sequence[Verdict], value: Value) -> tuple[list[float], list[int]]:
    """Sums and counts of the values by context."""
    tallies: dict[str, list[float]] = {}
    for verdict in verdicts:
        number = value(verdict)
        if number is not None:
            tallies.setdefault(verdict.prompt_id, []).append(number)
    return [sum(t) for t in tallies.values()], [len(t) for t in tallies.values()]


def _share(verdicts: Sequence[Verdict], value: Value) -> dict[str, float] | None:
    return _as_dict(clustered_share(*_tallied(verdicts, value)))


def _bootstrapped(
    verdicts: Sequence[Verdict], value: Value, draws: int, seed: int
) -> dict[str, float] | None:
    return _as_dict(cluster_bootstrap(*_tallied(verdicts, value), draws=draws, seed=seed))


def _as_dict(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else estimate.as_dict()
