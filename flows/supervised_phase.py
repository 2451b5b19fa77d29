"""Supervised phase: prompts -> responses -> critiques -> revisions -> SFT set -> SL-CAI policy."""

from prefect import flow

from flows.batches import Batches
from flows.phase import open_phase
from flows.tasks import Handle, train, write_dataset
from pipeline.run.phases import supervised_chain


@flow(name="supervised-phase", flow_run_name="supervised-phase")
async def supervised_phase(run: str) -> None:
    """Revise the initial policy's responses and learn from the revisions.

    Args:
        run: id or folder of a run.
    """
    ctx = open_phase(run)
    num_stages = 3 + 2 * ctx.config.supervised.revise.rounds
    async with Batches(ctx.runner, num_stages) as call:
        await supervised_chain(ctx, call)
    dataset = await write_dataset("sft", Handle(ctx), call.ends)
    await train("sft", Handle(ctx), dataset)
