"""Pool stage: the labels of several principles and several judges become one.

First, for each judge, principles that are overruled lose their vote (`conflicts.py`); the row's
reason names them and the ones that decide instead.

In:  JudgmentRows of all judges
Out: JudgmentRow with method `pooled`; its parents are the verdicts behind it

Probabilities are averaged, never log-odds or votes, so that a confident judge weighs what it says
(principle ensembling: Bai et al. 2022, section 4.1; panels: Verga et al. 2024, from memory). A
comparison gets no label when fewer than half of its verdicts are readable.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from pipeline.ids import row_id, text_hash
from pipeline.labeling.conflicts import Conflicts
from pipeline.records import JudgmentRow
from pipeline.stages.base import Inputs, Item
from pipeline.store.stage_names import POOLED


@dataclass(frozen=True)
class PoolStage:
    """Averages the labels of each comparison. No model call."""

    judgments: tuple[str, ...]
    """Folders of the judges' rows."""
    run_id: str
    folder: str = POOLED
    conflicts: Conflicts | None = None
    """Who overrules whom; None for a constitution without conflicts."""
    engine: None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The judges' rows."""
        return self.judgments

    def settings(self) -> dict[str, Any]:
        """Who overrules whom; empty without conflicts, as the mean has no settings."""
        return asdict(self.conflicts) if self.conflicts else {}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per comparison, in the order of the first judge."""
        groups: dict[tuple[str, str, str], list[list[JudgmentRow]]] = {}
        for number, folder in enumerate(self.judgments):
            for row in inputs[folder]:
                key = (row.comparison, row.first_id, row.second_id)
                groups.setdefault(key, [[] for _ in self.judgments])[number].append(row)
        return [Item(self._pooled(judges)) for judges in groups.values()]

    def _pooled(self, judges: Sequence[Sequence[JudgmentRow]]) -> JudgmentRow:
        """One row for the verdicts of all judges on one comparison."""
        rows = [row for verdicts in judges for row in verdicts]
        if self.conflicts is None:
            return pool(rows, self.run_id)
        resolved = [self.conflicts.resolve(verdicts) for verdicts in judges]
        deciding = list({row.row_id: row for each in resolved for row in each.deciding}.values())
        notes = dict.fromkeys(note for each in resolved for note in each.notes)
        pooled = pool(deciding, self.run_id)
        ids = [row.row_id for row in rows]
        return replace(
            pooled,
            row_id=row_id("pooled judgment", ids, [row.row_id for row in deciding]),
            parent_ids=tuple(ids),
            input_hash=_input_hash(rows),
            reason=pooled.reason or "; ".join(notes),
        )


def pool(rows: Sequence[JudgmentRow], run_id: str) -> JudgmentRow:
    """One row for all verdicts that count on one comparison."""
    first = rows[0]
    ids = [row.row_id for row in rows]
    principles = list(dict.fromkeys(row.principle_id for row in rows))
    judges = filter(None, dict.fromkeys(row.model_fingerprint for row in rows))
    pooled = JudgmentRow(
        row_id=row_id("pooled judgment", ids),
        parent_ids=tuple(ids),
        run_id=run_id,
        input_hash=_input_hash(rows),
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
    readable = [row for row in rows if row.status == "ok" and row.prob_first is not None]
    if not readable or 2 * len(readable) < len(rows):
        problem = next(row for row in rows if row.status != "ok")
        return replace(pooled, status=problem.status, reason=problem.reason)
    return replace(
        pooled,
        num_verdicts=len(readable),
        prob_first=_mean([row.prob_first for row in readable]),
        prob_forward=_mean([row.prob_forward for row in readable]),
        prob_swapped=_mean([row.prob_swapped for row in readable]),
        position_gap=_mean([row.position_gap for row in readable]),
        exact=all(row.exact for row in readable),
        **_parts(readable),
    )


def _input_hash(rows: Sequence[JudgmentRow]) -> str:
    # The verdicts are inputs: a new verdict makes a new label.
    return text_hash(*(f"{r.status} {r.prob_first!r} {r.input_hash}" for r in rows))


def _parts(rows: Sequence[JudgmentRow]) -> dict[str, Any]:
    """The mean difference of each part, when all labels come from scores with equal parts."""
    if not rows[0].part_differences or len({row.parts for row in rows}) > 1:
        return {}
    columns = zip(*(row.part_differences for row in rows), strict=True)
    return {"parts": rows[0].parts, "part_differences": tuple(fmean(column) for column in columns)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
