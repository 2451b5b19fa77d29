"""Charts as SVG text: line charts and the histogram of margins. Bars are HTML in the template.

Colors are CSS classes, so that light and dark follow the page. Every text that goes in is escaped.
The points of a line chart travel along as JSON, for the read-out under the pointer.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from pipeline.evaluation.results import DataMetrics

WIDTH, HEIGHT = 360, 210
WIDE = 460
"""Width of a chart that has half of the page."""
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 34
MAX_POINTS = 240


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    ys: Sequence[float]
    style: str
    """CSS class: `c-main`, `c-good` or `c-bad`."""


@dataclass(frozen=True)
class Scale:
    """Maps values to positions, linear."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that span [low, high]; around it, where both are one number."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # means of equal values differ a little
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / count
    digits = math.floor(math.log10(raw))
    power = 10.0**digits
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 2 - digits) for i in range(first, last + 1)]


def smooth(values: Sequence[float]) -> list[float]:
    """Centered moving mean over about an eighth of the points."""
    reach = max(1, len(values) // 16)
    return [
        math.fsum(part) / len(part)
        for i in range(len(values))
        for part in [values[max(0, i - reach) : i + reach + 1]]
    ]


def line_chart(
    title: str,
    xs: Sequence[float],
    lines: Sequence[Line],
    x_name: str = "step",
    *,
    smoothed: bool = True,
) -> Markup:
    """Curves over common x values; each raw value faint, the moving mean bold.

    Args:
        smoothed: False draws the raw values alone, bold, over whole numbers.
    """
    keep = _every(len(xs))
    xs, lines = (
        [xs[i] for i in keep],
        [Line(c.name, [c.ys[i] for i in keep], c.style) for c in lines],
    )
    values = [y for line in lines for y in line.ys if math.isfinite(y)]
    if not values or not xs:
        return Markup("")
    ticks = nice_ticks(min(values), max(values))
    x_ticks = [t for t in nice_ticks(xs[0], xs[-1], 5) if xs[0] <= t <= xs[-1]]
    x_ticks = x_ticks if smoothed else [t for t in x_ticks if t == int(t)]
    x_high = xs[-1] if xs[-1] > xs[0] else xs[0] + 1
    x = Scale(xs[0], x_high, LEFT, WIDTH - RIGHT)
    y = Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [
        y_axis([(y(t), _label(t)) for t in ticks], WIDTH),
        x_axis([(x(t), _label(t)) for t in x_ticks], x_name, WIDTH),
    ]
    for line in lines:
        points = [(x(a), y(b)) for a, b in zip(xs, line.ys, strict=True) if math.isfinite(b)]
        bold = points
        if smoothed:
            means = smooth([b for b in line.ys if math.isfinite(b)])
            bold = [(p[0], y(m)) for p, m in zip(points, means, strict=True)]
            parts.append(Markup('<path class="raw {}" d="{}"/>').format(line.style, _path(points)))
        parts.append(Markup('<path class="mean {}" d="{}"/>').format(line.style, _path(bold)))
    data = {
        "x": xs,
        "lines": [[line.name, [_round(v) for v in line.ys]] for line in lines],
        "range": [xs[0], x_high],
        "plot": [LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM],
        "name": x_name,
    }
    return svg(title, parts, WIDTH, json.dumps(data))


def histogram(title: str, data: DataMetrics | None) -> Markup:
    """Margins of the preference data: kept below, dropped above, one column per bin."""
    bins = data.margins if data else []
    top = max((b.kept + b.dropped for b in bins), default=0)
    if not top:
        return Markup("")
    ticks = [t for t in nice_ticks(0, top) if t == int(t)]
    y = Scale(0, ticks[-1], HEIGHT - BOTTOM, TOP)
    width = (WIDE - LEFT - RIGHT) / len(bins)
    parts = [y_axis([(y(t), _label(t)) for t in ticks], WIDE)]
    labels = []
    for index, entry in enumerate(bins):
        left, last = LEFT + index * width, index == len(bins) - 1
        low = f"{entry.low:g}"
        span = f"{low} or more" if last else f"{low} to {bins[index + 1].low:g}"
        name = f"margin {span}: {entry.kept} kept, {entry.dropped} dropped"
        parts.append(_column(left, width, y, entry.kept, entry.dropped, name))
        if entry.low == int(entry.low):
            labels.append((round(left + (width / 2 if last else 0), 1), f"{low}+" if last else low))
    parts.append(x_axis(labels, "margin of the pair, nats", WIDE))
    return svg(title, parts, WIDE)


def _column(left: float, width: float, y: Scale, kept: int, dropped: int, name: str) -> Markup:
    x, bar = round(left + 1, 1), round(width - 2, 1)
    base, middle, top = y(0), y(kept), y(kept + dropped)
    bars = (
        ("hit", TOP, base - TOP),
        ("kept", middle, base - middle),
        ("dropped", top, middle - top),
    )
    rects = (
        Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
            style, x, start, bar, round(height, 1)
        )
        for style, start, height in bars
    )
    return Markup("<g><title>{}</title>{}</g>").format(name, Markup("").join(rects))


def svg(title: str, parts: Sequence[Markup], width: int, data: str = "") -> Markup:
    """A chart of HEIGHT from its parts; `data` travels along for the page's script."""
    attribute = Markup(' data-chart="{}"').format(data) if data else Markup("")
    attribute += Markup(' class="wide"') if width == WIDE else Markup("")
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>').format(
        width, HEIGHT, title, attribute, Markup("").join(parts)
    )


def y_axis(ticks: Sequence[tuple[float, str]], width: int) -> Markup:
    """Lines across the chart, each with its position and its label."""
    line = Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text class="ty" x="{}" y="{}">{}</text>'
    )
    return Markup("").join(
        line.format(LEFT, width - RIGHT, y, y, LEFT - 6, y + 3.5, text) for y, text in ticks
    )


def x_axis(ticks: Sequence[tuple[float, str]], name: str, width: int) -> Markup:
    """Labels at their positions, and the name of the axis below them."""
    label = Markup('<text class="tx" x="{}" y="{}">{}</text>')
    marks = Markup("").join(label.format(x, HEIGHT - BOTTOM + 14, text) for x, text in ticks)
    middle = (LEFT + width - RIGHT) / 2
    return marks + Markup('<text class="tx name" x="{}" y="{}">{}</text>').format(
        middle, HEIGHT - 4, name
    )


def _path(points: Sequence[tuple[float, float]]) -> Markup:
    return escape("M" + "L".join(f"{a:g} {b:g}" for a, b in points))


def _every(n: int) -> list[int]:
    """Indices of at most MAX_POINTS evenly spaced values, the last one included."""
    if n <= MAX_POINTS:
        return list(range(n))
    return sorted({round(i * (n - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})


def _label(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−")


def _round(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
