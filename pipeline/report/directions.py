"""The policy that was trained on directions: its ratings at each angle, as a chart and a table."""

import itertools

from markupsafe import Markup

from pipeline.labeling.directions import DirectionMetrics
from pipeline.report.charts import Line, line_chart
from pipeline.report.numbers import number
from pipeline.report.source import ReportData
from pipeline.report.tables import Row, Table


def direction_chart(data: ReportData) -> Markup:
    """Mean rating of both attributes against the angle; empty without two measured angles."""
    measured = data.metrics.directions
    if len(measured) < 2:
        return Markup("")
    lines = [
        Line(name, mean_ratings(measured, name), style)
        for name, style in zip(attributes(measured), ("c-main", "c-good"), strict=True)
    ]
    xs = [entry.angle for entry in measured]
    title = "Mean rating by direction"
    return line_chart(title, xs, lines, "direction, degrees", smoothed=False)


def direction_table(data: ReportData) -> Table:
    """Mean rating under every principle in each direction, from 1 to the number of options, with
    its 95 % interval, and whether both attributes follow the angle.
    """
    rows: list[Row] = []
    measured = data.metrics.directions
    for entry in measured:
        for name, mean in entry.ratings.items():
            if mean is not None:
                rows.append(
                    {
                        "direction": f"{entry.angle:g}°",
                        "principle": name,
                        "mean rating": number(mean.share, 2),
                        "95 % interval": f"{number(mean.low, 2)} to {number(mean.high, 2)}",
                        "n": number(mean.n),
                    }
                )
    note = f"From 0° to 90°: {'; '.join(follows(measured))}." if rows else ""
    return Table(rows, "Directions", note)


def follows(measured: tuple[DirectionMetrics, ...]) -> list[str]:
    """For both attributes whether the ratings follow the direction, in words: the first should fall
    with the angle, the second rise.
    """
    found = []
    for name, sign, verb in zip(attributes(measured), (-1, 1), ("falls", "rises"), strict=True):
        means = mean_ratings(measured, name)
        steps = [sign * (after - before) for before, after in itertools.pairwise(means)]
        right = sum(step > 0 for step in steps)
        found.append(f"{name} {verb} at {right} of {len(steps)} steps, {span(means)}")
    return found


def span(means: list[float]) -> str:
    """`from 8.1 to 2.4`."""
    return f"from {number(means[0], 2)} to {number(means[-1], 2)}"


def attributes(measured: tuple[DirectionMetrics, ...]) -> list[str]:
    """The two attributes of the directions."""
    return list(measured[0].ratings)[:2] if measured else []


def mean_ratings(measured: tuple[DirectionMetrics, ...], name: str) -> list[float]:
    """The means of one principle by rising angle; NaN where none was readable."""
    means = (entry.ratings.get(name) for entry in measured)
    return [mean.share if mean else float("nan") for mean in means]
