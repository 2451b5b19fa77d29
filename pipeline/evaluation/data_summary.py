"""What the data of a run are made of: rows per stage, pairs and why others were left out, and what
each principle did.

In:  manifests, and shards of preference/judge and preference/pair
Out: the entries `stages`, `data` and `principles` of metrics.json

Needs no model and no oracle, so it works for a run that was stopped halfway too.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evaluation.shard_columns import (
    RowDict,
    iter_shards,
    label_folder,
    stage_folders,
    verdict_folders,
)
from pipeline.soft_labels import is_tie, margin, orders_agree
from pipeline.store import ShardCounts
from pipeline.store.shards import stage_manifests

MARGIN_EDGES = tuple(0.5 * step for step in range(13))
"""Bins of 0.5 nats; the last one, from 6 nats (odds of 400 to 1), is open."""


@dataclass
class Labels:
    """Running counts of labels, of all or of one principle."""

    drawn: int = 0
    labeled: int = 0
    unparsed: int = 0
    ties: int = 0
    margins: float = 0.0
    ordered: int = 0
    """Labels that come from both orders of a comparison."""
    gaps: float = 0.0
    agreeing: int = 0
    always_a: int = 0
    always_b: int = 0
    kept: int = 0

    def add(self, row: RowDict, tie_width: float) -> None:
        """Count one judgment."""
        self.drawn += 1
        self.unparsed += row["status"] == "unparsed"
        label = row["soft_label"]
        if row["status"] != "ok" or label is None:
            return
        self.labeled += 1
        self.ties += is_tie(label, tie_width)
        self.margins += abs(margin(label))
        forward, swapped = row["prob_forward"], row["prob_swapped"]
        if forward is None or swapped is None:
            # Scores and follow-ups look at one response at a time: no order, no gap.
            return
        self.ordered += 1
        self.gaps += row["position_gap"]
        self.agreeing += orders_agree(forward, swapped)
        self.always_a += forward > 0.5 and swapped > 0.5
        self.always_b += forward < 0.5 and swapped < 0.5

    def summary(self) -> dict[str, Any]:
        """Counts and means; means are None without labels."""
        n = self.labeled
        totals = {"mean_margin": self.margins, "tie_share": self.ties}
        orders = {
            "position_consistency": self.agreeing,
            "mean_position_gap": self.gaps,
            "always_slot_a": self.always_a,
            "always_slot_b": self.always_b,
        }
        return {
            "drawn": self.drawn,
            "labeled": n,
            "unparsed": self.unparsed,
            "kept": self.kept,
            **{name: total / n if n else None for name, total in totals.items()},
            **{
                name: total / self.ordered if self.ordered else None
                for name, total in orders.items()
            },
        }


@dataclass
class Makeup:
    """Running counts over the preference shards."""

    everything: Labels = field(default_factory=Labels)
    by_principle: dict[str, Labels] = field(default_factory=dict)
    critiques: dict[str, int] = field(default_factory=dict)
    margins: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in MARGIN_EDGES])


def stage_counts(root: Path) -> dict[str, dict[str, Any]]:
    """Counts of each stage, added over its shards, with reasons and the model that was asked."""
    found = {}
    for folder in stage_folders(root):
        manifests = stage_manifests(root, folder)
        reasons: dict[str, int] = {}
        for manifest in manifests:
            for reason, count in manifest.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
        counts = sum((m.counts for m in manifests), ShardCounts())
        found[folder] = {
            "shards": len(manifests),
            **counts.as_dict(),
            "reasons": reasons,
            "engine": manifests[0].engine,
        }
    return found


def measure_data(
    root: Path, tie_width: float
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Entries `data` (None without judgments) and `principles` of metrics.json."""
    makeup = Makeup()
    _count_critiques(root, makeup)
    columns = (
        "status",
        "principle_id",
        "soft_label",
        "position_gap",
        "prob_forward",
        "prob_swapped",
    )
    for _, rows in iter_shards(root, label_folder(root), columns):
        for row in rows:
            makeup.everything.add(row, tie_width)
    for folder in verdict_folders(root):
        for _, rows in iter_shards(root, folder, columns):
            for row in rows:
                # A label from an attribute vector stands under all of its principles, one from
                # follow-ups under none.
                for name in filter(None, row["principle_id"].split("+")):
                    makeup.by_principle.setdefault(name, Labels()).add(row, tie_width)
    data = _count_pairs(root, makeup) if makeup.everything.drawn else None
    names = sorted({*makeup.by_principle, *makeup.critiques})
    principles = [
        {
            "id": name,
            "critiques": makeup.critiques.get(name, 0),
            **makeup.by_principle.get(name, Labels()).summary(),
        }
        for name in names
    ]
    return data, principles


def margin_bin(value: float) -> int:
    """Index of the bin that holds a margin >= 0."""
    return min(len(MARGIN_EDGES) - 1, math.floor(value / 0.5))


def _count_critiques(root: Path, makeup: Makeup) -> None:
    for folder in (root / "supervised").glob("critique-*"):
        for _, rows in iter_shards(root, f"supervised/{folder.name}", ("principle_id",)):
            for row in rows:
                name = row["principle_id"]
                makeup.critiques[name] = makeup.critiques.get(name, 0) + 1


def _count_pairs(root: Path, makeup: Makeup) -> dict[str, Any]:
    pairs = kept = 0
    reasons: dict[str, int] = {}
    columns = ("status", "reason", "principle_id", "margin")
    for _, rows in iter_shards(root, "preference/pair", columns):
        for row in rows:
            pairs += 1
            ok = row["status"] == "ok"
            kept += ok
            if ok:
                for name in filter(None, row["principle_id"].split("+")):
                    makeup.by_principle.setdefault(name, Labels()).kept += 1
                makeup.everything.kept += 1
            else:
                reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
            if row["margin"] is not None:
                makeup.margins[margin_bin(row["margin"])][0 if ok else 1] += 1
    return {
        "pairs": pairs,
        "kept": kept,
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "margins": [
            {"low": low, "kept": counts[0], "dropped": counts[1]}
            for low, counts in zip(MARGIN_EDGES, makeup.margins, strict=True)
        ],
        "labels": makeup.everything.summary(),
    }
