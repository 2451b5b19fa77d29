"""An Impact in words and tables, for impact.md and the terminal.

In:  Impact
Out: headline sentences, tables, the Markdown page
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from pipeline.impact.effects import Impact
from pipeline.report.page import render
from pipeline.report.tables import Row, Table

MOVES_SHOWN = 20
CHANGES = {
    "relabeled": "relabeled",
    "became ties": "became_ties",
    "ties no more": "stopped_being_ties",
}
"""Columns of labels that changed, and their fields of `Effects`."""
EFFECTS = {
    "before": "before",
    "after": "after",
    "asked again": "asked_again",
    **CHANGES,
    "pairs gained": "pairs_gained",
    "pairs lost": "pairs_lost",
    "mean change": "mean_change",
}
"""Columns of the table of principles, and their fields of `Effects`."""
MOVES = {"labels": "after", **CHANGES, "mean change": "mean_change"}
COSTS = {
    "rows made": "rows_made",
    "rows": "rows",
    "calls": "calls",
    "of calls": "calls_full",
    "tokens": "tokens",
    "of tokens": "tokens_full",
}


def headline(impact: Impact) -> list[str]:
    """What a person wants to know first, one sentence a line."""
    total, paid = impact.total, impact.paid
    new_texts = (
        f", {total.new_texts:,} of them because the text of a revision changed"
        if total.new_texts
        else ""
    )
    lines = [
        f"{total.asked_again:,} of {total.after:,} labels were made again{new_texts}",
        f"{total.relabeled:,} labels changed sides, {total.became_ties:,} became a tie, "
        f"{total.stopped_being_ties:,} stopped being one",
        f"{total.pairs_gained:,} pairs gained, {total.pairs_lost:,} lost",
        f"paid {paid('calls'):,} of {paid('calls_full'):,} calls "
        f"({100 * impact.calls_share:.1f} %) and {paid('tokens'):,} of {paid('tokens_full'):,} "
        f"tokens ({100 * impact.cost_share:.1f} %)",
    ]
    if total.labels_gained or total.labels_lost:
        lines.append(f"{total.labels_gained:,} labels gained, {total.labels_lost:,} lost")
    return lines


def tables(impact: Impact) -> list[Table]:
    """Principles, moves and costs; the first columns are names."""
    moves = impact.moves[:MOVES_SHOWN]
    largest = (
        f" (the {MOVES_SHOWN} largest of {len(impact.moves)})"
        if len(impact.moves) > MOVES_SHOWN
        else ""
    )
    principles: list[Row] = [
        {"principle": p.id, "change": p.change, **_numbers(p, EFFECTS)} for p in impact.principles
    ]
    principles.append({"principle": "all", "change": "", **_numbers(impact.total, EFFECTS)})
    return [
        Table(principles, "principles: comparisons that each decided"),
        Table(
            [
                {"before": m.before_id or "none", "now": m.after_id, **_numbers(m, MOVES)}
                for m in moves
            ],
            f"labels made again: who decided before, who decides now{largest}",
        ),
        Table(
            [
                {
                    "stage": c.folder,
                    **_numbers(c, COSTS),
                    "share": f"{100 * c.tokens / max(1, c.tokens_full):.1f} %",
                }
                for c in impact.costs
            ],
            "cost: paid now, and of all rows of the stage",
        ),
    ]


def markdown(impact: Impact) -> str:
    """The page impact.md."""
    values = {"impact": impact, "headline": headline(impact), "tables": tables(impact)}
    return render("impact.md.jinja", folder=Path(__file__).parent, **values)


def _numbers(values: BaseModel, columns: Mapping[str, str]) -> dict[str, str]:
    numbers = values.model_dump()
    return {
        column: f"{numbers[name]:.3f}" if isinstance(numbers[name], float) else f"{numbers[name]:,}"
        for column, name in columns.items()
    }
