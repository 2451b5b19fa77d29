"""report.md and its short forms: the same numbers as the page, for terminals, diffs and artifacts.

Foreign words (names, reasons, requests) are escaped; no text of a model goes in.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.report.audit import (
    FIGURE_TITLES,
    audit_checks,
    audit_figures,
    audit_verdict,
    efficacy_rows,
    revision_rows,
)
from pipeline.report.headline import cards, headline
from pipeline.report.numbers import duration, number, percent, percent_range, policy_label
from pipeline.report.source import ReportData
from pipeline.report.tables import (
    lineage_rows,
    match_rows,
    policy_rows,
    principle_rows,
    reason_rows,
    score_notes,
    score_rows,
    share_groups,
    stage_rows,
    training_rows,
)


def render_markdown(data: ReportData) -> str:
    """The whole report."""
    told = headline(data)
    parts = [f"# {escape(data.run.run_id)}", escape(told.lead), escape(told.detail), _figures(data)]
    parts += [
        *_section("Policies on held-out prompts", _shares(data), _matches(data), _texts(data)),
        *_section("Labels", _reasons(data), _principles(data)),
        *_section("Scores and length", _scores(data), *map(escape, score_notes(data))),
        *_section("Audit of labels and texts", *_audit(data.audit)),
        *_section("Revisions", _revisions(data), _efficacy(data)),
        *_section("Training", _training(data)),
        *_section("Stages", _stages(data)),
        *_section("Lineage", table(("what", "value"), lineage_rows(data))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_summary(data: ReportData) -> str:
    """Headline and figures."""
    told = headline(data)
    where = f"Report: `{data.run.report}`" if data.run.report.exists() else ""
    parts = [
        f"## {escape(data.run.run_id)}",
        escape(told.lead),
        escape(told.detail),
        _figures(data),
        where,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_audit(audit: dict[str, Any]) -> str:
    """The audit of labels and texts; empty without one."""
    parts = _section("Audit of labels and texts", *_audit(audit))
    return "\n\n".join(parts) + "\n" if parts else ""


def headline_numbers(data: ReportData) -> list[tuple[str, str]]:
    """The cards, and the truth about labels where it is known, as name and value."""
    found = [
        (card.title, f"{card.value} ({card.note})" if card.note else card.value)
        for card in cards(data)
    ]
    final = data.final_policy
    if final and (oracle := data.policies[final].get("oracle")) and oracle.get("outside_world"):
        estimate = oracle["outside_world"]
        found.append(
            (
                f"Outside the known world, {policy_label(final).lower()}",
                f"{percent(estimate['share'])} ({percent_range(estimate['low'], estimate['high'])})",
            )
        )
    return found


def escape(text: Any) -> str:
    """A text as one cell: no line breaks, no table bars, no HTML, no markup."""
    flat = " ".join(str(text).split())
    for mark in "\\`*_[]|":
        flat = flat.replace(mark, "\\" + mark)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; nothing without rows. The first column is text, the others are right-aligned."""
    lines = [" | ".join(escape(value) for value in row) for row in rows]
    if not lines:
        return ""
    rule = " | ".join(["---"] + ["---:"] * (len(names) - 1))
    return "\n".join(f"| {line} |" for line in (" | ".join(names), rule, *lines))


def _section(title: str, *parts: str) -> list[str]:
    found = [part for part in parts if part]
    return [f"## {title}", *found] if found else []


def _figures(data: ReportData) -> str:
    return table(("figure", "value"), headline_numbers(data))


def _shares(data: ReportData) -> str:
    rows = [
        (
            group["title"],
            bar["label"],
            percent(bar["share"]),
            percent_range(bar["low"], bar["high"]),
            bar["n"],
        )
        for group in share_groups(data)
        for bar in group["bars"]
    ]
    return table(("share", "policy", "value", "95 % interval", "n"), rows)


def _matches(data: ReportData) -> str:
    rows = [
        (
            m["title"],
            percent(m["win_rate"]),
            percent_range(m["low"], m["high"]),
            m["num_comparisons"],
            percent(m["tie_share"]),
            number(m["soft_label"]["share"], 2),
            percent(m["position_consistency"]),
            m["unparsed"],
        )
        for m in match_rows(data)
    ]
    names = (
        "match",
        "win rate",
        "95 % interval",
        "comparisons",
        "ties",
        "mean soft label",
        "position consistency",
        "unparsed",
    )
    return table(names, rows)


def _texts(data: ReportData) -> str:
    rows = [
        (
            p["label"],
            number(p["num_responses"]),
            number(p["mean_words"], 1),
            percent(p["truncated_share"]),
            percent(p["empty_share"]),
        )
        for p in policy_rows(data)
    ]
    return table(("policy", "replies", "words per reply", "cut at the limit", "empty"), rows)


def _reasons(data: ReportData) -> str:
    rows = [(r["reason"], number(r["n"]), percent(r["share"])) for r in reason_rows(data)]
    return table(("comparisons", "n", "share"), rows)


def _principles(data: ReportData) -> str:
    rows = [
        (
            p["id"],
            number(p["critiques"]),
            number(p["drawn"]),
            number(p["kept"]),
            number(p["mean_margin"], 2),
            percent(p["tie_share"]),
            number(p["mean_position_gap"], 2),
            percent(p["win_rate"]),
        )
        for p in principle_rows(data)
    ]
    names = (
        "principle",
        "critiques",
        "labels",
        "pairs kept",
        "mean margin",
        "ties",
        "position gap",
        "win rate",
    )
    return table(names, rows)


def _scores(data: ReportData) -> str:
    rows = [
        (
            s["title"],
            number(s["n"]),
            number(s["mean"], 3),
            number(s["spread"], 3),
            *(
                number(s[name], 2)
                for name in ("pearson", "spearman", "pearson_within", "spearman_within")
            ),
        )
        for s in score_rows(data)
    ]
    names = (
        "score",
        "responses",
        "mean",
        "spread",
        "Pearson with words",
        "Spearman with words",
        "Pearson within prompts",
        "Spearman within prompts",
    )
    return table(names, rows)


def _audit(audit: dict[str, Any]) -> list[str]:
    checks = [
        (
            c["check"],
            c["subject"],
            c["value"],
            c["interval"],
            c["needed"],
            number(c["n"]),
            c["status"],
            c["detail"],
        )
        for c in audit_checks(audit)
    ]
    names = ("check", "of", "value", "95 % interval", "needed", "n", "result", "what it is")
    figures = [
        table(
            (judge["folder"], *FIGURE_TITLES),
            [(row["scope"], *row["cells"]) for row in judge["rows"]],
        )
        for judge in audit_figures(audit)
    ]
    notes = [escape(f"Note: {note}") for note in audit.get("notes") or []]
    return [escape(audit_verdict(audit)), *notes, table(names, checks), *figures]


def _revisions(data: ReportData) -> str:
    rows = [
        (
            r["round"],
            number(r["rows"]),
            number(r["skipped"]),
            number(r["rejected"]),
            r["faults"],
            r["preferred"],
            r["interval"],
            r["soft_label"],
        )
        for r in revision_rows(data)
    ]
    names = (
        "round",
        "rows",
        "left as they were",
        "not a revision",
        "faults",
        "preferred to the text before",
        "95 % interval",
        "mean label",
    )
    return table(names, rows)


def _efficacy(data: ReportData) -> str:
    rows = [
        (r["principle"], r["round"], r["preferred"], r["interval"], r["soft_label"], number(r["n"]))
        for r in efficacy_rows(data)
    ]
    names = ("principle", "round", "revisions preferred", "95 % interval", "mean label", "n")
    return table(names, rows)


def _training(data: ReportData) -> str:
    rows = [
        (
            r["title"],
            r["method"] or "",
            r["steps"],
            number(r["final_loss"], 3),
            number(r["reward_margin"], 2),
            duration(r["total_s"]),
            "; ".join(r["alarms"]) or "none",
        )
        for r in training_rows(data)
    ]
    return table(("job", "method", "steps", "final loss", "reward margin", "time", "alarms"), rows)


def _stages(data: ReportData) -> str:
    rows = [
        (
            s["stage"],
            *(
                number(s[name])
                for name in ("expected", "ok", "unparsed", "failed", "dropped", "reused")
            ),
            number(s["prompt_tokens"]),
            percent(s["cached_share"]),
            number(s["generated_tokens"]),
            duration(s["seconds"]),
        )
        for s in stage_rows(data)
    ]
    names = (
        "stage",
        "rows",
        "ok",
        "unparsed",
        "failed",
        "dropped",
        "reused",
        "prompt tokens",
        "cached",
        "generated tokens",
        "time in shards",
    )
    return table(names, rows)
