"""A night beside the one before it, and the series of all nights, as Markdown pages.

In:  the nights of a recipe, oldest first
Out: night.md in the last night's folder; outputs/nights/RECIPE.md

The judge is watched by the known answers that it finds: questions of one canary file, asked every
night. The alarm is Fisher's exact test of tonight's answers against those of all nights before, and
the page states which drop it would miss.

Does not: tell a judge that got worse from canaries that were asked under other principles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.dataset import load_dataset
from pipeline.data.markdown import escape_markdown
from pipeline.report import headline_numbers
from pipeline.run.compare import compare_runs
from pipeline.store import RunDir
from pipeline.store.files import write_text
from pipeline.store.inventory import update_inventory
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import CANARY, PREFERENCE, stage_folders

ALPHA = 0.001
"""Share of nights with a false alarm: at most one in 1,000, since a team reads it every night."""
POWER = 0.8


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
        f"a drop to {least:.0%} would be noticed with a probability of {POWER:.0%}"
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
    lines = [f"# {run.run_id}", "", run.info().get("plan") or "", "", f"Judge: {judge}", ""]
    summary = [judge] if raised else []
    if earlier:
        diff = compare_runs(earlier[-1], run)
        lines += [f"Against {diff.old}:", "", "```", diff.constitution.text(), "```", ""]
        lines += _table(("setting", "before", "tonight"), _rows(diff.settings))
        lines += _table(("figure", "before", "tonight"), _rows(diff.figures))
        labels = [(n, f.compared, f.relabeled, f.flipped) for n, f in diff.labels.items()]
        lines += _table(("principle", "labels in both", "relabeled", "flipped"), labels)
        summary.append(f"{len(diff.figures)} figures differ from {diff.old}: {run.root}/night.md")
    page = run.root / "night.md"
    write_text(page, "\n".join(lines))
    update_inventory(run.root, page)
    rows = []
    for night, answers in zip(nights, known, strict=True):
        dataset = load_dataset(night)
        pairs = dataset.sets.get("preference") if dataset else None
        figures = "; ".join(f"{name}: {value}" for name, value in headline_numbers(night))
        version = dataset.version if dataset else "-"
        new = pairs.rows - pairs.from_parent if pairs else "-"
        found = f"{answers.right} of {answers.asked}"
        rows.append((night.run_id, version, pairs.rows if pairs else "-", new, found, figures))
    head = ("night", "version", "pairs", "new", "known answers", "figures")
    name = str(run.info().get("series"))
    series = run.root.parent.parent / "nights" / f"{name}.md"
    series.parent.mkdir(parents=True, exist_ok=True)
    write_text(series, "\n".join([f"# Nights of {name}", "", *_table(head, rows)]))
    return [*summary, f"all nights: {series}"]


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
