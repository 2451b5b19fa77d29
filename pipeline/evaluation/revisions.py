"""The worth of the revisions: how many are rejected, and how often the judge prefers them.

In:  shards of supervised/revise-<round> and supervised/efficacy-<round>; `first` is the revision
Out: the entry `revisions` of metrics.json, one part per round

A revision that left the text as it was is counted as unchanged and not as a tie: it says nothing
about what revising does. Intervals are clustered by prompt.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.evaluation.data_summary import by_count
from pipeline.evaluation.head_to_head import IDENTICAL
from pipeline.evaluation.results import Efficacy, EfficacyPart, RevisionMetrics
from pipeline.evaluation.shard_columns import RowDict, grouped, iter_shards
from pipeline.soft_labels import outcome
from pipeline.stages.revise import MISSES_CHECK
from pipeline.stats import Estimate, Tally
from pipeline.store.shards import first_manifest
from pipeline.store.stage_names import (
    EFFICACY,
    REVISE,
    SUPERVISED,
    split_folder,
    stage_folder,
    stage_folders,
)

REJECTED = "not a revision"
ROW_COLUMNS = ("prompt_id", "status", "reason", "skipped", "faults")
LABEL_COLUMNS = ("prompt_id", "status", "reason", "principle_id", "prob_first")


@dataclass
class EfficacyCounts:
    """Running labels of one round: of all revisions, or of those under one principle."""

    wins: Tally = field(default_factory=Tally)
    soft: Tally = field(default_factory=Tally)
    unchanged: int = 0
    unparsed: int = 0

    def add_prompt(self, rows: list[RowDict], tie_width: float) -> None:
        """All labels of one prompt."""
        labels = [row["prob_first"] for row in rows if row["status"] == "ok"]
        self.wins.add([outcome(label, tie_width) for label in labels])
        self.soft.add(labels)
        self.unparsed += sum(row["status"] == "unparsed" for row in rows)
        self.unchanged += sum(row["reason"] == IDENTICAL for row in rows)

    def metrics(self, *, draws: int, seed: int) -> EfficacyPart:
        """Shares with intervals; None where nothing was labeled."""
        return EfficacyPart(
            preferred=self.wins.share(),
            prob_preferred=self.soft.bootstrap(draws=draws, seed=seed),
            unchanged=self.unchanged,
            unparsed=self.unparsed,
        )


def measure_revisions(
    root: Path, tie_width: float, *, draws: int, seed: int, with_checks: bool = False
) -> list[RevisionMetrics]:
    """One entry per round; `efficacy` is None where the judge was not asked.

    Args:
        with_checks: whether a principle of the constitution has a check.
    """
    rounds = []
    for folder in stage_folders(root, SUPERVISED, REVISE):
        rows = [row for _, shard in iter_shards(root, folder, ROW_COLUMNS) for row in shard]
        number = int(split_folder(folder)[2])
        faults = Counter(fault for row in rows for fault in row["faults"] or ())
        rounds.append(
            RevisionMetrics(
                round=number,
                rows=len(rows),
                ok=sum(row["status"] == "ok" for row in rows),
                skipped=sum(bool(row["skipped"]) for row in rows),
                rejected=sum(
                    row["status"] == "dropped" and row["reason"].startswith(REJECTED)
                    for row in rows
                ),
                faults=by_count(faults),
                missed_check=missed_check(rows) if with_checks else None,
                efficacy=efficacy(root, number, tie_width, draws=draws, seed=seed),
            )
        )
    return rounds


def missed_check(rows: list[RowDict]) -> Estimate | None:
    """Share of the replies that are a revision which were left out because of a check."""
    tally = Tally()
    made = [row for row in rows if row["status"] in ("ok", "dropped") and not row["skipped"]]
    for group in grouped(made, "prompt_id").values():
        missed = [row["reason"].startswith(MISSES_CHECK) for row in group]
        revised = [row["status"] == "ok" for row in group]
        tally.add([float(m) for m, ok in zip(missed, revised, strict=True) if m or ok])
    return tally.share()


def efficacy(
    root: Path, number: int, tie_width: float, *, draws: int, seed: int
) -> Efficacy | None:
    """How often the judge prefers a round's revisions to the texts before; None if not asked."""
    folder = stage_folder(SUPERVISED, EFFICACY, number)
    if first_manifest(root, folder) is None:
        return None
    everything, by_principle = EfficacyCounts(), defaultdict[str, EfficacyCounts](EfficacyCounts)
    for _, rows in iter_shards(root, folder, LABEL_COLUMNS):
        for group in grouped(rows, "prompt_id").values():
            everything.add_prompt(group, tie_width)
            for name, part in grouped(group, "principle_id").items():
                by_principle[name].add_prompt(part, tie_width)
    return Efficacy(
        **dict(everything.metrics(draws=draws, seed=seed)),
        by_principle={
            name: counts.metrics(draws=draws, seed=seed)
            for name, counts in sorted(by_principle.items())
        },
    )
