"""What a sweep found: sweep.json and sweep.html, from the metrics and trainings of its runs.

A point's measure is the first that the recipe has: good answers (oracle), replies that hold every
check, the win rate against the initial policy. A point is on the frontier when no other one is at
least as good and at most as far from the model before the training, and better in one of the two.
Of the points whose trainings raised no alarm, the chosen one has the highest lower end of the
measure's interval.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from markupsafe import Markup

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
from pipeline.report.choice import NOTE, SHARES, Choice, choice_cells, choices
from pipeline.report.numbers import percent, spelled
from pipeline.report.page import render
from pipeline.report.source import read_run
from pipeline.report.tables import Row, Table
from pipeline.stats import Estimate
from pipeline.store import write_json
from pipeline.store.files import write_text
from pipeline.sweep.run import Planned

MEASURES = ("good", "checks_all", "win_rate")
"""What points are compared by, the first that was measured."""
SIDES = {"good_on_harmless", "harmless"}
"""The two sides of the second chart, where an oracle knows them."""


@dataclass(frozen=True)
class Outcome:
    """One point of the sweep."""

    title: str
    values: dict[str, str]
    run_id: str
    problem: str = ""
    """What ended its run early."""
    trained: Choice | None = None
    """The last policy of its run; None for a run that did not end."""
    before: tuple[Choice, ...] = ()
    """The policies before it: the initial one, and the one after SFT."""
    on_frontier: bool = False
    chosen: bool = False

    @property
    def shares(self) -> dict[str, Estimate]:
        """Shares of the trained policy that were measured."""
        return (self.trained.shares if self.trained else None) or {}

    @property
    def alarms(self) -> tuple[str, ...]:
        """Of all trainings of its run."""
        trained = (*self.before, self.trained) if self.trained else self.before
        return tuple(name for each in trained for name in each.alarms)


def outcome(each: Planned, problem: str) -> Outcome:
    """What a point's run measured; no policies for a run that did not end."""
    policies = choices(read_run(each.run)) if each.finished else []
    return Outcome(
        each.point.title,
        each.point.values,
        each.run.run_id,
        problem,
        policies[-1] if policies else None,
        tuple(policies[:-1]),
    )


def judge_points(outcomes: Sequence[Outcome]) -> tuple[str, list[Outcome]]:
    """The measure, and the points with those on the frontier and the chosen one marked; the measure
    is empty where no point has one.
    """
    measure = next((name for name in MEASURES if any(name in o.shares for o in outcomes)), "")
    measured = [o for o in outcomes if measure in o.shares]
    clean = [o for o in measured if not o.alarms]
    best = max(clean, key=lambda o: (o.shares[measure].low, -_far(o)), default=None)
    places = {o.run_id: (o.shares[measure].share, _far(o)) for o in measured}

    def beaten(point: Outcome) -> bool:
        own, far = place = places[point.run_id]
        return any(
            other != place and other[0] >= own and other[1] <= far for other in places.values()
        )

    return measure, [
        replace(o, on_frontier=o.run_id in places and not beaten(o), chosen=o is best)
        for o in outcomes
    ]


def _far(point: Outcome) -> float:
    """A divergence that was not measured counts as the largest."""
    moved = point.trained.divergence if point.trained else None
    return math.inf if moved is None else moved


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
        "table": sweep_table(points),
        "charts": [chart for chart in _charts(points, measure) if chart[1]],
    }
    write_text(path, render("sweep.html.jinja", folder=Path(__file__).parent, **values))
    return path


def headline(points: Sequence[Outcome], measure: str) -> str:
    """The chosen point in one sentence."""
    best = next((point for point in points if point.chosen), None)
    if best is None:
        return "No point is chosen: none was measured, or each has an alarm."
    return f"{best.title}: {spelled(best.shares[measure])} {SHARES[measure]}"


def sweep_table(points: Sequence[Outcome]) -> Table:
    """What the points began with, each policy once, then one row per point, in their order."""
    starts: dict[str, tuple[Choice, Outcome]] = {}
    for point in points:
        for policy in point.before:
            starts.setdefault(policy.fingerprint, (policy, point))
    titles = Counter(policy.title for policy, _ in starts.values())
    everyone = [policy for policy, _ in starts.values()]
    everyone += [point.trained for point in points if point.trained]
    rows: list[Row] = []
    for policy, point in starts.values():
        # Points with other samples or principles have another policy after SFT.
        of = f" of {point.title}" if titles[policy.title] > 1 else ""
        row = {"point": policy.title + of, **choice_cells(policy, everyone)}
        rows.append({**row, "verdict": "", "run": point.run_id})
    for point in points:
        row = {
            "point": point.title or "as the recipe says",
            **choice_cells(point.trained, everyone),
        }
        row["alarms"] = point.problem or row["alarms"]
        verdict = "chosen" if point.chosen else "frontier" if point.on_frontier else ""
        rows.append({**row, "verdict": verdict, "run": point.run_id})
    return Table(rows, note=NOTE)


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
        (far, p.shares[measure], ", ".join(p.values.values()))
        for p in points
        if measure in p.shares and math.isfinite(far := _far(p))
    ]
    sides = [
        (p.shares["good_on_harmless"].share, p.shares["harmless"], ", ".join(p.values.values()))
        for p in points
        if p.shares.keys() >= SIDES
    ]
    noun = SHARES.get(measure, "")
    return [
        (
            f"{noun.capitalize()} against divergence",
            scatter(noun, dots, "nats a token", share=False),
        ),
        ("Harmless against helpful", scatter("Frontier", sides, "helpful replies", share=True)),
    ]
