"""The audit as tables, for the page, the Markdown and the flow's page.

In:  preference/audit.json
Out: a verdict in one sentence, every check, figures by principle
"""

from pipeline.audits.findings import AuditFinding
from pipeline.audits.judge_audit import JudgeAudit
from pipeline.audits.label_figures import FIGURES
from pipeline.report.numbers import MISSING, count_of, joined, number, percent, percent_range
from pipeline.report.source import Audit
from pipeline.report.tables import Cell, Row, Table


def audit_findings(audit: Audit) -> list[tuple[str, AuditFinding]]:
    """Subject and finding of every check of all rows, and of each check of one principle that
    failed.
    """
    findings = [
        (judge.folder, finding)
        for judge in audit.judges
        for finding in judge.findings
        if not finding.scope or finding.status == "failed"
    ]
    if audit.collapse:
        findings += [(f"{audit.collapse.subject} texts", f) for f in audit.collapse.findings]
    return findings


def audit_failed(audit: Audit) -> bool:
    """Whether a check failed, so that nothing was exported."""
    return any(finding.status == "failed" for _, finding in audit_findings(audit))


def audit_verdict(audit: Audit) -> str:
    """One sentence; empty without an audit."""
    findings = audit_findings(audit)
    failed = [f"{f.title} of {subject}" for subject, f in findings if f.status == "failed"]
    if failed:
        return f"Failed: {joined(failed)}. Nothing was exported."
    skipped = sum(f.status == "skipped" for _, f in findings)
    if skipped:
        return f"No check failed; {count_of(skipped, 'check')} had too few rows to decide."
    return "Every check passed." if audit.judges or audit.collapse else ""


def ways_out(audit: Audit) -> list[str]:
    """What the failed checks of each judge point to, in the order in which to try it."""
    return [f"{judge.folder}: {remedy}" for judge in audit.judges for remedy in judge.remedies]


def check_table(audit: Audit) -> Table:
    """Every check with its bounds and its result."""
    styles = {"failed": "bad", "skipped": "zero"}
    rows: list[Row] = [
        {
            "check": Cell(finding.title, note="; ".join([finding.detail, *finding.examples])),
            "of": Cell(subject, style="code"),
            "value": number(finding.value, 3),
            "95 % interval": "{:.3f} to {:.3f}".format(*finding.interval)
            if finding.interval
            else MISSING,
            "needed": _needed(finding),
            "n": number(finding.n),
            "result": Cell(finding.status, style=styles.get(finding.status, "")),
        }
        for subject, finding in audit_findings(audit)
    ]
    return Table(rows)


def figure_tables(audit: Audit) -> list[Table]:
    """Per judge a table: one row of all labels, one per principle; shares with their rows. Another
    one where checks know the answer.
    """
    tables = [
        Table(
            [
                {"principle": scope or "all"}
                | {
                    kind.title: f"{figure.share:.2f} ({figure.n:,})"
                    if (figure := figures.get(name))
                    else MISSING
                    for name, kind in FIGURES.items()
                    if any(name in figures for figures in judge.figures.values())
                }
                for scope, figures in judge.figures.items()
            ],
            f"By principle: {judge.judge}, {judge.folder}; number of rows in brackets",
        )
        for judge in audit.judges
    ]
    return tables + [table for judge in audit.judges if (table := _against_checks(judge)).rows]


def _against_checks(judge: JudgeAudit) -> Table:
    """How often the judge decides as a check does, by principle."""
    return Table(
        [
            {
                "principle": scope or "all with a check",
                "judged as the check decides": percent(figure.share),
                "95 % interval": percent_range(figure.low, figure.high),
                "n": number(figure.n),
            }
            for scope, figures in judge.figures.items()
            if (figure := figures.get("checked"))
        ],
        f"Against checks, whose answer is known: {judge.judge}, {judge.folder}",
    )


def _needed(finding: AuditFinding) -> str:
    bounds = (("≥", finding.low), ("≤", finding.high))
    return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
