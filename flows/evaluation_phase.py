"""Evaluation: every policy on held-out prompts, judged in pairs; then the metrics."""

from prefect import flow

from flows.batches import Batches
from flows.phase import open_phase
from pipeline.run.finish import evaluate


@flow(name="evaluation-phase", flow_run_name="evaluation-phase")
async def evaluation_phase(run: str) -> None:
    """Measure what was trained.

    Args:
        run: id or folder of a run whose trainings are finished.
    """
    ctx = open_phase(run)
    async with Batches(ctx.runner, num_stages=6) as call:
        await evaluate(ctx, call)
