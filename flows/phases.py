"""A flow for each phase of a run; `pipeline.run.phases` says what a phase does."""

from collections.abc import Awaitable, Callable, Sequence

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.driver import PrefectDriver
from pipeline.progress import LineProgress, MultiProgress, current_progress
from pipeline.run.context import RunContext, open_context
from pipeline.run.phases import PHASES, Phase
from pipeline.run.start import find_run
from pipeline.run.titles import phase_title

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
        return phase_title(find_run(flow_run.parameters["run"]), name)

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
