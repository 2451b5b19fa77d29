"""The audit and the revisions as plain rows, for the page, the Markdown and the flow's page.

In:  preference/audit.json and the entry `revisions` of metrics.json
Out: rows with texts; nothing where the recipe did not ask for it
"""

from collections.abc import Mapping
from typing import Any

from pipeline.audits.label_figures import FIGURES
from pipeline.report.numbers import MISSING, count_of, joined, number, percent, percent_range
from pipeline.report.source import ReportData

FIGURE_TITLES = tuple(kind.title for kind in FIGURES.values())


def audit_verdict(audit: Mapping[str, Any]) -> str:
    """One sentence; empty without an audit."""
    if not audit:
        return ""
    checks = audit_checks(audit)
    failed = [f"{c['check']} of {c['subject']}" for c in checks if c["status"] == "failed"]
    if failed:
        return f"Failed: {joined(failed)}. Nothing was exported."
    skipped = sum(c["status"] == "skipped" for c in checks)
    if skipped:
        return f"No check failed; {count_of(skipped, 'check')} had too few rows and could not look."
    return "Every check passed."


def audit_checks(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every check of all rows, and each check of one principle that failed."""
    rows = []
    for judge in audit.get("judges") or []:
        rows += [
            _check(finding, judge["folder"])
            for finding in judge["findings"]
            if not finding["scope"] or finding["status"] == "failed"
        ]
    collapse = audit.get("collapse") or {}
    return rows + [
        _check(f, f"{collapse['subject']} texts") for f in collapse.get("findings") or []
    ]


def audit_figures(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per judge a table: one row of all labels, one per principle, figures with n."""
    return [
        {
            "folder": judge["folder"],
            "judge": judge["judge"],
            "rows": [
                {"scope": scope or "all", "cells": [_cell(figures.get(name)) for name in FIGURES]}
                for scope, figures in judge["figures"].items()
            ],
        }
        for judge in audit.get("judges") or []
    ]


def revision_rows(data: ReportData) -> list[dict[str, Any]]:
    """One row per round."""
    return [
        {
            "round": entry["round"],
            "rows": entry["rows"],
            "skipped": entry["skipped"],
            "rejected": entry["rejected"],
            "faults": ", ".join(f"{name} {n:,}" for name, n in entry["faults"].items()) or "none",
            **_efficacy(entry.get("efficacy")),
        }
        for entry in data.metrics.get("revisions") or []
    ]


def efficacy_rows(data: ReportData) -> list[dict[str, Any]]:
    """One row per round and principle."""
    return [
        {"round": entry["round"], "principle": name, **_efficacy(found)}
        for entry in data.metrics.get("revisions") or []
        if entry.get("efficacy")
        for name, found in entry["efficacy"]["by_principle"].items()
    ]


def _efficacy(found: Mapping[str, Any] | None) -> dict[str, Any]:
    share, soft = (found or {}).get("preferred"), (found or {}).get("soft_label")
    return {
        "preferred": percent(share["share"]) if share else MISSING,
        "interval": percent_range(share["low"], share["high"]) if share else MISSING,
        "soft_label": number(soft["share"], 2) if soft else MISSING,
        "n": share["n"] if share else None,
        "unchanged": (found or {}).get("unchanged"),
    }


def _check(finding: Mapping[str, Any], subject: str) -> dict[str, Any]:
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in (("≥", finding["low"]), ("≤", finding["high"]))
        if bound is not None
    ]
    interval = finding.get("interval")
    return {
        "subject": subject,
        "status": finding["status"],
        "n": finding["n"],
        "check": f"{finding['name']} of {finding['scope']}"
        if finding["scope"]
        else finding["name"],
        "value": number(finding["value"], 3),
        "interval": f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else MISSING,
        "needed": " and ".join(bounds),
        "detail": "; ".join([finding["detail"], *finding["examples"]]),
    }


def _cell(figure: Mapping[str, Any] | None) -> str:
    return f"{figure['share']:.2f} ({figure['n']:,})" if figure else MISSING
