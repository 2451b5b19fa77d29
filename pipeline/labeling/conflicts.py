"""Principles in conflict: which of one judge's verdicts on a comparison decide its label?

In:  JudgmentRows of one comparison: those of the drawn principles, then those of the principles
     that may overrule them (`Constitution.consulted`)
Out: the rows that decide, and a note for each drawn principle that is overruled

A principle is overruled when one that is in conflict with it and has a higher priority prefers the
other response, and is not overruled itself. The label of the overruling principle then takes its
place. A principle that finds a tie overrules none, and has nothing to be overruled. When the
verdict of a higher principle cannot be read, it might have decided otherwise, so the drawn one is
not used either.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.labeling import PreferenceConfig
from pipeline.constitution import Constitution
from pipeline.records import JudgmentRow
from pipeline.soft_labels import outcome
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import POOLED

OVERRULED = "overruled: "
"""Beginning of the reason of a label that another principle decided than the drawn one."""


@dataclass(frozen=True)
class Resolved:
    """The outcome of the conflicts of one comparison, for one judge."""

    deciding: tuple[JudgmentRow, ...]
    """One row for each drawn principle, each once; not all of them need to be readable."""
    notes: tuple[str, ...]
    """`overruled: short by complete`, by the ids of the principles."""


@dataclass(frozen=True)
class Conflicts:
    """Who overrules whom, and when two labels differ."""

    overrulers: Mapping[str, Sequence[str]]
    """`Constitution.overrulers`."""
    num_drawn: int
    """Rows of one comparison and judge whose principles were drawn; they come first."""
    tie_width: float
    """Labels this close to 0.5 prefer neither response."""

    def resolve(self, rows: Sequence[JudgmentRow]) -> Resolved:
        """Which rows of one comparison and judge decide."""
        by_id = {row.principle_id: row for row in rows}

        def decider(row: JudgmentRow) -> JudgmentRow:
            if row.status != "ok" or row.prob_first is None:
                return row
            mine = outcome(row.prob_first, self.tie_width)
            for name in self.overrulers.get(row.principle_id, ()):
                if (above := by_id.get(name)) is None:
                    continue
                holder = decider(above)
                if holder.status != "ok" or holder.prob_first is None:
                    return holder
                if holder is above and {mine, outcome(holder.prob_first, self.tie_width)} == {0, 1}:
                    return above
            return row

        drawn = rows[: self.num_drawn]
        decided = [(row, decider(row)) for row in drawn]
        return Resolved(
            tuple({other.row_id: other for _, other in decided}.values()),
            tuple(
                f"{OVERRULED}{row.principle_id} by {other.principle_id}"
                for row, other in decided
                if other is not row and other.status == "ok"
            ),
        )


def conflicts_of(constitution: Constitution, config: PreferenceConfig) -> Conflicts | None:
    """How the judges' labels are resolved; None for a constitution without conflicts."""
    if not constitution.overrulers:
        return None
    return Conflicts(constitution.overrulers, config.judge.num_principles, config.pair.tie_width)


def count_overruled(run: Path) -> dict[str, int]:
    """Conflicts that decided a label, by `short by complete`, the most frequent first. A label
    that several drawn principles or judges make may have several.

    Args:
        run: folder of the run.

    Raises:
        StoreError: a shard is damaged.
    """
    notes = Counter(
        note.removeprefix(OVERRULED)
        for row in stage_rows(run, POOLED)
        if row.status == "ok"
        for note in row.reason.split("; ")
        if note.startswith(OVERRULED)
    )
    return dict(sorted(notes.items(), key=lambda item: (-item[1], item[0])))


def describe_overruled(counts: Mapping[str, int]) -> str:
    """A sentence for cards and reports."""
    if not counts:
        return "No label was decided by a conflict of principles."
    listed = ", ".join(f"{pair} {number:,}" for pair, number in counts.items())
    return (
        "Labels in which a conflicting principle of higher priority overruled the drawn one: "
        f"{listed}."
    )
