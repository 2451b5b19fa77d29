"""Evaluation: every policy on held-out prompts, judged in pairs; then metrics and the report."""

from prefect import flow

from flows.batches import Batches
from flows.phase import open_phase
from flows.tasks import Handle, write_report
from pipeline.run.finish import evaluate


@flow(name="evaluation-phase", flow_run_name="evaluation-phase")
async def evaluation_phase(run: str) -> str:
    """Measure what was trained; returns the path of the report.

    Args:
        run: id or folder of a run whose trainings are finished.
    """
    ctx = open_phase(run)
    async with Batches(ctx.runner, num_stages=6) as call:
        await evaluate(ctx, call)
    return await write_report(Handle(ctx), call.ends)
