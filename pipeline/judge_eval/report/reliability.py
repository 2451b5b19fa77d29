"""The reliability curve as SVG text: mean confidence of each bin against the share that was right.

On the diagonal a label of 0.8 is right 8 times in 10; below it the judge is too sure. Colors are CSS
classes, so that light and dark follow the page; every text that goes in is escaped.
"""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pipeline.report.charts import HEIGHT, Scale
from pipeline.report.numbers import count_of, percent, percent_range

WIDTH = 460
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 34
MAX_RADIUS = 6.0


def reliability_chart(title: str, bins: Sequence[dict[str, Any]]) -> Markup:
    """Dots with 95 % intervals, their area as the bin's share of labels, and the diagonal."""
    if not bins:
        return Markup("")
    x = Scale(0.5, 1.0, LEFT, WIDTH - RIGHT)
    y = Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    most = max(entry["n"] for entry in bins)
    parts = [_grid(y), _labels(x)]
    parts.append(
        Markup('<path class="diagonal" d="M{} {}L{} {}"/>').format(x(0.5), y(0.5), x(1.0), y(1.0))
    )
    points = "L".join(f"{x(b['confidence']):g} {y(b['accuracy']):g}" for b in bins)
    parts.append(Markup('<path class="mean c-main" d="M{}"/>').format(points))
    parts += [_dot(entry, x, y, MAX_RADIUS * (entry["n"] / most) ** 0.5) for entry in bins]
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def _dot(entry: dict[str, Any], x: Scale, y: Scale, radius: float) -> Markup:
    name = (
        f"confidence {percent(entry['confidence'])}: right {percent(entry['accuracy'])} "
        f"({percent_range(entry['accuracy_low'], entry['accuracy_high'])}), {count_of(entry['n'], 'label')}"
    )
    left = x(entry["confidence"])
    return Markup(
        '<g><title>{}</title><line class="span" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<circle class="bin" cx="{}" cy="{}" r="{}"/></g>'
    ).format(
        name,
        left,
        left,
        y(entry["accuracy_low"]),
        y(entry["accuracy_high"]),
        left,
        y(entry["accuracy"]),
        round(max(2.0, radius), 1),
    )


def _grid(y: Scale) -> Markup:
    return Markup("").join(
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="ty" x="{}" y="{}">{}</text>'
        ).format(LEFT, WIDTH - RIGHT, y(t), y(t), LEFT - 6, y(t) + 3.5, percent(t))
        for t in (0.0, 0.25, 0.5, 0.75, 1.0)
    )


def _labels(x: Scale) -> Markup:
    marks = Markup("").join(
        Markup('<text class="tx" x="{}" y="{}">{}</text>').format(
            x(t), HEIGHT - BOTTOM + 14, percent(t)
        )
        for t in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    )
    return marks + Markup(
        '<text class="tx name" x="{}" y="{}">confidence of the label</text>'
    ).format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4)
