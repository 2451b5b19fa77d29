"""Two runs side by side: what went in, what came out, and the labels of what they share.

In:  two run folders
Out: RunDiff
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import load_config
from pipeline.constitution import load_constitution
from pipeline.constitution.diff import ConstitutionDiff, diff_constitutions
from pipeline.report import headline_numbers
from pipeline.store import RunDir
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import JUDGE, PREFERENCE, PROMPTS, stage_folders

NONE = "-"
"""The text of a value that one of the runs does not have."""
NAMES = ("name", "description")
"""Settings that change no row."""


@dataclass(frozen=True)
class Overlap:
    """Numbers of rows in both runs and in one alone."""

    both: int
    only_old: int
    only_new: int


@dataclass(frozen=True)
class Flips:
    """Labels that a judge of both runs gave to one comparison under one principle."""

    compared: int
    relabeled: int
    """Of these, with another label."""
    flipped: int
    """Of these, that prefer the other response now."""


@dataclass(frozen=True)
class RunDiff:
    """What differs between two runs."""

    old: str
    new: str
    settings: dict[str, tuple[str, str]]
    """Settings of the recipes that differ, by path."""
    constitution: ConstitutionDiff
    files: list[str]
    """Templates and labeling files that differ."""
    prompts: Overlap
    labels: dict[str, Flips]
    """By principle; only principles under which both runs compared the same two responses."""
    figures: dict[str, tuple[str, str]]
    """Main figures that differ."""


def compare_runs(old: RunDir, new: RunDir) -> RunDiff:
    """Compare two runs.

    Raises:
        UserError: a recipe or a constitution is damaged, or a shard is.
    """
    runs = (old, new)
    copies = differing(*(run.info().get("files", {}) for run in runs))
    first, second = ({row.row_id for row in stage_rows(run.root, PROMPTS)} for run in runs)
    return RunDiff(
        old=old.run_id,
        new=new.run_id,
        settings=differing(*(dict(leaves(_settings(run))) for run in runs)),
        constitution=diff_constitutions(*(load_constitution(run.constitution) for run in runs)),
        files=[name for name in copies if name.startswith(("templates/", "labeling/"))],
        prompts=Overlap(len(first & second), len(first - second), len(second - first)),
        labels=flips(_labels(old), _labels(new)),
        figures=differing(*(dict(headline_numbers(run)) for run in runs)),
    )


Labels = Mapping[tuple[str, ...], float]
"""P(first response preferred) by the judge's folder, the two responses, by hash, and the principle.
"""


def flips(old: Labels, new: Labels) -> dict[str, Flips]:
    """How the labels of shared comparisons changed, by principle."""
    shared: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key in old.keys() & new.keys():
        shared[key[-1]].append((old[key], new[key]))
    return {
        name: Flips(
            compared=len(pairs),
            relabeled=sum(before != after for before, after in pairs),
            flipped=sum((before - 0.5) * (after - 0.5) < 0 for before, after in pairs),
        )
        for name, pairs in sorted(shared.items())
    }


def _labels(run: RunDir) -> Labels:
    return {
        (folder, row.first_id, row.second_id, row.principle_id): row.prob_first
        for folder in stage_folders(run.root, PREFERENCE, JUDGE)
        for row in stage_rows(run.root, folder)
        if row.status == "ok" and row.prob_first is not None
    }


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The entries whose values differ, in order, as text; `-` where one side has none."""
    return {
        key: (str(old.get(key, NONE)), str(new.get(key, NONE)))
        for key in dict.fromkeys((*old, *new))
        if key not in old or key not in new or old[key] != new[key]
    }


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything in nested mappings but mappings; lists are whole."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        yield from leaves(inner, f"{path}.{key}" if path else str(key))


def _settings(run: RunDir) -> dict[str, Any]:
    settings = load_config(run.recipe).model_dump(mode="json")
    return {key: value for key, value in settings.items() if key not in NAMES}
