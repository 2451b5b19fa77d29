"""The report of a run: report.html, report.md, and short forms of both."""

from pathlib import Path
from typing import Any

from pipeline.report.headline import headline_numbers as _headline_numbers
from pipeline.report.page import (
    render_audit,
    render_markdown,
    render_page,
    render_plot,
    render_summary,
)
from pipeline.report.pairs import MAX_PAIRS, sample_pairs
from pipeline.report.source import read_audit, read_run
from pipeline.report.tables import principles_in_order
from pipeline.store import RunDir
from pipeline.store.files import write_text
from pipeline.store.inventory import update_inventory

__all__ = [
    "audit_markdown",
    "headline_numbers",
    "key_plot",
    "principle_table",
    "summary_markdown",
    "write_report",
]


def write_report(run: RunDir, *, max_pairs: int = MAX_PAIRS) -> Path:
    """Write report.html and report.md of a run, finished or stopped; returns the page's path.

    Reads files and calls no model. Parts that the run does not have are left out.

    Raises:
        StoreError: not a run folder, or a shard that its manifest names is damaged.
    """
    data = read_run(run)
    seed = data.config.seed if data.config else 0
    summary = run.root / "report.md"
    write_text(summary, render_markdown(data))
    write_text(run.report, render_page(data, sample_pairs(run, seed=seed, limit=max_pairs)))
    update_inventory(run.root, summary, run.report)
    return run.report


def summary_markdown(run: RunDir) -> str:
    """A few lines of Markdown: headline, figures, where the report is."""
    return render_summary(read_run(run))


def key_plot(run: RunDir) -> tuple[str, str] | None:
    """The plot that says most of a run: title and `data:` address; None without figures."""
    return render_plot(read_run(run))


def audit_markdown(run: RunDir) -> str:
    """The audit of labels and texts as Markdown; empty where there was none."""
    return render_audit(read_audit(run))


def principle_table(run: RunDir) -> list[dict[str, Any]]:
    """One row per principle with plain values, for a table of an orchestrator."""
    names = (
        "id",
        "critiques",
        "drawn",
        "labeled",
        "kept",
        "mean_margin",
        "tie_share",
        "mean_position_gap",
        "position_consistency",
    )
    rows = [
        {**entry.model_dump(include=set(names)), "win_rate": win_rate}
        for entry, win_rate in principles_in_order(read_run(run))
    ]
    return [
        {
            name: round(v, 4) if isinstance(v := row[name], float) else v
            for name in (*names, "win_rate")
        }
        for row in rows
    ]


def headline_numbers(run: RunDir) -> list[tuple[str, str]]:
    """Name and value of the main figures, for the terminal at the end of a run."""
    return _headline_numbers(read_run(run))
