"""What every phase flow begins with: its run, watched by the terminal and by Prefect's log."""

from prefect import get_run_logger

from pipeline.progress import LineProgress, MultiProgress, current_progress
from pipeline.run.context import RunContext, open_context
from pipeline.run.start import find_run

LOG_EVERY_S = 30.0


def open_phase(run: str) -> RunContext:
    """The context of a run folder; stages that finish leave a line in the flow run's log."""
    log = LineProgress(get_run_logger().info, every_s=LOG_EVERY_S)
    return open_context(find_run(run), MultiProgress(current_progress(), log))
