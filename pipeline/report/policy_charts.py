"""The policies as charts: which checks their replies hold, and what each gained against its cost.

In:  ReportData
Out: bars by check, and SVG with a point for each policy and its 95 % intervals as lines

Both axes of the points are measured on the same held-out prompts. With an oracle they are two
shares that pull against each other, and up and to the right is better. Elsewhere the cost is the
length of the replies, the cheapest way to please a judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TOP,
    WIDE,
    Scale,
    nice_ticks,
    svg,
    x_axis,
    y_axis,
)
from pipeline.report.numbers import number, percent, policy_class, policy_label
from pipeline.report.source import ReportData
from pipeline.stats import Estimate

MARGIN = 60
"""Room on the right for the name of a point."""
LINE = 13
"""Height of a name."""


@dataclass(frozen=True)
class Point:
    """One policy; each value with the ends of its interval, if it has one."""

    policy: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]


@dataclass(frozen=True)
class Frontier:
    """The points and the names of the axes; `of_share` says whether x is a share too."""

    points: list[Point]
    x_name: str
    y_name: str
    of_share: bool


def check_bars(data: ReportData) -> dict[str, list[tuple[str, Estimate]]]:
    """Bars with error bars: by principle with a check, the policies whose replies hold it."""
    bars: dict[str, list[tuple[str, Estimate]]] = {}
    for policy, entry in data.metrics.policies.items():
        for name, share in {"all of them": entry.checks_all, **entry.checks}.items():
            if share is not None:
                bars.setdefault(name, []).append((policy, share))
    return bars


def frontier(data: ReportData) -> Frontier | None:
    """Harmless against good replies with an oracle; else checks that hold, or the win rate, against
    words a reply. None when fewer than two policies have both.
    """
    policies = data.metrics.policies
    oracles = {name: entry.oracle for name, entry in policies.items() if entry.oracle}
    points = [
        Point(name, _ends(shares.good_on_harmless), _ends(shares.harmless))
        for name, shares in oracles.items()
        if shares.good_on_harmless and shares.harmless
    ]
    if len(points) > 1:
        names = ("good replies to harmless prompts", "harmless replies to misdeeds")
        return Frontier(points, *names, of_share=True)
    words = {n: (w, w, w) for n, e in policies.items() if (w := e.mean_words) is not None}
    for name, heights in (
        ("replies that hold every check", _checks(data)),
        ("win rate against the initial policy", _wins(data)),
    ):
        points = [Point(n, words[n], heights[n]) for n in words if n in heights]
        if len(points) > 1:
            return Frontier(points, "words per reply", name, of_share=False)
    return None


def frontier_chart(chart: Frontier | None) -> Markup:
    """The chart; each point says its figures to a pointer and to a screen reader."""
    if chart is None:
        return Markup("")
    if chart.of_share:
        x_ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    else:
        x_ticks = nice_ticks(0.0, max(point.x[2] for point in chart.points) or 1.0)
    x = Scale(x_ticks[0], x_ticks[-1], LEFT, WIDE - MARGIN)
    y = Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    told = percent if chart.of_share else number
    route = "L".join(f"{x(p.x[0]):g} {y(p.y[0]):g}" for p in chart.points)
    titles = [
        f"{policy_label(p.policy)}: {chart.y_name} {percent(p.y[0])}, {chart.x_name} {told(p.x[0])}"
        for p in chart.points
    ]
    heights = name_heights([(x(p.x[0]), y(p.y[0])) for p in chart.points])
    return svg(
        "; ".join(titles),
        [
            y_axis([(y(t), percent(t)) for t in (0.0, 0.25, 0.5, 0.75, 1.0)], WIDE),
            x_axis([(x(t), told(t)) for t in x_ticks], chart.x_name, WIDE - MARGIN),
            Markup('<path class="diagonal" d="M{}"/>').format(route),
            *(
                _point(p, x, y, title, height)
                for p, title, height in zip(chart.points, titles, heights, strict=True)
            ),
        ],
        WIDE,
    )


def name_heights(spots: Sequence[tuple[float, float]]) -> list[float]:
    """Heights at which the names to the right of points can be read: above the point, or below it
    where the name of another point is.

    Args:
        spots: x and y of each point, in units of the chart, y downward.
    """
    placed: list[tuple[float, float]] = []
    for at, height in spots:
        places = (height - 7, height + 17, height + 17 + LINE)
        free = (
            place
            for place in places
            if all(abs(at - x) >= MARGIN or abs(place - y) >= LINE for x, y in placed)
        )
        placed.append((at, next(free, places[0])))
    return [y for _, y in placed]


def _point(point: Point, x: Scale, y: Scale, title: str, name_height: float) -> Markup:
    line = Markup('<line class="span" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    at, height = x(point.x[0]), y(point.y[0])
    return Markup(
        '<g class="{}"><title>{}</title>{}{}<circle class="spot" cx="{}" cy="{}" r="5"/>'
        '<text class="tl" x="{}" y="{}">{}</text></g>'
    ).format(
        policy_class(point.policy),
        title,
        line.format(at, at, y(point.y[1]), y(point.y[2])),
        line.format(x(point.x[1]), x(point.x[2]), height, height),
        at,
        height,
        at + 9,
        name_height,
        policy_label(point.policy),
    )


def _checks(data: ReportData) -> dict[str, tuple[float, float, float]]:
    policies = data.metrics.policies.items()
    return {name: _ends(entry.checks_all) for name, entry in policies if entry.checks_all}


def _wins(data: ReportData) -> dict[str, tuple[float, float, float]]:
    """Win rates against the initial policy, which is even with itself."""
    wins = {
        entry.policy: (entry.win_rate, entry.low, entry.high)
        for entry in data.metrics.win_rates
        if entry.against == "initial"
        and entry.win_rate is not None
        and entry.low is not None
        and entry.high is not None
    }
    return {"initial": (0.5, 0.5, 0.5), **wins}


def _ends(share: Estimate) -> tuple[float, float, float]:
    return share.share, share.low, share.high
