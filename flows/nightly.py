"""The nightly refresh: new prompts make the next version of the data set and a new policy.

A night without new prompts starts no run; the message of its state says so.
"""

from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.artifacts import show_night
from flows.end_to_end import end_to_end
from pipeline.run.nightly import plan_nightly, run_nightly


@flow(name="nightly", flow_run_name="nightly-{recipe}")
async def nightly(
    recipe: Annotated[str, Field(min_length=1)], run_id: str | None = None
) -> State[str]:
    """Plan tonight's run and take it through all its phases; the state's message says which run.

    Args:
        recipe: a YAML file such as flows/configs/demo.yaml.
        run_id: a night that is planned already; by default the next one is planned.
    """
    plan = plan_nightly(recipe, run_id)
    message = await run_nightly(plan, lambda run: end_to_end(recipe, str(run.root), resume=True))
    await show_night(plan.run)
    return Completed(message=message, data=message)
