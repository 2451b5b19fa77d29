"""Pool stage: the labels of several principles and several judges become one.

In:  JudgmentRows of all judges
Out: JudgmentRow with method `pooled`; its parents are the verdicts behind it

Probabilities are averaged, never log-odds or votes: a sure judge counts for what it says (principle
ensembling: Bai et al. 2022, section 4.1; panels: Verga et al. 2024, from memory). A comparison
with fewer readable verdicts than half stays without a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from pipeline.ids import row_id, text_hash
from pipeline.records import JudgmentRow
from pipeline.stages.base import Inputs, Item
from pipeline.store.stage_names import POOLED


@dataclass(frozen=True)
class PoolStage:
    """Averages verdicts. No model call."""

    judgments: tuple[str, ...]
    """Folders of the judges' rows."""
    run_id: str
    folder: str = POOLED
    engine: None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The judges' rows."""
        return self.judgments

    def settings(self) -> dict[str, Any]:
        """Empty: the mean has no settings."""
        return {}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per comparison, in the order of the first judge."""
        groups: dict[tuple[str, str, str], list[JudgmentRow]] = {}
        for folder in self.judgments:
            for row in inputs[folder]:
                groups.setdefault((row.comparison, row.first_id, row.second_id), []).append(row)
        return [Item(pool(rows, self.run_id)) for rows in groups.values()]


def pool(rows: Sequence[JudgmentRow], run_id: str) -> JudgmentRow:
    """One row for all verdicts on one comparison."""
    first = rows[0]
    ids = [row.row_id for row in rows]
    principles = list(dict.fromkeys(row.principle_id for row in rows))
    judges = list(dict.fromkeys(row.model_fingerprint for row in rows))
    pooled = JudgmentRow(
        row_id=row_id("pooled judgment", ids),
        parent_ids=tuple(ids),
        run_id=run_id,
        # A verdict that was made anew makes a new label.
        input_hash=text_hash(*(f"{r.status} {r.prob_first!r} {r.input_hash}" for r in rows)),
        prompt_id=first.prompt_id,
        comparison=first.comparison,
        method="pooled",
        model_fingerprint="+".join(judges),
        template_hash=first.template_hash,
        first_id=first.first_id,
        second_id=first.second_id,
        principle_id="+".join(principles),
        principle_hash="+".join(dict.fromkeys(row.principle_hash for row in rows)),
        num_verdicts=0,
    )
    read = [row for row in rows if row.status == "ok" and row.prob_first is not None]
    if not read or 2 * len(read) < len(rows):
        worst = next(row for row in rows if row.status != "ok")
        return replace(pooled, status=worst.status, reason=worst.reason)
    return replace(
        pooled,
        num_verdicts=len(read),
        prob_first=fmean(row.prob_first for row in read if row.prob_first is not None),
        prob_forward=_mean([row.prob_forward for row in read]),
        prob_swapped=_mean([row.prob_swapped for row in read]),
        position_gap=_mean([row.position_gap for row in read]),
        exact=all(row.exact for row in read),
        **_parts(read),
    )


def _parts(rows: Sequence[JudgmentRow]) -> dict[str, Any]:
    """The mean difference of each part, where all labels come from scores of the same parts."""
    if not rows[0].part_differences or len({row.parts for row in rows}) > 1:
        return {}
    columns = zip(*(row.part_differences for row in rows), strict=True)
    return {"parts": rows[0].parts, "part_differences": tuple(fmean(column) for column in columns)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
