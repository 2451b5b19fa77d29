"""The commands that run something: `run`, `resume`, `nightly`, `report`.

Under Prefect the flow runs in this process too, so progress bars, Ctrl-C and exit codes are as
without it; the server is another process and keeps running.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import typer

from pipeline.errors import StoreError
from pipeline.progress import current_progress, duration, progress_context, progress_for_stdout
from pipeline.run.start import check_recipe, find_run, runs_root
from pipeline.store import RunDir, new_run_id

T = TypeVar("T")
EXIT_INTERRUPTED = 130


def run_recipe(recipe: Path, run_id: str | None, *, with_prefect: bool) -> None:
    """Check the recipe, run it, print where the report is and the figures that matter."""
    from pipeline.config import load_config

    check_recipe(recipe)
    name = run_id or new_run_id(load_config(recipe).name)
    _run(str(recipe), name, resume=False, with_prefect=with_prefect)


def resume_run(run: str, *, with_prefect: bool) -> None:
    """Continue a run from its folder, then print what `run_recipe` prints."""
    folder = _refuse_evaluation(find_run(run))
    recipe = str(folder.info().get("recipe") or folder.recipe)
    _run(recipe, str(folder.root), resume=True, with_prefect=with_prefect)


def run_nightly(recipe: Path, *, with_prefect: bool) -> None:
    """Add a data set version if there are new prompts, and print what was done."""
    check_recipe(recipe)
    job: Callable[[str], Coroutine[Any, Any, object]]
    if with_prefect:
        use_prefect()
        from flows.nightly import nightly

        job = nightly
    else:
        from pipeline.run.nightly import run_nightly as nightly_without_prefect

        job = nightly_without_prefect
    typer.echo(complete(job(str(recipe)), lambda: "stopped; the next night continues from here"))


def print_report(run: str) -> None:
    """Write the report again and print where it is."""
    from pipeline.report import write_report

    folder = _refuse_evaluation(find_run(run))
    write_report(folder)
    _print_end(folder)


def use_prefect() -> None:
    """Start or find the server and point this process at it, before Prefect is imported."""
    from pipeline.prefect_server import ensure_server, environment

    server = ensure_server(typer.echo)
    # The terminal shows progress; Prefect's own lines go to its pages.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.update(environment(server.port))
    typer.echo(f"watch this run at {server.url}")


def complete(work: Coroutine[Any, Any, T], when_stopped: Callable[[], str]) -> T:
    """Run a coroutine with progress; Ctrl-C and SIGTERM cancel it, so that models are closed.

    Args:
        when_stopped: makes the line that is printed then; the process exits with code 130.
    """

    async def supervised() -> T:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        with progress_context(progress_for_stdout()):
            return asyncio.run(supervised())
    except BaseException as error:
        if not _was_stopped(error):
            raise
    typer.echo(when_stopped(), err=True)
    sys.exit(EXIT_INTERRUPTED)


def _run(recipe: str, run_id: str, *, resume: bool, with_prefect: bool) -> None:
    started = time.monotonic()
    job: Callable[[str, str, bool], Coroutine[Any, Any, object]] = _without_prefect
    if with_prefect:
        use_prefect()
        from flows.end_to_end import end_to_end

        job = end_to_end
    typer.echo(f"run {Path(run_id).name}")
    complete(job(recipe, run_id, resume), lambda: _how_to_continue(run_id))
    _print_end(find_run(run_id))
    typer.echo(f"done in {duration(time.monotonic() - started)}")


def _refuse_evaluation(run: RunDir) -> RunDir:
    """The run, unless it evaluates a judge: its folder must not get a run of the whole recipe."""
    if run.info().get("evaluation"):
        raise StoreError(
            f"{run.root} is the evaluation of a judge, not a run; repeat its `rlaif judge-eval` "
            "command to continue it and write its report"
        )
    return run


def _how_to_continue(run_id: str) -> str:
    if not (runs_root() / run_id / "run.json").exists():
        return "stopped before the run began; nothing was written"
    return f"stopped; `rlaif resume {Path(run_id).name}` continues from here"


def _was_stopped(error: BaseException) -> bool:
    """True for Ctrl-C and SIGTERM; Prefect has its own exception for the latter."""
    return (
        isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))
        or type(error).__name__ == "TerminationSignal"
    )


async def _without_prefect(recipe: str, run_id: str, resume: bool) -> Path:
    from pipeline.run.begin import begin_run
    from pipeline.run.context import open_context
    from pipeline.run.finish import run_all
    from pipeline.store import RunLock

    run = begin_run(recipe, run_id, resume)
    progress = current_progress()
    with RunLock(run.root):
        return await run_all(
            open_context(run, progress), on_line=lambda line: progress.training("", line)
        )


def _print_end(run: RunDir) -> None:
    from pipeline.report import headline_numbers

    for name, value in headline_numbers(run):
        typer.echo(f"{name:<28} {value}")
    typer.echo(f"report: {run.report}")
