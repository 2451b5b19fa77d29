"""Which policy the judge prefers on held-out prompts.

In:  shards of evaluation/judge-<policy>-vs-<other>/; `first` is the policy's response
Out: win rates with intervals clustered by prompt

A win is 1, a tie 0.5: a label within the tie width, or two identical responses, which the judge is
not asked about. What it could not read is counted and left out. The mean of the soft labels is
given as well: it needs no tie width and shows how sure the judge was.
"""

import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evaluation.policy_measures import Tally, as_dict
from pipeline.evaluation.shard_columns import RowDict, iter_shards
from pipeline.soft_labels import orders_agree, outcome
from pipeline.stats import cluster_bootstrap

IDENTICAL = "identical responses"
COLUMNS = (
    "prompt_id",
    "status",
    "reason",
    "principle_id",
    "prob_forward",
    "prob_swapped",
    "soft_label",
    "position_gap",
)
_FOLDER = re.compile(r"judge-(?P<policy>.+)-vs-(?P<against>.+)")


@dataclass
class Match:
    """Running counts of one policy against another."""

    wins: Tally = field(default_factory=Tally)
    soft: Tally = field(default_factory=Tally)
    gaps: "array[float]" = field(default_factory=lambda: array("d"))
    ties: int = 0
    identical: int = 0
    unparsed: int = 0
    left_out: int = 0
    """Failed rows, and those whose responses failed."""
    agreeing: int = 0
    by_principle: dict[str, list[float]] = field(default_factory=dict)

    def add_prompt(self, rows: list[RowDict], tie_width: float) -> None:
        """All comparisons of one prompt."""
        wins: list[float] = []
        soft: list[float] = []
        for row in rows:
            label = row["soft_label"]
            if row["status"] == "ok" and label is not None:
                result = outcome(label, tie_width)
                self._judged(row, result)
            elif row["status"] == "dropped" and row["reason"] == IDENTICAL:
                result = label = 0.5
                self.identical += 1
            else:
                self.unparsed += row["status"] == "unparsed"
                self.left_out += row["status"] != "unparsed"
                continue
            self.ties += result == 0.5
            wins.append(result)
            soft.append(label)
        self.wins.add(wins)
        self.soft.add(soft)

    def _judged(self, row: RowDict, result: float) -> None:
        forward, swapped = row["prob_forward"], row["prob_swapped"]
        # A label that comes from scores has no orders, hence nothing to be consistent about.
        if forward is not None and swapped is not None:
            self.gaps.append(row["position_gap"])
            self.agreeing += orders_agree(forward, swapped)
        entry = self.by_principle.setdefault(row["principle_id"], [0.0, 0])
        entry[0] += result
        entry[1] += 1

    def summary(self, draws: int, seed: int) -> dict[str, Any]:
        """The entry of metrics.json."""
        rate = cluster_bootstrap(self.wins.sums, self.wins.counts, draws=draws, seed=seed)
        soft = cluster_bootstrap(self.soft.sums, self.soft.counts, draws=draws, seed=seed)
        judged = len(self.gaps)
        return {
            "win_rate": rate.share if rate else None,
            "low": rate.low if rate else None,
            "high": rate.high if rate else None,
            "num_comparisons": rate.n if rate else 0,
            "num_prompts": sum(count > 0 for count in self.wins.counts),
            "tie_share": self.ties / rate.n if rate else None,
            "identical": self.identical,
            "unparsed": self.unparsed,
            "left_out": self.left_out,
            "soft_label": as_dict(soft),
            "position_consistency": self.agreeing / judged if judged else None,
            "mean_position_gap": sum(self.gaps) / judged if judged else None,
            "by_principle": {
                name: {"win_rate": total / n, "n": n}
                for name, (total, n) in sorted(self.by_principle.items())
            },
        }


def win_rates(root: Path, *, tie_width: float, draws: int, seed: int) -> list[dict[str, Any]]:
    """Entries of `win_rates`, the comparisons with the initial policy first."""
    found = []
    for folder in sorted((root / "evaluation").glob("judge-*-vs-*")):
        names = _FOLDER.fullmatch(folder.name)
        if names is None:
            continue
        match = Match()
        for _, rows in iter_shards(root, f"evaluation/{folder.name}", COLUMNS):
            groups: dict[str, list[RowDict]] = {}
            for row in rows:
                groups.setdefault(row["prompt_id"], []).append(row)
            for group in groups.values():
                match.add_prompt(group, tie_width)
        found.append({**names.groupdict(), **match.summary(draws, seed)})
    order = {"initial": 0, "sl_cai": 1, "tuned": 2}
    return sorted(found, key=lambda e: (order.get(e["against"], 3), -order.get(e["policy"], 3)))
