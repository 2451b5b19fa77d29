"""What the revisions are worth: how many are none, and how often the judge prefers them.

In:  shards of supervised/revise-<round> and supervised/efficacy-<round>; `first` is the revision
Out: the entry `revisions` of metrics.json, one part per round

A revision that left the text as it was is counted as unchanged and not as a tie: it says nothing
about what revising does. Intervals are clustered by prompt.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evaluation.policy_measures import Tally, as_dict
from pipeline.evaluation.shard_columns import RowDict, iter_shards
from pipeline.soft_labels import outcome
from pipeline.stats import cluster_bootstrap, clustered_share

REJECTED = "not a revision"
IDENTICAL = "identical responses"
ROW_COLUMNS = ("status", "reason", "skipped", "faults")
LABEL_COLUMNS = ("prompt_id", "status", "reason", "principle_id", "soft_label")


@dataclass
class Efficacy:
    """Running labels of one round: of all revisions, or of those under one principle."""

    wins: Tally = field(default_factory=Tally)
    soft: Tally = field(default_factory=Tally)
    unchanged: int = 0
    unparsed: int = 0

    def add_prompt(self, rows: list[RowDict], tie_width: float) -> None:
        """All labels of one prompt."""
        labels = [row["soft_label"] for row in rows if row["status"] == "ok"]
        self.wins.add([outcome(label, tie_width) for label in labels])
        self.soft.add(labels)
        self.unparsed += sum(row["status"] == "unparsed" for row in rows)
        self.unchanged += sum(row["reason"] == IDENTICAL for row in rows)

    def summary(self, draws: int, seed: int) -> dict[str, Any]:
        """Shares with intervals; None where nothing was labeled."""
        return {
            "preferred": as_dict(clustered_share(self.wins.sums, self.wins.counts)),
            "soft_label": as_dict(
                cluster_bootstrap(self.soft.sums, self.soft.counts, draws=draws, seed=seed)
            ),
            "unchanged": self.unchanged,
            "unparsed": self.unparsed,
        }


def measure_revisions(
    root: Path, tie_width: float, *, draws: int, seed: int
) -> list[dict[str, Any]]:
    """One entry per round; `efficacy` is None where the judge was not asked."""
    rounds = _numbers(root, "revise")
    asked = _numbers(root, "efficacy")
    return [
        {
            "round": number,
            **count_revisions(root, number),
            "efficacy": efficacy(root, number, tie_width, draws=draws, seed=seed)
            if number in asked
            else None,
        }
        for number in rounds
    ]


def count_revisions(root: Path, number: int) -> dict[str, Any]:
    """Rows of a round: kept as they were, rejected, and every fault that was seen.

    A row may have several faults, and a fault that the recipe does not reject leaves it ok.
    """
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for _, rows in iter_shards(root, f"supervised/revise-{number}", ROW_COLUMNS):
        for row in rows:
            counts["rows"] += 1
            counts["ok"] += row["status"] == "ok"
            counts["skipped"] += bool(row["skipped"])
            counts["rejected"] += row["status"] == "dropped" and row["reason"].startswith(REJECTED)
            faults.update(row["faults"] or ())
    return {
        **{name: counts[name] for name in ("rows", "ok", "skipped", "rejected")},
        "faults": dict(sorted(faults.items(), key=lambda item: (-item[1], item[0]))),
    }


def efficacy(root: Path, number: int, tie_width: float, *, draws: int, seed: int) -> dict[str, Any]:
    """How often the judge prefers a round's revisions to the texts before, in all and by principle."""
    everything, by_principle = Efficacy(), dict[str, Efficacy]()
    for _, rows in iter_shards(root, f"supervised/efficacy-{number}", LABEL_COLUMNS):
        for group in _grouped(rows, "prompt_id").values():
            everything.add_prompt(group, tie_width)
            for name, part in _grouped(group, "principle_id").items():
                by_principle.setdefault(name, Efficacy()).add_prompt(part, tie_width)
    return {
        **everything.summary(draws, seed),
        "by_principle": {
            name: found.summary(draws, seed) for name, found in sorted(by_principle.items())
        },
    }


def _grouped(rows: list[RowDict], column: str) -> dict[str, list[RowDict]]:
    groups: dict[str, list[RowDict]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def _numbers(root: Path, kind: str) -> list[int]:
    names = (path.name.removeprefix(f"{kind}-") for path in (root / "supervised").glob(f"{kind}-*"))
    return sorted(int(name) for name in names if name.isdecimal())
