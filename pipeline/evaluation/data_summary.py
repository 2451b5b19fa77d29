"""Summary of a run's data: rows per stage, pairs, reasons of dropped ones, labels by principle.

In:  manifests, and shards of preference/judge and preference/pair
Out: the entries `stages`, `data` and `principles` of metrics.json

Needs neither model nor oracle, so it works for a run that stopped halfway too.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config.labeling import PairConfig
from pipeline.evaluation.results import (
    DataMetrics,
    LabelMetrics,
    MarginBin,
    PrincipleMetrics,
    StageMetrics,
)
from pipeline.evaluation.shard_columns import RowDict, iter_shards, label_folder
from pipeline.labeling.conflicts import count_overruled
from pipeline.labeling.contrast import measure_contrast
from pipeline.labeling.known_labels import error_bound_of
from pipeline.prompting.neutralize import CUT
from pipeline.soft_labels import is_tie, margin, orders_agree
from pipeline.store import Manifest, ShardCounts
from pipeline.store.shards import iter_manifests
from pipeline.store.stage_names import (
    CRITIQUE,
    JUDGE,
    PAIRS,
    PREFERENCE,
    SCORE,
    SUPERVISED,
    stage_folders,
)

MARGIN_EDGES = tuple(0.5 * step for step in range(13))
"""Bins of 0.5 nats; the last one, from 6 nats (odds of 400 to 1), is open."""
LABEL_COLUMNS = (
    "status",
    "principle_id",
    "prob_first",
    "position_gap",
    "prob_forward",
    "prob_swapped",
)


@dataclass
class LabelCounts:
    """Running sums over labels: all of them, or those under one principle."""

    drawn: int = 0
    unparsed: int = 0
    kept: int = 0
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """One value a label, by the field of `LabelMetrics` that is their mean."""

    def add(self, row: RowDict, tie_width: float) -> None:
        """Count one judgment."""
        self.drawn += 1
        self.unparsed += row["status"] == "unparsed"
        label = row["prob_first"]
        if row["status"] != "ok" or label is None:
            return
        self.values["mean_margin"].append(abs(margin(label)))
        self.values["tie_share"].append(is_tie(label, tie_width))
        forward, swapped = row["prob_forward"], row["prob_swapped"]
        if forward is None or swapped is None:
            # Scores and follow-ups look at one response at a time: no order, no gap.
            return
        self.values["position_consistency"].append(orders_agree(forward, swapped))
        self.values["mean_position_gap"].append(row["position_gap"])
        self.values["always_slot_a"].append(forward > 0.5 and swapped > 0.5)
        self.values["always_slot_b"].append(forward < 0.5 and swapped < 0.5)

    def metrics(self) -> LabelMetrics:
        """Counts and means; means are None without labels."""
        return LabelMetrics(
            drawn=self.drawn,
            labeled=len(self.values["mean_margin"]),
            unparsed=self.unparsed,
            kept=self.kept,
            **{name: sum(v) / len(v) for name, v in self.values.items() if v},
        )


def stage_metrics(root: Path) -> dict[str, StageMetrics]:
    """Counts of each stage, added over its shards, with reasons and the model that was asked."""
    stages = {}
    for folder in stage_folders(root):
        engine, counts = None, ShardCounts()
        reasons, makers = Counter[str](), Counter[str]()
        for manifest in iter_manifests(root, folder):
            engine = manifest.engine if engine is None else engine
            counts += manifest.counts
            reasons.update(manifest.reasons)
            makers[_maker(manifest)] += 1
        stages[folder] = StageMetrics.model_validate(
            {
                **counts.as_dict(),
                "shards": makers.total(),
                "reasons": reasons,
                "engine": engine,
                "makers": makers if len(makers) > 1 else {},
            }
        )
    return stages


def _maker(manifest: Manifest) -> str:
    parts = (manifest.engine.get("fingerprint", "")[:12], manifest.made_by.get("gpu", ""))
    return " on ".join(filter(None, parts))


def measure_data(
    root: Path, pair: PairConfig, *, conflicts: bool = False
) -> tuple[DataMetrics | None, list[PrincipleMetrics]]:
    """Entries `data` (None without judgments) and `principles` of metrics.json.

    Args:
        conflicts: whether the constitution has principles in conflict.
    """
    everything, by_principle = LabelCounts(), defaultdict[str, LabelCounts](LabelCounts)
    for _, rows in iter_shards(root, label_folder(root), LABEL_COLUMNS):
        for row in rows:
            everything.add(row, pair.tie_width)
    for folder in stage_folders(root, PREFERENCE, JUDGE):
        for _, rows in iter_shards(root, folder, LABEL_COLUMNS):
            for row in rows:
                for name in _principles(row):
                    by_principle[name].add(row, pair.tie_width)
    critiques: Counter[str] = Counter()
    for folder in stage_folders(root, SUPERVISED, CRITIQUE):
        for _, rows in iter_shards(root, folder, ("principle_id",)):
            critiques.update(row["principle_id"] for row in rows)
    data = _measure_pairs(root, everything, by_principle) if everything.drawn else None
    if data is not None:
        data = data.model_copy(
            update={
                "error_bound": error_bound_of(root, pair),
                "contrast": measure_contrast(root, pair.tie_width),
                "overruled": count_overruled(root) if conflicts else None,
            }
        )
    principles = [
        PrincipleMetrics(id=name, critiques=critiques[name], **dict(by_principle[name].metrics()))
        for name in sorted({*by_principle, *critiques})
    ]
    return data, principles


def margin_bin(value: float) -> int:
    """Index of the bin that holds a margin >= 0."""
    return min(len(MARGIN_EDGES) - 1, math.floor(value / 0.5))


def by_count(counts: Counter[str]) -> dict[str, int]:
    """Counts, the largest first; equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _measure_pairs(
    root: Path, everything: LabelCounts, by_principle: dict[str, LabelCounts]
) -> DataMetrics:
    """Counts of pairs; those kept are counted for all labels and for their principles too."""
    reasons: Counter[str] = Counter()
    kept_bins: Counter[int] = Counter()
    dropped_bins: Counter[int] = Counter()
    pairs = 0
    columns = ("status", "reason", "principle_id", "margin")
    for _, rows in iter_shards(root, PAIRS, columns):
        pairs += len(rows)
        for row in rows:
            kept = row["status"] == "ok"
            if kept:
                for counts in (everything, *(by_principle[name] for name in _principles(row))):
                    counts.kept += 1
            else:
                reasons[row["reason"]] += 1
            if row["margin"] is not None:
                (kept_bins if kept else dropped_bins)[margin_bin(row["margin"])] += 1
    return DataMetrics(
        pairs=pairs,
        kept=everything.kept,
        reasons=by_count(reasons),
        margins=[
            MarginBin(low=low, kept=kept_bins[index], dropped=dropped_bins[index])
            for index, low in enumerate(MARGIN_EDGES)
        ],
        labels=everything.metrics(),
        shortened=sum(
            row["reason"].startswith(CUT)
            for stage in (JUDGE, SCORE)
            for folder in stage_folders(root, PREFERENCE, stage)
            for _, rows in iter_shards(root, folder, ("reason",))
            for row in rows
        ),
    )


def _principles(row: RowDict) -> list[str]:
    """Ids of the label's principles: all for an attribute vector, none for follow-ups."""
    return [name for name in row["principle_id"].split("+") if name]
