"""The command that measures a judge on labelled pairs: `judge-eval`."""

import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table

from pipeline.cli.run import complete
from pipeline.errors import ConfigError, DataError
from pipeline.judge_eval.report.tables import Grid, accuracy_grid, grids, headline
from pipeline.judge_eval.request import Request
from pipeline.judge_eval.run import Evaluation, prepare_evaluation, run_evaluation
from pipeline.progress import current_progress
from pipeline.sources.config import (
    AnySource,
    OptionsSource,
    PairsSource,
    TranscriptsSource,
    load_sources,
)

TYPES: dict[str, type[PairsSource] | type[TranscriptsSource] | type[OptionsSource]] = {
    "pairs": PairsSource,
    "hh-rlhf": TranscriptsSource,
    "hhh": OptionsSource,
}
KINDS = ("temperature", "isotonic")
SHOWN = ("Position", "Length", "Confidence", "Calibration")
WIDTH = 150


def judge_eval(
    file: Path | None,
    source_list: Path | None,
    label_type: str | None,
    *,
    calibration_kind: str,
    **options: Any,
) -> None:
    """Measure the judge, print a compact table and where the report is.

    Raises:
        UserError: the first thing to correct.
    """
    if calibration_kind not in KINDS:
        raise ConfigError(
            f"--calibration-kind is '{calibration_kind}', but it is one of {', '.join(KINDS)}"
        )
    request = Request(
        sources=sources_of(file, source_list, label_type), kind=calibration_kind, **options
    )
    evaluation = prepare_evaluation(request)
    typer.echo(f"judge-eval {evaluation.run.run_id}: {len(evaluation.items)} labelled pairs")
    metrics = complete(_run(evaluation), lambda: "stopped; the same command goes on from here")
    _print(metrics)
    typer.echo(f"report: {evaluation.run.root / 'report.html'}")
    if request.calibrate is not None:
        typer.echo(f"calibration: {request.calibrate}")


def sources_of(
    file: Path | None, source_list: Path | None, label_type: str | None
) -> tuple[AnySource, ...]:
    """The label sources: one file of a type, or those of a list.

    Raises:
        ConfigError: none or both are given, or the type is not known.
    """
    if (file is None) == (source_list is None):
        raise ConfigError(
            "the labels come from one place, but "
            f"{'FILE and --sources are both given' if file else 'none is given'}; name FILE or --sources"
        )
    if source_list is not None:
        if label_type is not None:
            raise ConfigError(
                "--type is for FILE; a source list says the type of each source itself"
            )
        return load_sources(source_list).sources
    assert file is not None
    kind = label_type or "pairs"
    if kind not in TYPES:
        raise ConfigError(f"--type is '{kind}', but it is one of {', '.join(TYPES)}")
    if not file.is_file():
        raise DataError(f"label file {file} does not exist; check the path")
    name = file.name.removesuffix(".gz").rpartition(".")[0] or file.name
    return (TYPES[kind](name=name, path=file),)


async def _run(evaluation: Evaluation) -> dict[str, Any]:
    return await run_evaluation(evaluation, current_progress())


def _print(metrics: dict[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for grid in [accuracy_grid(metrics), *(g for g in grids(metrics) if g.title in SHOWN)]:
        console.print(_table(grid))
    for line in headline(metrics):
        console.print(line, markup=False, highlight=False)


def _table(grid: Grid) -> Table:
    columns = [Column(name, justify="right" if i else "left") for i, name in enumerate(grid.names)]
    table = Table(*columns, title=grid.title, title_justify="left", box=None, pad_edge=False)
    for row in grid.rows:
        table.add_row(*row)
    return table
