"""The command `diff`: what differs between two runs, in what went in and in what came out."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from pipeline.cli.tables import console, number_table
from pipeline.config import load_config
from pipeline.constitution import load_constitution
from pipeline.constitution.diff import diff_constitutions
from pipeline.report import headline_numbers
from pipeline.run.start import find_run
from pipeline.store import RunDir
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import PROMPTS

NONE = "-"
"""Stands for a value that one of the runs does not have."""
NAMES = ("name", "description")
"""Settings that change no row."""


def print_diff(old: str, new: str) -> None:
    """Print the settings, principles, prompts and figures in which two runs differ.

    Raises:
        UserError: there is no such run, or one is damaged.
    """
    runs = (find_run(old), find_run(new))
    heads = [run.run_id for run in runs]
    settings = differing(*(dict(leaves(_settings(run))) for run in runs))
    _print("setting", heads, settings, "the recipes are equal")
    constitutions = [load_constitution(run.constitution) for run in runs]
    console().print(diff_constitutions(*constitutions).text(), markup=False)
    copies = differing(*(run.info().get("files", {}) for run in runs))
    for name in copies:
        if name.startswith(("templates/", "labeling/")):
            console().print(f"{name} differs", markup=False)
    first, second = ({row.row_id for row in stage_rows(run.root, PROMPTS)} for run in runs)
    console().print(
        f"prompts: {len(first & second):,} in both, {len(first - second):,} only in {heads[0]}, "
        f"{len(second - first):,} only in {heads[1]}",
        markup=False,
    )
    figures = differing(*(dict(headline_numbers(run)) for run in runs))
    _print("figure", heads, figures, "the main figures are equal")


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


def _print(
    noun: str, heads: list[str], entries: Mapping[str, tuple[str, str]], when_empty: str
) -> None:
    rows = ((name, *values) for name, values in entries.items())
    table: Table | str = number_table((noun, *heads), rows) if entries else when_empty
    console().print(table)
