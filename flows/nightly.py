"""The nightly refresh: new prompts become the next version of the data set, and a policy.

A second night with nothing new does nothing and says so.
"""

from prefect import flow
from prefect.states import Completed, State

from flows.end_to_end import end_to_end
from pipeline.run.nightly import plan_nightly


@flow(name="nightly", flow_run_name="nightly-{recipe}")
async def nightly(recipe: str) -> State[str]:
    """Take tonight's run through both phases; the state's message says what was done.

    Args:
        recipe: a YAML file such as flows/configs/demo.yaml.
    """
    plan = plan_nightly(recipe)
    for run in plan.runs:
        await end_to_end(recipe, str(run.root), resume=True)
    return Completed(message=plan.message, data=plan.message)
