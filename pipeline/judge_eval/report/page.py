"""report.html and report.md of a judge evaluation: one file each, no request to anywhere.

In:  metrics.json of `rlaif judge-eval`
Out: the page with the look of a run's report, and the same tables as Markdown
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import report
from pipeline.judge_eval.report.reliability import reliability_chart
from pipeline.judge_eval.report.tables import Metrics, cards, grids, headline
from pipeline.report.markdown import escape, table
from pipeline.store.files import write_text

_HERE = Path(__file__).parent
_STYLE = Path(report.__file__).parent / "report.css"


def write_judge_report(folder: Path, metrics: Metrics) -> Path:
    """Write report.html and report.md; returns the page's path."""
    write_text(folder / "report.md", render_judge_markdown(metrics))
    path = folder / "report.html"
    write_text(path, render_judge_page(metrics))
    return path


def render_judge_page(metrics: Metrics) -> str:
    """The whole page; every foreign text is escaped, and it has no script."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    lead, detail = headline(metrics)
    curves = []
    for judge in metrics["judges"]:
        for title, figures in (("", judge["confidence"]), (", raw", judge["raw_confidence"])):
            if figures:
                name = f"{judge['name']}: {judge['model']}{title}"
                curves.append((name, reliability_chart(f"Reliability of {name}", figures["bins"])))
    if metrics["calibration"]:
        curves += [
            (
                f"Held-out half, {name} calibration",
                reliability_chart(
                    f"Reliability {name} calibration", metrics["calibration"][name]["bins"]
                ),
            )
            for name in ("before", "after")
        ]
    return environment.get_template("page.html.jinja").render(
        metrics=metrics,
        lead=lead,
        detail=detail,
        cards=cards(metrics),
        grids=grids(metrics),
        curves=curves,
        style=_STYLE.read_text(encoding="utf-8"),
    )


def render_judge_markdown(metrics: Metrics) -> str:
    """The same tables as Markdown."""
    lead, detail = headline(metrics)
    parts = [f"# {escape(metrics['name'])}", escape(lead), escape(detail)]
    for grid in grids(metrics):
        parts += [f"## {escape(grid.title)}", escape(grid.note), table(grid.names, grid.rows)]
    return "\n\n".join(part for part in parts if part) + "\n"
