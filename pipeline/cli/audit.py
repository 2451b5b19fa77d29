"""The command `audit`: what a run's labels are worth, check by check and principle by principle."""

from collections.abc import Sequence

from rich.table import Column, Table

from pipeline.audits.findings import AuditFinding
from pipeline.audits.judge_audit import JudgeAudit
from pipeline.audits.label_figures import EVERYTHING, FIGURES
from pipeline.cli.tables import console, number_table
from pipeline.cli.terminal import print_json
from pipeline.run.audit_gate import audit_run
from pipeline.run.context import open_context
from pipeline.run.start import find_run

STYLES = {"failed": "bold red", "skipped": "dim", "passed": ""}


def print_audit(name: str, as_json: bool = False) -> bool:
    """Audit a run's labels and texts and print all tables; True when a check failed.

    Raises:
        StoreError: no such run, no labels yet, or a shard is damaged.
    """
    run = find_run(name)
    audit = audit_run(open_context(run))
    if as_json:
        print_json({"run": run.run_id, **audit.as_dict()})
        return bool(audit.failed)
    out = console()
    for judge in audit.judges:
        out.print(checks_table(f"{judge.folder}: {judge.judge}", judge.findings))
        out.print(figures_table(judge))
        for remedy in judge.remedies:
            out.print(f"way out: {remedy}", markup=False)
    if audit.collapse is not None:
        title = f"{audit.collapse.subject}: {audit.collapse.num_texts} texts"
        out.print(checks_table(title, audit.collapse.findings))
    for note in audit.notes:
        out.print(f"note: {note}", markup=False)
    failed = len(audit.failed)
    count = f"{failed} check{'s' * (failed != 1)}" if failed else "no check"
    out.print(f"{run.run_id}: {count} failed", markup=False)
    return bool(failed)


def checks_table(title: str, findings: Sequence[AuditFinding]) -> Table:
    """Checks of all rows, and those of one principle that failed."""
    numbers = (Column(name, justify="right") for name in ("found", "needed", "n"))
    table = Table("check", *numbers, "result", "what it is", title=title, title_justify="left")
    for finding in findings:
        if not finding.scope or finding.status == "failed":
            table.add_row(
                finding.title,
                finding.measured,
                finding.needed,
                f"{finding.n:,}",
                finding.status,
                "; ".join([finding.detail, *finding.examples]),
                style=STYLES[finding.status],
            )
    return table


def figures_table(judge: JudgeAudit) -> Table:
    """Every figure of every principle, with the number of rows behind it."""
    rows = [
        (
            "all" if scope == EVERYTHING else scope,
            *(
                f"{figure.share:.2f} ({figure.n:,})" if (figure := figures.get(name)) else "–"
                for name in FIGURES
            ),
        )
        for scope, figures in judge.figures.items()
    ]
    return number_table(("principle", *FIGURES), rows, title="value (n)")
