"""report.html and report.md of a judge evaluation, with the look of a run's report.

In:  the metrics of `rlaif judge-eval`
Out: both files, and the reliability curve: mean confidence of each bin against its accuracy

On the diagonal a label of 0.8 is right 8 times in 10; below it the judge is overconfident.
"""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from pipeline.judge_eval.figures import Bin
from pipeline.judge_eval.metrics import EvaluationMetrics
from pipeline.judge_eval.report.tables import all_tables, cards, headline
from pipeline.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDE,
    Scale,
    svg,
    x_axis,
    y_axis,
)
from pipeline.report.numbers import count_of, percent, percent_range
from pipeline.report.page import render
from pipeline.store.files import write_text

_HERE = Path(__file__).parent
MAX_RADIUS = 6.0


def write_judge_report(folder: Path, metrics: EvaluationMetrics) -> Path:
    """Write report.html and report.md; returns the page's path."""
    values = {
        "metrics": metrics,
        "headline": headline(metrics),
        "cards": cards(metrics),
        "tables": all_tables(metrics),
        "curves": _curves(metrics),
    }
    write_text(folder / "report.md", render("judge.md.jinja", folder=_HERE, **values))
    path = folder / "report.html"
    write_text(path, render("judge.html.jinja", folder=_HERE, **values))
    return path


def reliability_chart(title: str, bins: Sequence[Bin]) -> Markup:
    """Dots with 95 % intervals, their area as the bin's share of labels, and the diagonal."""
    if not bins:
        return Markup("")
    x = Scale(0.5, 1.0, LEFT, WIDE - RIGHT)
    y = Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    most = max(entry.n for entry in bins)
    points = "L".join(f"{x(b.confidence):g} {y(b.accuracy):g}" for b in bins)
    parts = [
        y_axis([(y(t), percent(t)) for t in (0.0, 0.25, 0.5, 0.75, 1.0)], WIDE),
        x_axis(
            [(x(t), percent(t)) for t in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)],
            "confidence of the label",
            WIDE,
        ),
        Markup('<path class="diagonal" d="M{} {}L{} {}"/>').format(x(0.5), y(0.5), x(1.0), y(1.0)),
        Markup('<path class="mean c-main" d="M{}"/>').format(points),
        *(_dot(entry, x, y, MAX_RADIUS * (entry.n / most) ** 0.5) for entry in bins),
    ]
    return svg(title, parts, WIDE)


def _curves(metrics: EvaluationMetrics) -> list[tuple[str, Markup]]:
    """Title and chart of each judge, raw and calibrated, and of the held-out half."""
    bins: dict[str, Sequence[Bin]] = {}
    for judge in metrics.judges:
        both = (("", judge.figures.confidence), (", raw", judge.figures.raw_confidence))
        bins |= {f"{judge.title}{suffix}": each.bins for suffix, each in both if each}
    if fitted := metrics.calibration:
        bins["Held-out half, before calibration"] = fitted.before.bins
        bins["Held-out half, after calibration"] = fitted.after.bins
    return [(name, reliability_chart(f"Reliability of {name}", b)) for name, b in bins.items()]


def _dot(entry: Bin, x: Scale, y: Scale, radius: float) -> Markup:
    interval = percent_range(entry.accuracy_low, entry.accuracy_high)
    name = (
        f"confidence {percent(entry.confidence)}: right {percent(entry.accuracy)} "
        f"({interval}), {count_of(entry.n, 'label')}"
    )
    line = Markup('<line class="span" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
    dot = Markup('<circle class="bin" cx="{x}" cy="{y}" r="{r}"/>')
    return Markup("<g><title>{}</title>{}{}</g>").format(
        name,
        line.format(x=x(entry.confidence), low=y(entry.accuracy_low), high=y(entry.accuracy_high)),
        dot.format(x=x(entry.confidence), y=y(entry.accuracy), r=round(max(2.0, radius), 1)),
    )
