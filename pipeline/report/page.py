"""report.html and report.md: one file each, no request to anywhere, every foreign text escaped.

In:  ReportData, the sampled pairs, and the templates, styles and report.js beside this file
Out: the page and its Markdown as text

Values reach the page through autoescape; the pairs travel as base64, and the script puts them on
the page as text, never as HTML. The page's own
policy forbids every script but that one, by its hash, and every request. No text of a model goes
into the Markdown.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from pipeline.data.markdown import code_span, escape_markdown
from pipeline.report import matches, origins, tables
from pipeline.report.audit import audit_verdict, check_table, figure_tables, ways_out
from pipeline.report.charts import HEIGHT, WIDE, histogram
from pipeline.report.choice import choice_table
from pipeline.report.curves import panels
from pipeline.report.directions import attributes, direction_chart, direction_table
from pipeline.report.headline import cards, headline, headline_numbers
from pipeline.report.next_steps import next_steps, verdict
from pipeline.report.numbers import (
    count_of,
    duration,
    number,
    percent,
    percent_range,
    policy_class,
    policy_label,
)
from pipeline.report.pairs import packed
from pipeline.report.policy_charts import check_bars, frontier, frontier_chart
from pipeline.report.source import Audit, ReportData
from pipeline.report.tables import Table

_HERE = Path(__file__).parent


def render_page(data: ReportData, pairs: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    principles = sorted({pair["principle"] for pair in pairs})
    index, chunks = packed(pairs, {name: data.request_of(name) for name in principles})
    return render(
        "report.html.jinja",
        **_values(data),
        bars=tables.share_bars(data),
        check_bars=check_bars(data),
        share_titles=tables.SHARE_TITLES,
        frontier=frontier(data),
        frontier_chart=frontier_chart,
        direction_chart=direction_chart(data),
        direction_names=attributes(data.metrics.directions),
        win_rates=[entry for entry in data.metrics.win_rates if entry.win_rate is not None],
        match_title=matches.match_title,
        outcomes=tables.comparison_outcomes(data),
        margins=histogram("Margins of all labeled pairs", data.metrics.data),
        curves=[panel for record in data.training for panel in panels(record)],
        num_pairs=len(pairs),
        index=index,
        chunks=chunks,
        script=(_HERE / "report.js").read_text(encoding="utf-8").strip(),
    )


def render_markdown(data: ReportData) -> str:
    """The whole report as Markdown."""
    return render(
        "report.md.jinja",
        **_values(data),
        shares=tables.share_table(data),
        reasons=tables.outcome_table(data),
        alarms=[
            f"Alarm, {record.title}: {alarm.message}"
            for record in data.training
            if record.result
            for alarm in record.result.alarms
        ],
        figures=_figures(data),
    )


def render_summary(data: ReportData) -> str:
    """Headline and figures as Markdown."""
    return render("summary.md.jinja", data=data, headline=headline(data), figures=_figures(data))


def render_plot(data: ReportData) -> tuple[str, str] | None:
    """The plot that says most of a run, as a title and the `data:` address of an SVG with its own
    style: the policies, else the margins of the labels. None where there are neither.
    """
    points, title = frontier(data), "Margins of all labeled pairs"
    chart = frontier_chart(points) or histogram(title, data.metrics.data)
    if points:
        title = f"{points.y_name} and {points.x_name}, by policy".capitalize()
    if not chart:
        return None
    # In the page, the name of a point may lie above the chart.
    whole = chart.replace(f"0 0 {WIDE} {HEIGHT}", f"0 -14 {WIDE} {HEIGHT + 14}")
    root = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="920" height="448" '
        f'style="background:var(--panel)" {whole.removeprefix("<svg ")}'
    )
    tag, _, body = root.partition(">")
    text = f"{tag}><style>{_style('chart.css')}</style>{body}"
    return title, "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode("ascii")


def render_audit(audit: Audit) -> str:
    """The audit of labels and texts as Markdown; empty without one."""
    return render("audit.md.jinja", **_audit_values(audit))


def render(template: str, *, folder: Path = _HERE, **values: Any) -> str:
    """A template of a folder, which can use those of the report, with its values.

    Markdown is tidied: one empty line between its parts, none at its ends.
    """
    text = _environment(folder).get_template(template).render(values)
    if not template.endswith(".md.jinja"):
        return text
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text and text + "\n"


def _style(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """The name of a script in the page's content security policy."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def soften(text: str) -> Markup:
    """A sentence whose brackets, the numbers, are set lighter."""
    parts = re.split(r"(\([^()]*\))", text)
    return Markup("").join(
        Markup('<span class="soft">{}</span>').format(part) if part.startswith("(") else part
        for part in parts
    )


def marked(text: str) -> Markup:
    """A sentence whose parts between backticks are code."""
    parts = (
        Markup("<code>{}</code>" if index % 2 else "{}").format(part)
        for index, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)


@cache
def _environment(folder: Path) -> Environment:
    """HTML is escaped by Jinja, Markdown by the filters `md` and `md_table`."""
    jinja = Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=select_autoescape(("html.jinja",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "code": code_span,
        "duration": duration,
        "marked": marked,
        "md": escape_markdown,
        "md_table": tables.markdown_table,
        "number": number,
        "percent": percent,
        "policy_class": policy_class,
        "policy_label": policy_label,
        "script_hash": script_hash,
        "soften": soften,
    }
    jinja.globals |= {
        "count_of": count_of,
        "percent_range": percent_range,
        "style": Markup(_style("chart.css") + _style("report.css")),
    }
    return jinja


def _values(data: ReportData) -> dict[str, Any]:
    """What page and Markdown both show."""
    return {
        "data": data,
        "metrics": data.metrics,
        "headline": headline(data),
        "result": verdict(data),
        "steps": next_steps(data),
        "cards": cards(data),
        "matches": matches.match_table(data),
        "refusals": matches.refusal_table(data),
        "directions": direction_table(data),
        "choice": choice_table(data),
        "policies": tables.policy_table(data),
        "held_checks": tables.held_checks_table(data),
        "principles": tables.principle_table(data),
        "scores": tables.score_table(data),
        "label_notes": tables.label_notes(data),
        "sources": origins.source_table(data),
        "mixture": origins.mixture_table(data),
        "score_notes": tables.score_notes(data),
        "revisions": tables.revision_table(data),
        "efficacy": tables.efficacy_table(data),
        "training": tables.training_table(data),
        "stages": tables.stage_table(data),
        "lineage": tables.lineage_table(data),
        **_audit_values(data.audit),
    }


def _figures(data: ReportData) -> Table:
    return Table([{"figure": name, "value": value} for name, value in headline_numbers(data)])


def _audit_values(audit: Audit) -> dict[str, Any]:
    return {
        "verdict": audit_verdict(audit),
        "audit_notes": audit.notes,
        "ways_out": ways_out(audit),
        "checks": check_table(audit),
        "figure_tables": figure_tables(audit),
    }
