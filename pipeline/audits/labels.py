"""What labels are worth, in figures: of one judge, over all rows and by principle. Pure.

In:  judgment rows of one prompt after the other, canary rows of one shard after the other
Out: an Estimate per figure, and a finding per threshold

    unparsed    verdicts that could not be read
    tie         labels within the tie width of 0.5
    flip        the two orders clearly prefer different responses
    slot_share  calls in which slot A clearly wins; undecided ones count half
    longer      the response with more words wins; ties count half
    known, injected, swapped, identical, padded: see `stages/canary.py`

Shares have Wilson intervals for clustered rows, means a bootstrap; the unit is the prompt, or the
shipped canary, which comes again in other shards.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.audit_config import LabelAuditConfig
from pipeline.audits.findings import AuditFinding, Bounds, judged_by_interval, skipped
from pipeline.stats import Estimate, cluster_bootstrap, clustered_share, outcome
from pipeline.verdicts import clamp, is_tie

RowDict = Mapping[str, Any]
LABEL_FIGURES = ("unparsed", "flip", "slot_share", "tie", "longer")
CANARY_FIGURES = ("known", "injected", "swapped", "identical", "padded")
FIGURES = (*CANARY_FIGURES, *LABEL_FIGURES)
MEANS = ("swapped", "identical")
"""Figures that are means of distances; the others are shares."""
UNDECIDED = 0.1
"""An order this close to 0.5 prefers no slot: of two equally good responses most models like one slot
a little better, which both orders cancel and which is no fault of a label."""
EVERYTHING = ""
"""The scope of all rows."""
MEANINGS = {
    "known": "known answers found",
    "injected": "worse responses that win by an instruction to the judge",
    "swapped": "mean change of a label when first and second are exchanged",
    "identical": "slot bias: mean distance from 0.5 of one order on two equal texts",
    "padded": "responses that win by a sentence that says nothing",
    "unparsed": "verdicts that could not be read",
    "flip": "the two orders clearly prefer different responses",
    "slot_share": "calls in which slot A clearly wins, undecided ones half",
    "tie": "labels that say neither",
    "longer": "comparisons that the longer response wins",
}
"""Figure by figure, for people."""


@dataclass
class Tally:
    """One figure: its sum and its number of observations per cluster."""

    sums: "array[float]" = field(default_factory=lambda: array("d"))
    counts: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, values: Sequence[float]) -> None:
        """Append one cluster."""
        self.sums.append(sum(values))
        self.counts.append(len(values))


@dataclass
class LabelFigures:
    """Running figures of one judge."""

    tie_width: float
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    """By scope and figure."""
    canaries: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)
    """The same for canaries, values by cluster."""

    def add_prompt(self, rows: Sequence[RowDict], words: Mapping[str, int]) -> None:
        """All judgments of one prompt.

        Args:
            words: number of words by id of the compared responses.
        """
        seen: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            for name, value in observe_label(row, words, self.tie_width).items():
                for scope in (EVERYTHING, row["principle_id"]):
                    seen.setdefault((scope, name), []).append(float(value))
        for key, values in seen.items():
            self.tallies.setdefault(key, Tally()).add(values)

    def add_canaries(self, rows: Sequence[RowDict]) -> None:
        """All canaries of one shard."""
        found = {(row["canary_id"], row["principle_id"]): value for row in rows
                 if row["canary"] == "known"
                 and (value := observe_canary(row, self.tie_width)) is not None}
        for row in rows:
            value = observe_canary(row, self.tie_width)
            # What was judged wrong without an instruction does not show what the instruction does.
            clean = found.get((row["canary_id"], row["principle_id"]), 1.0)
            if value is None or (row["canary"] == "injected" and clean < 1.0):
                continue
            cluster = row["prompt_id"] or row["canary_id"]
            for scope in (EVERYTHING, row["principle_id"]):
                groups = self.canaries.setdefault((scope, row["canary"]), {})
                groups.setdefault(cluster, []).append(value)

    @property
    def principles(self) -> list[str]:
        """Ids of the principles that were drawn, sorted."""
        return sorted({scope for scope, _ in (*self.tallies, *self.canaries)} - {EVERYTHING})

    def estimates(self, scope: str, *, draws: int, seed: int) -> dict[str, Estimate]:
        """The figures of a scope that have at least one observation."""
        found = {}
        for name in FIGURES:
            tally = self._tally(scope, name)
            if name in MEANS:
                estimate = cluster_bootstrap(tally.sums, tally.counts, draws=draws, seed=seed)
            else:
                estimate = clustered_share(tally.sums, tally.counts)
            if estimate is not None:
                found[name] = estimate
        return found

    def _tally(self, scope: str, name: str) -> Tally:
        if name not in CANARY_FIGURES:
            return self.tallies.get((scope, name), Tally())
        tally = Tally()
        for values in self.canaries.get((scope, name), {}).values():
            tally.add(values)
        return tally


def observe_label(row: RowDict, words: Mapping[str, int], tie_width: float) -> dict[str, float]:
    """The figures of one judgment; one that does not apply is left out."""
    if row["status"] not in ("ok", "unparsed"):
        return {}
    seen: dict[str, float] = {"unparsed": row["status"] == "unparsed"}
    label = row["soft_label"]
    if row["status"] != "ok" or label is None:
        return seen
    seen["tie"] = is_tie(label, tie_width)
    first, second = words.get(row["first_id"]), words.get(row["second_id"])
    if first is not None and second is not None and first != second:
        won = outcome(label, tie_width)
        seen["longer"] = won if first > second else 1.0 - won
    if row["prob_forward"] is None or row["prob_swapped"] is None:
        # Scores and follow-ups look at one response at a time: there are no slots.
        return seen
    width = max(tie_width, UNDECIDED)
    slot_a = [outcome(row[name], width) for name in ("prob_forward", "prob_swapped")]
    seen["slot_share"] = sum(slot_a) / 2
    # The same slot both times, whichever it is, means different responses.
    seen["flip"] = slot_a[0] == slot_a[1] != 0.5
    return seen


def observe_canary(row: RowDict, tie_width: float) -> float | None:
    """The figure of one canary; None when it has no label."""
    label, expected = row["soft_label"], row["expected"]
    if row["status"] != "ok" or label is None:
        return None
    match row["canary"]:
        case "swapped":
            return abs(label - expected)
        case "identical":
            bounds = (row["clamp_low"], row["clamp_high"])
            slots = [row["prob_forward"], row["prob_swapped"]]
            if bounds[0] is not None:
                # What the judge is let say is what reaches a label.
                slots = [clamp(value, *bounds) for value in slots]
            return sum(abs(value - 0.5) for value in slots) / 2
        case "padded":
            return float(outcome(label, tie_width) == 0.0)
    right = outcome(label, tie_width)
    right = right if expected == 1.0 else 1.0 - right
    return float(right == 0.0) if row["canary"] == "injected" else right


def thresholds(config: LabelAuditConfig) -> dict[str, Bounds]:
    """Bounds by figure; checks that are off are left out."""
    bounds: dict[str, Bounds] = {
        "known": (config.min_known, None), "injected": (None, config.max_injected),
        "swapped": (None, config.max_swapped), "identical": (None, config.max_identical),
        "padded": (None, config.max_padded), "unparsed": (None, config.max_unparsed),
        "flip": (None, config.max_flip), "slot_share": config.slot_share or (None, None),
        "longer": (None, config.max_longer),
    }
    return {name: pair for name, pair in bounds.items() if pair != (None, None)}


def check_labels(
    estimates: Mapping[str, Estimate], config: LabelAuditConfig, scope: str = EVERYTHING
) -> list[AuditFinding]:
    """One finding per threshold."""
    findings = []
    for name, bounds in thresholds(config).items():
        estimate = estimates.get(name)
        if estimate is None or estimate.n < config.min_rows:
            n = estimate.n if estimate else 0
            why = f"{n} rows, and at least {config.min_rows} are needed"
            findings.append(skipped(name, bounds, n, why, scope=scope))
        else:
            findings.append(judged_by_interval(
                name, estimate, bounds, scope=scope, detail=MEANINGS[name]))
    return findings
