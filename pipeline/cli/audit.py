"""The command `audit`: what a run's labels are worth, check by check and principle by principle."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from pipeline.audits.findings import AuditFinding
from pipeline.audits.judge_audit import JudgeAudit
from pipeline.audits.label_figures import EVERYTHING, FIGURES
from pipeline.run.audit_gate import audit_run
from pipeline.run.context import open_context
from pipeline.run.start import find_run

WIDTH = 160
STYLES = {"failed": "bold red", "skipped": "dim", "passed": ""}


def print_audit(name: str) -> bool:
    """Audit a run's labels and texts and print all tables; True when something failed.

    Raises:
        StoreError: no such run, no labels yet, or a shard is damaged.
    """
    run = find_run(name)
    audit = audit_run(open_context(run))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for judge in audit.judges:
        console.print(checks_table(f"{judge.folder}: {judge.judge}", judge.findings))
        console.print(figures_table(judge))
    if audit.collapse is not None:
        title = f"{audit.collapse.subject}: {audit.collapse.num_texts} texts"
        console.print(checks_table(title, audit.collapse.findings))
    for note in audit.notes:
        console.print(f"note: {note}", markup=False)
    failed = len(audit.failed)
    console.print(
        f"{run.run_id}: {failed} check{'s' * (failed != 1)} failed"
        if failed
        else f"{run.run_id}: no check failed",
        markup=False,
    )
    return bool(failed)


def checks_table(title: str, findings: Sequence[AuditFinding]) -> Table:
    """Checks of all rows, and those of one principle that failed."""
    table = Table(
        "check",
        Column("found", justify="right"),
        Column("needed", justify="right"),
        Column("n", justify="right"),
        "result",
        "what it is",
        title=title,
        title_justify="left",
    )
    for finding in findings:
        if not finding.scope or finding.status == "failed":
            table.add_row(
                finding.title,
                finding.found,
                finding.needed,
                f"{finding.n:,}",
                finding.status,
                "; ".join([finding.detail, *finding.examples]),
                style=STYLES[finding.status],
            )
    return table


def figures_table(judge: JudgeAudit) -> Table:
    """Every figure of every principle, with the number of rows behind it."""
    table = Table(
        "principle",
        *(Column(name, justify="right") for name in FIGURES),
        title="value (n)",
        title_justify="left",
    )
    for scope, figures in judge.figures.items():
        cells = (
            f"{found['share']:.2f} ({found['n']:,})" if (found := figures.get(name)) else "–"
            for name in FIGURES
        )
        table.add_row("all" if scope == EVERYTHING else scope, *cells)
    return table
