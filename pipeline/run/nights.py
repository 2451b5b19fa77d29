"""A night beside the one before it, and the series of all nights, as pages.

In:  the nights of a recipe, oldest first
Out: night.md in the last night's folder; outputs/nights/RECIPE.html with a plot per figure

The judge is watched by the known answers that it finds: questions of one canary file, asked every
night. The alarm is Fisher's exact test of tonight's answers against those of all nights before, and
the page states which drop it would miss.

Does not: tell a judge that got worse from canaries that were asked under other principles.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from pipeline.data.dataset import load_dataset
from pipeline.data.markdown import escape_markdown
from pipeline.impact.text import headline
from pipeline.impact.version import relabeled
from pipeline.report.audit import audit_findings
from pipeline.report.charts import Line, line_chart
from pipeline.report.numbers import number
from pipeline.report.page import render
from pipeline.report.source import read_run
from pipeline.report.tables import Table
from pipeline.run.compare import compare_runs
from pipeline.run.drift import Profile, drift, profile
from pipeline.store import RunDir
from pipeline.store.files import write_text
from pipeline.store.inventory import update_inventory
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import CANARY, PREFERENCE, stage_folders

ALPHA = 0.001
"""Share of nights with a false alarm: at most one in 1,000, since a team reads it every night."""
POWER = 0.8
AGAIN = {
    "labels": "after",
    "relabeled": "asked_again",
    "flipped": "relabeled",
    "became ties": "became_ties",
    "ties no more": "stopped_being_ties",
    "pairs gained": "pairs_gained",
    "pairs lost": "pairs_lost",
}
"""Columns on labels of earlier nights that were made again, and their fields of `Effects`."""


@dataclass(frozen=True)
class Known:
    """Known answers that a judge was asked for."""

    right: int
    asked: int


def lower_tail(most: int, n: int, p: float) -> float:
    """P(X <= most) of a binomial count X of n trials with success p."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(most + 1))


def alarm_count(before: Known, n: int) -> int:
    """Most right answers of n that raise the alarm; -1 where not even 0 does.

    Fisher's exact test: if nothing changed, the right answers are drawn from both counts without
    order, so a false alarm has at most the probability ALPHA however short the past is.
    """
    from scipy.stats import hypergeom  # loaded here: see `pipeline.stats`

    counts = np.arange(n + 1)
    tails = hypergeom.cdf(counts, before.asked + n, before.right + counts, n)
    return int(np.max(counts[tails <= ALPHA], initial=-1))


def detected_share(before: Known, n: int) -> float | None:
    """The largest share of right answers that raises the alarm with probability POWER, in steps of
    1 %; None where no share does.
    """
    count = alarm_count(before, n)
    shares = (step / 100 for step in range(100, -1, -1))
    return next((s for s in shares if lower_tail(count, n, s) >= POWER), None)


def judge_alarm(before: Known, tonight: Known) -> tuple[bool, str]:
    """Whether the judge finds fewer known answers than before, and a sentence with the power."""
    if not tonight.asked or not before.asked:
        return False, "The judge was asked no known answers to compare."
    least = detected_share(before, tonight.asked)
    raised = tonight.right <= alarm_count(before, tonight.asked)
    facts = (
        f"{tonight.right} of {tonight.asked} known answers tonight, {before.right} of "
        f"{before.asked} in the nights before"
    )
    power = (
        f"a drop to {100 * least:.0f} % would be noticed with a probability of {100 * POWER:.0f} %"
        if least is not None
        else "so few answers can show no drop"
    )
    return raised, f"{'ALARM: the judge got worse. ' if raised else ''}{facts}; {power}."


def write_pages(nights: Sequence[RunDir]) -> list[str]:
    """Write the page of the last night and that of the series; returns lines for people.

    Raises:
        StoreError: a shard is damaged, or the disk is full.
    """
    *earlier, run = nights
    known = [known_answers(night) for night in nights]
    before = Known(sum(k.right for k in known[:-1]), sum(k.asked for k in known[:-1]))
    raised, judge = judge_alarm(before, known[-1])
    lines = [f"# {run.run_id}", "", _plan(run), "", f"Judge: {judge}", ""]
    summary = [judge] if raised else []
    profiles = [profile(night) for night in nights]
    figures = [night_figures(*night) for night in zip(nights, known, profiles, strict=True)]
    impacts = [relabeled(night) for night in nights]
    for values, impact in zip(figures, impacts, strict=True):
        if any(impacts):
            values["Labels of earlier nights made again"] = (
                impact.total.asked_again if impact else 0
            )
            values["Of these, flipped"] = impact.total.relabeled if impact else 0
    series = run.root.parent.parent / "nights" / f"{run.info().get('series')}.html"
    links = ["[report](report.html)", f"[all nights](../../nights/{series.name})"]
    if earlier:
        diff = compare_runs(earlier[-1], run)
        links.insert(0, f"[the night before](../{earlier[-1].root.name}/night.md)")
        lines += [f"Against {diff.old}:", "", "```", diff.constitution.text(), "```", ""]
        lines += _table(("setting", "before", "tonight"), _rows(diff.settings))
        lines += _table(("figure", "before", "tonight"), _rows(diff.figures))
        lines += _table(("measured", "before", "tonight"), _side_by_side(*figures[-2:]))
        labels = [(n, f.compared, f.relabeled, f.flipped) for n, f in diff.labels.items()]
        lines += _table(("principle", "labels in both", "relabeled", "flipped"), labels)
        if again := impacts[-1]:
            said = headline(again)
            lines += ["Earlier nights under tonight's constitution:", ""]
            lines += [*(f"- {line}" for line in said), ""]
            effects = [
                (each.id, each.change, *(getattr(each, name) for name in AGAIN.values()))
                for each in again.principles
                if each.asked_again or each.change != "unchanged"
            ]
            lines += _table(("principle", "change", *AGAIN), effects)
            summary += [f"earlier nights: {line}" for line in said[:2]]
        drifts = drift(*profiles[-2:])
        lines += _table(("drift of", "before", "tonight", "beyond chance"), drifts)
        summary.append(f"{len(diff.figures)} figures differ from {diff.old}: {run.root}/night.md")
        if marked := [name for name, *_, mark in drifts if mark]:
            summary.append(f"drift beyond chance: {', '.join(marked)}")
    page = run.root / "night.md"
    write_text(page, "\n".join([*lines, " · ".join(links), ""]))
    update_inventory(run.root, page)
    _write_series(series, nights, known, figures, judge)
    return [*summary, f"all nights: {series}"]


def night_figures(run: RunDir, known: Known, texts: Profile) -> dict[str, float]:
    """The figures of a night that are plotted over the versions, by title; those that it has."""
    data, dataset = read_run(run), load_dataset(run)
    metrics, pairs = data.metrics, dataset.sets.get("preference") if dataset else None
    figures: dict[str, float | None] = {
        "Pairs of the version": pairs.rows if pairs else None,
        "New prompts": texts.num_prompts,
        "Known answers found, share": known.right / known.asked if known.asked else None,
        **{f"Words, {name}": fmean(words) for name, words in texts.words.items() if words},
    }
    if made := metrics.data:
        figures |= {
            "Pairs kept, share": made.kept / made.pairs if made.pairs else None,
            "Mean margin, nats": made.labels.mean_margin,
            "Ties, share": made.labels.tie_share,
            "Position consistency": made.labels.position_consistency,
        }
    if (truth := metrics.labels) and truth.accuracy_kept:
        figures["Label accuracy, kept pairs"] = truth.accuracy_kept.share
    if win := data.win_rate():
        figures["Win rate against the initial policy"] = win.win_rate
    if last := metrics.policies.get(data.final_policy or "initial"):
        figures["Words, reply of the last policy"] = last.mean_words
    figures |= {
        f"Audit, {finding.name} of {subject}": finding.value
        for subject, finding in audit_findings(data.audit)
        if not finding.scope
    }
    return {title: value for title, value in figures.items() if value is not None}


def _side_by_side(
    before: Mapping[str, float], tonight: Mapping[str, float]
) -> list[tuple[str, str, str]]:
    return [
        (title, number(before.get(title), 3), number(tonight.get(title), 3))
        for title in dict.fromkeys((*before, *tonight))
    ]


def _write_series(
    path: Path,
    nights: Sequence[RunDir],
    known: Sequence[Known],
    figures: Sequence[Mapping[str, float]],
    judge: str,
) -> None:
    versions: list[float] = []
    rows = []
    for night, answers in zip(nights, known, strict=True):
        dataset = load_dataset(night)
        pairs = dataset.sets.get("preference") if dataset else None
        versions.append(float(dataset.version if dataset else len(versions) + 1))
        row = {
            "run_id": night.run_id,
            "folder": f"../runs/{night.root.name}",
            "version": f"{versions[-1]:g}",
            "pairs": pairs.rows if pairs else "-",
            "new": pairs.rows - pairs.from_parent if pairs else "-",
            "known": f"{answers.right} of {answers.asked}",
            "plan": _plan(night),
        }
        rows.append(row)
    charts, level = [], []
    for title in dict.fromkeys(title for values in figures for title in values):
        ys = [values.get(title, math.nan) for values in figures]
        known_ys = [y for y in ys if math.isfinite(y)]
        if math.isclose(min(known_ys), max(known_ys), abs_tol=1e-9):
            value, nights_of = number(known_ys[0], 3), str(len(known_ys))
            level.append({"figure": title, "value": value, "nights": nights_of})
        else:
            line = Line(title, ys, "c-main")
            charts.append((title, line_chart(title, versions, [line], "version", smoothed=False)))
    page = render(
        "nights.html.jinja",
        folder=Path(__file__).parent,
        name=str(nights[-1].info().get("series")),
        nights=rows,
        charts=charts,
        level=Table(level, "Figures that are the same in every night that has them"),
        judge=f"Judge: {judge}",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _plan(run: RunDir) -> str:
    return run.info().get("plan") or ""


def known_answers(run: RunDir) -> Known:
    """Known answers of the shipped canaries; an unreadable verdict is a wrong one."""
    rows = [
        row
        for folder in stage_folders(run.root, PREFERENCE, CANARY)
        for row in stage_rows(run.root, folder)
        if row.canary == "known" and row.expected is not None and row.status in ("ok", "unparsed")
    ]
    right = sum(
        r.prob_first is not None and (r.prob_first - 0.5) * (r.expected - 0.5) > 0 for r in rows
    )
    return Known(right, len(rows))


def _rows(entries: dict[str, tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(name, *values) for name, values in entries.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *([escape_markdown(str(c)) for c in row] for row in rows)]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
