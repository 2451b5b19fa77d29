"""The command `rlaif`: thin doors to what the package does.

Exit codes: 0 done; 1 a run stopped early, a training failed, or `verify` found problems;
2 something that the person can correct, said in one line; 3 the labels failed their audit.
Anything else is a bug and keeps its traceback.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.constitution import constitution_app
from pipeline.cli.labels import labels_app
from pipeline.errors import EXIT_AUDIT, PipelineError, TrainingError

app = typer.Typer(
    name="rlaif",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A constitution in, a judged preference set and a better policy out.",
)

app.add_typer(constitution_app, name="constitution")
app.add_typer(labels_app, name="labels")

Recipe = Annotated[Path, typer.Argument(help="A recipe, such as flows/configs/demo.yaml.")]
Run = Annotated[str, typer.Argument(help="Id or folder of a run; see `rlaif runs`.")]
NoPrefect = Annotated[bool, typer.Option("--no-prefect", help="Without server and records.")]
RunId = Annotated[str | None, typer.Option(help="Name of the run folder.")]


@app.command()
def run(recipe: Recipe, run_id: RunId = None, no_prefect: NoPrefect = False) -> None:
    """Run a recipe from its prompts to its report."""
    from pipeline.cli.run import run_recipe

    run_recipe(recipe, run_id, with_prefect=not no_prefect)


@app.command()
def resume(run: Run, no_prefect: NoPrefect = False) -> None:
    """Go on with a run that was stopped; what is finished is not made again."""
    from pipeline.cli.constitution import resume_impact
    from pipeline.cli.run import resume_run
    from pipeline.run.start import find_run

    found = find_run(run)
    if found.info().get("impact_of"):
        resume_impact(found)
    else:
        resume_run(run, with_prefect=not no_prefect)


@app.command()
def nightly(recipe: Recipe, no_prefect: NoPrefect = False) -> None:
    """Add a data set version from prompts that no earlier version has, and train on it."""
    from pipeline.cli.run import run_nightly

    run_nightly(recipe, with_prefect=not no_prefect)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Recipes, constitutions, templates.")],
) -> None:
    """Check recipes, constitutions and templates without running anything."""
    from pipeline.cli.inspect import check_file

    for path in files:
        check_file(path)


@app.command()
def trace(
    row_id: Annotated[str, typer.Argument(help="Id of any row, such as a pair's.")],
    run: Annotated[str | None, typer.Option(help="Look in this run only.")] = None,
) -> None:
    """Print where a row comes from: prompt, responses, critique, principle, judge, seeds."""
    from pipeline.cli.inspect import print_trace

    print_trace(row_id, run)


@app.command()
def verify(run: Run) -> None:
    """Check every file of a run against its hash; exit code 1 when something is wrong."""
    from pipeline.cli.inspect import print_problems

    raise typer.Exit(1 if print_problems(run) else 0)


@app.command()
def audit(run: Run) -> None:
    """Print what the labels of a run are worth; exit code 3 when they fail their thresholds."""
    from pipeline.cli.audit import print_audit

    raise typer.Exit(EXIT_AUDIT if print_audit(run) else 0)


@app.command()
def judge_eval(
    recipe: Annotated[Path, typer.Option(help="Recipe whose judge is measured.")],
    file: Annotated[Path | None, typer.Argument(help="File with labelled pairs.")] = None,
    sources: Annotated[Path | None, typer.Option(help="Source list instead of FILE.")] = None,
    type: Annotated[
        str | None, typer.Option(help="Of FILE: pairs (default), hh-rlhf or hhh.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many pairs, by seed.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Folder below outputs/judge-eval.")] = None,
    calibrate: Annotated[Path | None, typer.Option(help="Write a calibration here.")] = None,
    calibration_kind: Annotated[str, typer.Option(help="temperature or isotonic.")] = "temperature",
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
) -> None:
    """Say how far a recipe's judge can be trusted, by pairs that people have labelled."""
    from pipeline.cli import judge_eval as measure

    measure.judge_eval(
        file,
        sources,
        type,
        recipe=recipe,
        limit=limit,
        name=name,
        calibrate=calibrate,
        calibration_kind=calibration_kind,
        seed=seed,
    )


@app.command()
def report(run: Run) -> None:
    """Write the report of a run again, finished or not."""
    from pipeline.cli.run import print_report

    print_report(run)


@app.command()
def runs() -> None:
    """List the runs."""
    from pipeline.cli.inspect import print_runs

    print_runs()


@app.command()
def ui() -> None:
    """Start the Prefect server if it is not running, and print where its pages are."""
    from pipeline.prefect_server import ensure_server

    typer.echo(f"Prefect runs at {ensure_server(typer.echo).url}; `rlaif stop` ends it")


@app.command()
def stop() -> None:
    """End the Prefect server that was started here."""
    from pipeline.prefect_server import stop_server

    ended = stop_server()
    typer.echo(f"ended the server on port {ended.port}" if ended else "no server was running")


@app.command()
def env() -> None:
    """Print the settings that the `prefect` command needs: eval "$(rlaif env)"."""
    import shlex

    from pipeline.prefect_server import ensure_server, environment

    server = ensure_server(lambda text: typer.echo(text, err=True))
    for name, value in environment(server.port).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def main() -> None:
    """Run the command; a mistake of the user is one line and no traceback."""
    try:
        app()
    except TrainingError as error:
        # Carries the end of the training's log, which is worth its lines.
        typer.echo(f"rlaif: {error}", err=True)
        sys.exit(error.exit_code)
    except PipelineError as error:
        typer.echo(f"rlaif: {' '.join(str(error).split())}", err=True)
        sys.exit(error.exit_code)
