"""The commands `judge-eval` and `judge-tune`: a judge, and ways of asking it, on labeled pairs.

Imports wait inside the command, so that `rlaif --help` stays quick.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pipeline.cli.terminal import AsJson, print_json, say
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pipeline.judge_eval.fit import Kind
    from pipeline.judge_eval.metrics import EvaluationMetrics
    from pipeline.sources.config import AnySource
    from pipeline.store import RunDir

FROM_CHECKS = typer.Option(
    metavar="RUN", help="Compare texts of this run where a check knows the better one."
)
SECTIONS = ("Position", "Length", "Confidence", "Calibration")
"""Tables of the report that the terminal shows, after the one of accuracy."""


def judge_eval(
    recipe: Annotated[Path, typer.Option(help="Recipe whose judge is measured.")],
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Labeled pairs.")] = None,
    sources: Annotated[Path | None, typer.Option(help="Source list instead of FILE.")] = None,
    type: Annotated[
        str | None, typer.Option(help="Type of FILE: pairs (default), hh-rlhf or hhh.")
    ] = None,
    from_checks: Annotated[str | None, FROM_CHECKS] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most pairs, drawn by seed.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder below outputs/judge-eval.")] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="Fit a calibration and write it here.")
    ] = None,
    calibration_kind: Annotated[
        str, typer.Option(help="Map that --calibrate fits: temperature or isotonic.")
    ] = "temperature",
    known_labels: Annotated[
        Path | None, typer.Option(help="Write the labels here, for pair.max_error of a recipe.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replaces the recipe's seed.")] = None,
    json: AsJson = False,
) -> None:
    """Measure how far a recipe's judge can be trusted, on pairs that people have labeled."""
    from pipeline.cli.run import complete
    from pipeline.cli.tables import console, number_table
    from pipeline.judge_eval.report.tables import accuracy_table, all_tables, headline
    from pipeline.judge_eval.request import Request
    from pipeline.judge_eval.run import prepare_evaluation, run_evaluation
    from pipeline.progress import current_progress

    if calibration_kind not in ("temperature", "isotonic"):
        raise ConfigError(
            f"--calibration-kind is '{calibration_kind}', but it is temperature or isotonic"
        )
    request = Request(
        recipe=recipe,
        sources=() if from_checks else sources_of(file, sources, type),
        checked=checked_run(from_checks, file or sources or type),
        limit=limit,
        name=name,
        seed=seed,
        calibrate=calibrate,
        kind=cast("Kind", calibration_kind),
        known_labels=known_labels,
    )
    evaluation = prepare_evaluation(request)
    say(f"judge-eval {evaluation.run.run_id}: {len(evaluation.items)} labeled pairs")

    async def job() -> "EvaluationMetrics":
        # Not outside: the progress is current only while `complete` runs.
        return await run_evaluation(evaluation, current_progress())

    metrics = complete(job(), lambda: "stopped; the same command continues from here")
    if json:
        print_json({**metrics.as_json(), "report": evaluation.run.root / "report.html"})
        return
    out = console()
    sections = (table for table in all_tables(metrics) if table.title in SECTIONS)
    for table in (accuracy_table(metrics), *sections):
        rows = [[str(cell) for cell in row.values()] for row in table.rows]
        out.print(number_table(table.columns, rows, title=table.title, lines=False))
    summary = headline(metrics)
    for line in (summary.lead, summary.detail):
        out.print(line, markup=False, highlight=False)
    say(f"report: {evaluation.run.root / 'report.html'}")
    if calibrate is not None:
        say(f"calibration: {calibrate}")
        if metrics.scale:
            say(f"scores have a scale instead: set the labeler's `scale` to {metrics.scale:.4g}")
    if known_labels is not None:
        say(f"known labels: {known_labels}")


def judge_tune(
    recipe: Annotated[Path, typer.Argument(help="Recipe whose judge is asked.")],
    pairs: Annotated[Path | None, typer.Argument(help="Labeled pairs.")] = None,
    type: Annotated[
        str | None, typer.Option(help="Type of PAIRS: pairs (default), hh-rlhf or hhh.")
    ] = None,
    from_checks: Annotated[str | None, FROM_CHECKS] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most pairs, drawn by seed.")] = None,
    seed: Annotated[int | None, typer.Option(help="Replaces the recipe's seed.")] = None,
    json: AsJson = False,
) -> None:
    """Try ways of asking a recipe's judge on labeled pairs, and say which is right most often."""
    from pipeline.cli.run import complete
    from pipeline.cli.tables import console, number_table
    from pipeline.judge_eval.request import Request
    from pipeline.judge_eval.tune import best_of, try_ways, tune_rows, verdict
    from pipeline.progress import current_progress

    request = Request(
        recipe=recipe,
        sources=() if from_checks else sources_of(pairs, None, type),
        checked=checked_run(from_checks, pairs or type),
        limit=limit,
        seed=seed,
    )

    async def job() -> Any:
        return await try_ways(request, current_progress(), say)

    tried = complete(job(), lambda: "stopped; the same command continues from here")
    if json:
        best = best_of(tried)
        values = {"best": best.name, "changes": best.changes, "fit": best.beats_chance}
        print_json({**values, "ways": [asdict(each) for each in tried]})
        return
    out = console()
    head, *rows = tune_rows(tried)
    out.print(number_table(head, rows, lines=False))
    for line in verdict(best_of(tried)):
        out.print(line, markup=False, highlight=False)


def checked_run(name: str | None, other: object) -> "RunDir | None":
    """The run of --from-checks, if it is given.

    Args:
        other: a file, source list or type that is given as well.

    Raises:
        ConfigError: the labels would come from two places.
        StoreError: there is no such run.
    """
    from pipeline.run.start import find_run

    if name is None:
        return None
    if other is not None:
        raise ConfigError(
            f"the labels come from one place, but --from-checks and {other} are both given; name "
            "one"
        )
    return find_run(name)


def sources_of(
    file: Path | None, source_list: Path | None, label_type: str | None
) -> tuple["AnySource", ...]:
    """The label sources: one file of a type, or those of a list.

    Raises:
        ConfigError: neither or both are given, or the type is unknown.
        DataError: the file does not exist.
    """
    from pipeline.sources.config import load_sources
    from pipeline.sources.importing import SOURCE_TYPES

    if source_list is not None:
        if file is not None:
            raise ConfigError(
                "the labels come from one place, but FILE and --sources are both given; name one"
            )
        if label_type is not None:
            raise ConfigError("--type is for FILE; a source list gives the type of each source")
        return load_sources(source_list).sources
    if file is None:
        raise ConfigError(
            "no labels are given; name a FILE of labeled pairs (`--help` lists other sources)"
        )
    kind = label_type or "pairs"
    types = {n: t.config for n, t in SOURCE_TYPES.items() if t.one_file_of_pairs}
    if kind not in types:
        raise ConfigError(f"--type is '{kind}', but it is one of {', '.join(types)}")
    if not file.is_file():
        raise DataError(f"label file {file} does not exist; check the path")
    name = file.name.removesuffix(".gz").rpartition(".")[0] or file.name
    return (types[kind](name=name, path=file),)
