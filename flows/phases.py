"""A flow for each phase of a run; `pipeline.run.phases` says what a phase does."""

from collections.abc import Awaitable, Callable, Sequence

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.driver import PrefectDriver
from pipeline.config import load_config
from pipeline.progress import LineProgress, MultiProgress, current_progress
from pipeline.run.context import RunContext, open_context
from pipeline.run.driver import PLAIN
from pipeline.run.phases import PHASES, Phase
from pipeline.run.start import find_run
from pipeline.run.titles import is_one_step, phase_title
from pipeline.store import RunDir

LOG_EVERY_S = 30.0
"""Seconds between two lines of progress in a flow run's log."""


def open_phase(run: str) -> RunContext:
    """The context of a run, whose progress also goes to the flow run's log.

    Args:
        run: id or folder of the run.
    """
    log = LineProgress(get_run_logger().info, every_s=LOG_EVERY_S)
    return open_context(find_run(run), MultiProgress(current_progress(), log))


def phase_flow(name: str, phase: Phase) -> Callable[[str], Awaitable[None]]:
    """The flow of one phase; the phase's docstring becomes its description in Prefect."""

    def title() -> str:
        return phase_title(load_config(find_run(flow_run.parameters["run"]).recipe), name)

    @flow(name=f"{name}-phase", flow_run_name=title, description=phase.__doc__)
    async def run_phase(run: str) -> None:
        """Run one phase.

        Args:
            run: id or folder of a run whose earlier phases are finished.
        """
        ctx = open_phase(run)
        await phase(ctx, PrefectDriver(ctx.run))

    return run_phase


def chosen(phases: Sequence[str] | None) -> list[str]:
    """The names of the phases to run, in order; all by default."""
    return [name for name in PHASES if phases is None or name in phases]


PHASE_FLOWS = {name: phase_flow(name, phase) for name, phase in PHASES.items()}
"""The flows of the phases before the report, by name, in order."""


async def run_phase(name: str, run: RunDir) -> None:
    """Run a phase as a sub-flow of the current flow run. A phase of one step is a task of it: eight
    requests fewer, and nothing less to see.
    """
    ctx = open_phase(str(run.root))
    if is_one_step(ctx.config, name):
        title = phase_title(ctx.config, name)
        await PrefectDriver(run).step(title, lambda: PHASES[name](ctx, PLAIN))
    else:
        await PHASE_FLOWS[name](str(run.root))
