"""The commands that run something: `run`, `sweep`, `resume`, `nightly`, `serve`, `report`.

Under Prefect the flow runs in this process too, so progress bars, Ctrl-C and exit codes are as
without it; the server is another process and keeps running.
"""

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cli.terminal import FOR_PROGRAMS, say
from pipeline.config.paths import shown_path
from pipeline.errors import ConfigError, MachineError, StoreError, UserError
from pipeline.progress import LineProgress, duration, progress_context, progress_for_stdout
from pipeline.run.nightly import night_pages, plan_nightly, take_run
from pipeline.run.nightly import run_nightly as run_nightly_plan
from pipeline.run.rounds import run_rounds
from pipeline.run.start import change_budget, check_recipe, find_run, start_run
from pipeline.store import RunDir

T = TypeVar("T")
EXIT_INTERRUPTED = 130


def run_recipe(
    recipe: Path, run_id: str | None, overrides: Sequence[str], *, with_prefect: bool
) -> None:
    """Check the recipe, run it, print where the report is and the figures that matter."""
    checked = check_recipe(recipe, overrides=overrides)
    if checked.config.rounds > 1 and (run_id or overrides):
        raise ConfigError(
            "each of several rounds is a run of its own, from the recipe's file as it is; write "
            "the values into the recipe and leave out --set and --run-id, or set `rounds: 1`"
        )
    if with_prefect:
        use_prefect()
    if checked.config.rounds > 1:
        take = partial(_run, str(recipe), with_prefect=with_prefect)
        run_rounds(recipe, checked.config, take, say)
        return
    run = start_run(checked, run_id=run_id)
    _run(str(recipe), run, with_prefect=with_prefect)


def resume_run(name: str, overrides: Sequence[str], *, with_prefect: bool) -> None:
    """Continue a run that was stopped, with another budget if there are overrides, and print its
    figures.
    """
    run = change_budget(_refuse_evaluation(find_run(name)), overrides)
    if with_prefect:
        use_prefect()
    _run(str(run.info().get("recipe") or run.recipe), run, with_prefect=with_prefect)
    for line in night_pages(run):
        say(line)


def sweep_recipe(
    recipe: Path, over: Sequence[str], name: str | None, *, with_prefect: bool
) -> None:
    """Run every point of a sweep that is not finished, and write the page that compares them."""
    from pipeline.sweep.page import write_sweep
    from pipeline.sweep.run import plan_sweep, run_sweep, sweep_folder

    plan = plan_sweep(recipe, over)
    folder = sweep_folder(plan, name)
    if with_prefect:
        use_prefect()
    for each in plan:
        done = ", finished before" if each.finished else ""
        say(f"point {each.point.title}: run {each.run.root.name}{done}")
    problems = run_sweep(plan, lambda run: _run(str(recipe), run, with_prefect=with_prefect))
    say(f"sweep: {write_sweep(folder, plan, problems)}")


def run_nightly(recipe: Path, *, with_prefect: bool) -> None:
    """Add a data set version if there are new prompts; says so if there are none."""
    plan = plan_nightly(str(recipe))
    say(plan.message)
    if plan.run is None:
        return
    if with_prefect:
        use_prefect()
        from flows.nightly import nightly

        job: Coroutine[Any, Any, object] = nightly(str(recipe), plan.run.run_id)
    else:
        job = run_nightly_plan(plan)
    _complete(job, plan.run, "stopped; the next night continues from here")


def serve_flows() -> None:
    """Serve the deployments of prefect.yaml until Ctrl-C.

    Raises:
        UserError: the server cannot start, or prefect.yaml cannot be used.
    """
    from pipeline.prefect_server import ensure_server, join_server

    server = ensure_server(say)
    with _light_imports():
        join_server(server)
    from flows.serve import serve_deployments

    say(f"start a deployment at {server.url}/deployments")
    with suppress(KeyboardInterrupt):
        asyncio.run(serve_deployments(say))


def print_report(run: str) -> None:
    """Write the report again and print where it is."""
    from pipeline.report import write_report

    folder = _refuse_evaluation(find_run(run))
    write_report(folder)
    _print_end(folder)


def use_prefect() -> None:
    """Start or find the server and point this process at it, before Prefect is imported.

    Raises:
        MachineError: the server cannot start; names --no-prefect.
    """
    from pipeline.prefect_server import ensure_server, join_server
    from pipeline.prefect_server.settle import settle_flow_runs

    try:
        server = ensure_server(say)
    except (UserError, OSError) as error:
        cause = error.__cause__ if isinstance(error, StoreError) else error
        problem = str(error)
        if isinstance(cause, OSError):
            path = shown_path(str(cause.filename))
            problem = f"the Prefect server cannot start ({path}: {cause.strerror}); correct that"
        raise MachineError(f"{problem}, or add --no-prefect to run without its records") from error
    settle_flow_runs(server)
    with _light_imports():
        join_server(server)
    say(f"watch this run at {server.url}")


@contextmanager
def _light_imports() -> Iterator[None]:
    """Within it, Prefect is imported in half the time: without looking for garbage among its
    classes, and without pandas, which it imports to hash data frames for a cache that is off.
    """
    absent = "pandas" not in sys.modules
    if absent:
        sys.modules["pandas"] = None  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        if absent:
            del sys.modules["pandas"]


def complete(work: Coroutine[Any, Any, T], when_stopped: Callable[[], str]) -> T:
    """Run a coroutine with progress; Ctrl-C and SIGTERM cancel it, so that models are closed.

    Args:
        when_stopped: makes the line that is printed then; the process exits with code 130.
    """

    async def supervised() -> T:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await task
        except Exception as error:
            if task.cancelling():  # and then something failed on the way out
                raise asyncio.CancelledError from error
            raise

    try:
        show = LineProgress(say) if FOR_PROGRAMS.get() else progress_for_stdout(say)
        with progress_context(show):
            return asyncio.run(supervised())
    except BaseException as error:
        if not _was_stopped(error):
            raise
    work.close()  # it may not have begun
    say(when_stopped(), err=True)
    sys.exit(EXIT_INTERRUPTED)


def _complete(job: Coroutine[Any, Any, object], run: RunDir, when_stopped: str) -> None:
    """Take a run to its end, without Prefect where its server fails on the way: it is the record of
    the run, which does not need it.
    """
    try:
        complete(job, lambda: when_stopped)
    except Exception as error:
        from pipeline.prefect_server import is_server_failure

        if not is_server_failure(error):
            raise
        from pipeline.prefect_server.outlive import continue_in_place

        continue_in_place(run)


def _run(recipe: str, run: RunDir, *, with_prefect: bool) -> None:
    started = time.monotonic()
    if with_prefect:
        from flows.end_to_end import end_to_end

        job: Coroutine[Any, Any, object] = end_to_end(recipe, str(run.root), resume=True)
    else:
        job = take_run(run)
    say(f"run {run.run_id}")
    _complete(job, run, f"stopped; `rlaif resume {run.run_id}` continues from here")
    _print_end(run)
    say(f"done in {duration(time.monotonic() - started)}")


def _refuse_evaluation(run: RunDir) -> RunDir:
    """The run, unless it evaluates a judge: its folder must not get a run of the whole recipe."""
    if run.info().get("evaluation"):
        raise StoreError(
            f"{run.root} is the evaluation of a judge, not a run; repeat its `rlaif judge-eval` "
            "command to continue it and write its report"
        )
    return run


def _was_stopped(error: BaseException) -> bool:
    """True for Ctrl-C and SIGTERM; Prefect has its own exception for the latter."""
    return (
        isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))
        or type(error).__name__ == "TerminationSignal"
    )


def _print_end(run: RunDir) -> None:
    from pipeline.report import headline_numbers

    for name, value in headline_numbers(run):
        say(f"{name:<28} {value}")
    say(f"report: {run.report}")
