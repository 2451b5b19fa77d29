"""Preference phase: samples -> judgments -> pairs -> preference set -> tuned policy."""

from prefect import flow

from flows.batches import Batches
from flows.phase import open_phase
from flows.tasks import Handle, train, write_dataset
from pipeline.run.phases import preference_chain


@flow(name="preference-phase", flow_run_name="preference-phase")
async def preference_phase(run: str) -> None:
    """Label comparisons under the constitution and learn from the pairs.

    Args:
        run: id or folder of a run whose supervised phase is finished.
    """
    ctx = open_phase(run)
    async with Batches(ctx.runner, num_stages=5) as call:
        await preference_chain(ctx, call)
    dataset = await write_dataset("preference", Handle(ctx), call.ends)
    await train("preference", Handle(ctx), dataset)
