"""An Impact in words and tables: Markdown for impact.md, cells for the terminal.

In:  Impact
Out: headline sentences, tables as (head, rows) of text, the Markdown page
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.impact.effects import Effects, Impact

MOVES_SHOWN = 20
EFFECTS_HEAD = (
    "before",
    "after",
    "asked again",
    "relabeled",
    "became ties",
    "ties no more",
    "pairs gained",
    "pairs lost",
    "mean change",
)


class TextTable(NamedTuple):
    """A table of text."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def headline(impact: Impact) -> list[str]:
    """What a person wants to know first, one sentence a line."""
    total = impact.total
    lines = [
        f"{total.asked_again:,} of {total.after:,} labels were made again"
        + (
            f", {total.new_texts:,} of them because a revision is another text now"
            if total.new_texts
            else ""
        ),
        f"{total.relabeled:,} labels changed sides, {total.became_ties:,} became a tie, "
        f"{total.stopped_being_ties:,} stopped being one",
        f"{total.pairs_gained:,} pairs gained, {total.pairs_lost:,} lost",
        f"paid {_sum(impact, 'calls')} of {_sum(impact, 'calls_full')} calls "
        f"({impact.calls_share:.1%}) and {_sum(impact, 'tokens')} of "
        f"{_sum(impact, 'tokens_full')} tokens ({impact.cost_share:.1%})",
    ]
    if total.labels_gained or total.labels_lost:
        lines.append(f"{total.labels_gained:,} labels gained, {total.labels_lost:,} lost")
    return lines


def tables(impact: Impact) -> list[TextTable]:
    """Principles, moves and costs."""
    shown = impact.moves[:MOVES_SHOWN]
    left = len(impact.moves) - len(shown)
    return [
        TextTable(
            "principles: comparisons that each decided",
            ("principle", "change", *EFFECTS_HEAD),
            [(p.id, p.change, *_effects(p)) for p in impact.principles]
            + [("all", "", *_effects(impact.total))],
        ),
        TextTable(
            "labels made again: who decided before, who decides now"
            + (f" (the {MOVES_SHOWN} largest of {len(impact.moves)})" if left else ""),
            ("before", "now", "labels", "relabeled", "became ties", "ties no more", "mean change"),
            [
                (
                    m.before_id or "none",
                    m.after_id,
                    f"{m.after:,}",
                    f"{m.relabeled:,}",
                    f"{m.became_ties:,}",
                    f"{m.stopped_being_ties:,}",
                    f"{m.mean_change:.3f}",
                )
                for m in shown
            ],
        ),
        TextTable(
            "cost: paid now, and of all rows of the stage",
            ("stage", "rows made", "rows", "calls", "of", "tokens", "of", "share"),
            [
                (
                    c.folder,
                    f"{c.rows_made:,}",
                    f"{c.rows:,}",
                    f"{c.calls:,}",
                    f"{c.calls_full:,}",
                    f"{c.tokens:,}",
                    f"{c.tokens_full:,}",
                    f"{c.tokens / c.tokens_full if c.tokens_full else 0:.1%}",
                )
                for c in impact.costs
            ],
        ),
    ]


def markdown(impact: Impact) -> str:
    """The page impact.md."""
    parts = [
        f"# Impact of a changed constitution\n\nRun `{impact.before_run}` under "
        f"{impact.constitution_before}, run `{impact.run_id}` under {impact.constitution_after}.\n",
        "\n".join(f"- {line}" for line in headline(impact)) + "\n",
        f"```\n{impact.diff}\n```\n",
    ]
    for table in tables(impact):
        parts.append(f"## {table.title[0].upper()}{table.title[1:]}\n\n{_table(table)}")
    parts.append("A comparison counts for each principle that decided it, before or after.\n")
    parts += [f"- {note}\n" for note in impact.notes]
    return "\n".join(parts)


def _effects(effects: Effects) -> tuple[str, ...]:
    counts = (
        effects.before,
        effects.after,
        effects.asked_again,
        effects.relabeled,
        effects.became_ties,
        effects.stopped_being_ties,
        effects.pairs_gained,
        effects.pairs_lost,
    )
    return (*(f"{count:,}" for count in counts), f"{effects.mean_change:.3f}")


def _sum(impact: Impact, name: str) -> str:
    return f"{sum(getattr(cost, name) for cost in impact.costs):,}"


def _table(table: TextTable) -> str:
    lines: list[Sequence[str]] = [table.head, ("---",) * len(table.head), *table.rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )
