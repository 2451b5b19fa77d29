"""The command `diff`: what differs between two runs, in what went in and in what came out."""

from collections.abc import Mapping
from dataclasses import asdict

from rich.table import Table

from pipeline.cli.tables import console, number_table
from pipeline.cli.terminal import print_json
from pipeline.run.compare import compare_runs
from pipeline.run.start import find_run


def print_diff(old: str, new: str, as_json: bool = False) -> None:
    """Print the settings, principles, prompts, labels and figures in which two runs differ.

    Raises:
        UserError: there is no such run, or one is damaged.
    """
    diff = compare_runs(find_run(old), find_run(new))
    if as_json:
        print_json(asdict(diff))
        return
    heads = [diff.old, diff.new]
    _print("setting", heads, diff.settings, "the recipes are equal")
    console().print(diff.constitution.text(), markup=False)
    for name in diff.files:
        console().print(f"{name} differs", markup=False)
    prompts = diff.prompts
    console().print(
        f"prompts: {prompts.both:,} in both, {prompts.only_old:,} only in {heads[0]}, "
        f"{prompts.only_new:,} only in {heads[1]}",
        markup=False,
    )
    if any(each.relabeled for each in diff.labels.values()):
        rows = (
            (name, *(f"{n:,}" for n in (each.compared, each.relabeled, each.flipped)))
            for name, each in diff.labels.items()
        )
        console().print(number_table(("principle", "in both", "relabeled", "flipped"), rows))
    _print("figure", heads, diff.figures, "the main figures are equal")


def _print(
    noun: str, heads: list[str], entries: Mapping[str, tuple[str, str]], when_empty: str
) -> None:
    rows = ((name, *values) for name, values in entries.items())
    table: Table | str = number_table((noun, *heads), rows) if entries else when_empty
    console().print(table)
