"""A flow run of a deployment whose gate waits for people, taken up as a worker does."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async

from flows.end_to_end import end_to_end
from pipeline.config.gate import GateConfig
from pipeline.run.context import RunContext, open_context
from pipeline.run.start import review_folder, start_run
from tests.evaluation.test_gate import metrics
from tests.review.builders import answer_for, labeled_run, open_review
from tests.run.builders import write_recipe

GATE = GateConfig.model_validate({"review": {"min_pairs": 2}})


def waiting_context(*args: Any) -> RunContext:
    """With a gate, which the recipe of a scripted policy cannot have."""
    ctx = open_context(*args)
    evaluation = ctx.config.evaluation.model_copy(update={"gate": GATE, "enabled": False})
    return replace(ctx, config=ctx.config.model_copy(update={"evaluation": evaluation}))


async def wait_for_labels(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What becomes of a labeled run: in a flow run without a deployment, and in one of a deployment
    that is resumed twice, first without labels of people and then with two.
    """
    recipe = write_recipe(folder / "people")
    run = labeled_run(start_run(recipe, run_id="people").root, 6)
    patch.setattr("flows.phases.open_context", waiting_context)
    patch.setattr("pipeline.run.phases.collect_metrics", lambda *_: metrics())
    patch.setattr("pipeline.run.phases.write_promoted", lambda *_: None)
    wanted = {"recipe": str(recipe), "run_id": "people", "resume": True, "phases": ["evaluation"]}
    alone = await end_to_end(**wanted, return_state=True)
    states = [alone.name, run.info()["gate"]]
    async with get_client() as client:
        deployment = await client.create_deployment(
            await client.create_flow(end_to_end), "waiting", entrypoint="flows/end_to_end.py"
        )
        created = await client.create_flow_run_from_deployment(deployment, parameters=wanted)

        async def take() -> None:
            flow_run = await client.read_flow_run(created.id)
            with suppress(Pause):
                await run_flow_async(end_to_end, flow_run, parameters=flow_run.parameters)
            states.append((await client.read_flow_run(created.id)).state_name)

        await take()
        await client.resume_flow_run(created.id)
        await take()
        answer_for(open_review(run, review_folder(run))[0], "Ada", "", 2)
        await client.resume_flow_run(created.id)
        await take()
        await client.delete_deployment(deployment)
    return {"states": [*states, run.info()["gate"]]}
