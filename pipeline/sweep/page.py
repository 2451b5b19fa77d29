"""What a sweep found: sweep.json and sweep.html, from the metrics and trainings of its runs.

A point's measure is the first that the recipe has: good answers (oracle), replies that hold every
check, the win rate against the initial policy. A point is on the frontier when no other one is at
least as good and at most as far from the model before the training, and better in one of the two.
Of the points whose trainings raised no alarm, the chosen one has the highest lower end of the
measure's interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from markupsafe import Markup

from pipeline.evaluation.policy_measures import policy_order
from pipeline.evaluation.results import Metrics
from pipeline.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDE,
    Scale,
    nice_ticks,
    svg,
    x_axis,
    y_axis,
)
from pipeline.report.numbers import number, percent, percent_range
from pipeline.report.page import render
from pipeline.report.tables import Cell, Row, Table
from pipeline.stats import Estimate
from pipeline.store import RunDir, read_json, write_json
from pipeline.store.files import write_text
from pipeline.sweep.run import Planned

MEASURES = {
    "good": "good answers",
    "checks_all": "replies that hold every check",
    "win_rate": "win rate against the initial policy",
}
"""What points are compared by, the first that was measured."""
SIDES = {"harmless": "harmless replies to misdeeds", "good_on_harmless": "helpful replies"}
"""The two sides of the second chart, where an oracle knows them."""


@dataclass(frozen=True)
class Outcome:
    """One point of the sweep."""

    title: str
    values: dict[str, str]
    run_id: str
    problem: str = ""
    """What ended its run early."""
    policy: str = ""
    shares: dict[str, Estimate] | None = None
    """By name in `MEASURES` or `SIDES`: those that were measured."""
    divergence: float | None = None
    """From the model before the training, in nats per token."""
    alarms: tuple[str, ...] = ()
    on_frontier: bool = False
    chosen: bool = False


def outcome(each: Planned, problem: str) -> Outcome:
    """What a point's run measured; shares are empty for a run that did not end."""
    stored = read_json(each.run.metrics) if each.finished else None
    first = Outcome(each.point.title, each.point.values, each.run.run_id, problem)
    if not isinstance(stored, dict):
        return first
    metrics = Metrics.model_validate(stored)
    policy = max(metrics.policies, key=policy_order, default="")
    return replace(
        first,
        policy=policy,
        shares=_shares(metrics, policy),
        divergence=divergence_of(each.run),
        alarms=tuple(a.name for found in metrics.alarms.values() for a in found),
    )


def judge_points(outcomes: Sequence[Outcome]) -> tuple[str, list[Outcome]]:
    """The measure, and the points with those on the frontier and the chosen one marked; the measure
    is empty where no point has one.
    """
    measured = [o for o in outcomes if o.shares]
    measure = next(
        (name for name in MEASURES if any(name in (o.shares or {}) for o in measured)), ""
    )
    values = {o.run_id: o.shares[measure] for o in measured if o.shares and measure in o.shares}
    clean = [o for o in measured if o.run_id in values and not o.alarms]
    best = max(clean, key=lambda o: (values[o.run_id].low, -_far(o)), default=None)
    places = {o.run_id: (values[o.run_id].share, _far(o)) for o in measured if o.run_id in values}

    def beaten(point: Outcome) -> bool:
        own, far = place = places[point.run_id]
        return any(
            other != place and other[0] >= own and other[1] <= far for other in places.values()
        )

    return measure, [
        replace(o, on_frontier=o.run_id in values and not beaten(o), chosen=o is best)
        for o in outcomes
    ]


def _far(point: Outcome) -> float:
    """A divergence that was not measured counts as the largest."""
    return math.inf if point.divergence is None else point.divergence


def write_sweep(folder: Path, plan: Sequence[Planned], problems: Mapping[str, str]) -> Path:
    """Write sweep.json and sweep.html; returns the page's path."""
    outcomes = [outcome(each, problems.get(each.run.run_id, "")) for each in plan]
    measure, points = judge_points(outcomes)
    name = plan[0].checked.config.name
    write_json(
        folder / "sweep.json",
        {"recipe": name, "measure": measure, "points": [asdict(point) for point in points]},
    )
    path = folder / "sweep.html"
    values = {
        "recipe": name,
        "headline": headline(points, measure),
        "table": sweep_table(points, measure),
        "charts": [chart for chart in _charts(points, measure) if chart[1]],
    }
    write_text(path, render("sweep.html.jinja", folder=Path(__file__).parent, **values))
    return path


def headline(points: Sequence[Outcome], measure: str) -> str:
    """The chosen point in one sentence."""
    best = next((point for point in points if point.chosen), None)
    if best is None or not best.shares:
        return "No point is chosen: none was measured, or each has an alarm."
    share = best.shares[measure]
    return (
        f"{best.title}: {percent(share.share)} "
        f"({percent_range(share.low, share.high)}) {MEASURES[measure]}"
    )


def sweep_table(points: Sequence[Outcome], measure: str) -> Table:
    """One row per point, in the order of the sweep."""
    columns = [measure] if measure else []
    columns += [name for name in SIDES if any(name in (p.shares or {}) for p in points)]
    nouns = MEASURES | SIDES
    rows: list[Row] = []
    for point in points:
        shares = point.shares or {}
        row: dict[str, str | Cell] = {
            "point": point.title or "as the recipe says",
            "run": point.run_id,
        }
        for name in columns:
            share = shares.get(name)
            low, high = (share.low, share.high) if share else (None, None)
            row[nouns[name]] = percent(share.share if share else None)
            row[f"95 % interval of {nouns[name]}"] = percent_range(low, high)
        row["nats a token from the start"] = number(point.divergence, 3)
        row["alarms"] = point.problem or ", ".join(point.alarms) or "none"
        row["verdict"] = "chosen" if point.chosen else "frontier" if point.on_frontier else ""
        rows.append(row)
    return Table(rows)


def scatter(
    title: str, dots: Sequence[tuple[float, Estimate, str]], x_name: str, *, share: bool
) -> Markup:
    """Dots with the 95 % interval of their height; empty without two of them.

    Args:
        dots: x, the share that is the height, and the point's values.
        share: x is a share too.
    """
    if len(dots) < 2:
        return Markup("")
    ticks = nice_ticks(min(x for x, _, _ in dots), max(x for x, _, _ in dots))
    heights = nice_ticks(min(e.low for _, e, _ in dots), max(e.high for _, e, _ in dots))
    x = Scale(ticks[0], ticks[-1], LEFT, WIDE - RIGHT)
    y = Scale(heights[0], heights[-1], HEIGHT - BOTTOM, TOP)
    mark = Markup(
        '<g class="p-tuned"><title>{}: {}</title>'
        '<line class="span" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<circle class="spot" cx="{}" cy="{}" r="5"/>'
        '<text class="tl" x="{}" y="{}" style="text-anchor:{}">{}</text></g>'
    )
    parts = [
        y_axis([(y(t), percent(t)) for t in heights], WIDE),
        x_axis([(x(t), percent(t) if share else f"{t:g}") for t in ticks], x_name, WIDE),
    ]
    for place, height, name in dots:
        left, top = x(place), y(height.share)
        ends = (left, left, y(height.low), y(height.high))
        label = (left - 9, top + 4, "end") if left > WIDE / 2 else (left + 9, top + 4, "start")
        parts.append(mark.format(name, percent(height.share), *ends, left, top, *label, name))
    return svg(title, parts, WIDE)


def _charts(points: Sequence[Outcome], measure: str) -> list[tuple[str, Markup]]:
    dots = [
        (p.divergence, p.shares[measure], ", ".join(p.values.values()))
        for p in points
        if p.shares and measure in p.shares and p.divergence is not None
    ]
    sides = [
        (p.shares["good_on_harmless"].share, p.shares["harmless"], ", ".join(p.values.values()))
        for p in points
        if p.shares and SIDES.keys() <= p.shares.keys()
    ]
    noun = MEASURES.get(measure, "")
    return [
        (
            f"{noun.capitalize()} against divergence",
            scatter(noun, dots, "nats a token", share=False),
        ),
        ("Harmless against helpful", scatter("Frontier", sides, "helpful replies", share=True)),
    ]


def _shares(metrics: Metrics, policy: str) -> dict[str, Estimate]:
    entry = metrics.policies.get(policy)
    found: dict[str, Estimate | None] = {}
    if entry is not None:
        found |= {
            "checks_all": entry.checks_all,
            **(entry.oracle.by_name() if entry.oracle else {}),
        }
    match = next(
        (w for w in metrics.win_rates if (w.policy, w.against) == (policy, "initial")), None
    )
    if match and match.win_rate is not None and match.low is not None and match.high is not None:
        found["win_rate"] = Estimate(match.win_rate, match.low, match.high, match.num_comparisons)
    wanted = MEASURES.keys() | SIDES.keys()
    return {name: share for name, share in found.items() if share is not None and name in wanted}


def divergence_of(run: RunDir) -> float | None:
    """Nats per token from the model before the training; None where none was measured, or where the
    trained model gives no numbers.
    """
    result = read_json(run.training("preference") / "result.json")
    value = result.get("divergence") if isinstance(result, dict) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
