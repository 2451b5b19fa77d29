"""The main flow: takes a recipe, makes a judged preference set, two policies and a report.

rlaif run flows/configs/demo.yaml
prefect deployment run rlaif/main -p recipe=flows/configs/demo.yaml
"""

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.artifacts import name_flow_run
from flows.driver import PrefectDriver
from flows.people import wait_for_people
from flows.phases import chosen, open_phase, run_phase
from pipeline.prefect_server.outlive import outliving_server
from pipeline.run.phases import report_phase
from pipeline.run.start import begin_run, work_in

PhaseName = Literal["supervised", "preference", "training", "evaluation"]
Override = Annotated[str, Field(pattern="^[^=]+=")]


@flow(name="rlaif", flow_run_name="{recipe}")
async def end_to_end(
    recipe: Annotated[str, Field(min_length=1)],
    run_id: str | None = None,
    resume: bool = False,
    overrides: list[Override] | None = None,
    prompts: Annotated[int, Field(ge=1)] | None = None,
    phases: Annotated[list[PhaseName], Field(min_length=1)] | None = None,
) -> str:
    """Take a run through its phases; returns the path of the report.

    Args:
        recipe: a YAML file such as flows/configs/demo.yaml.
        run_id: name of the run folder; by default the recipe's name and the time.
        resume: continue the run called `run_id`, with the recipe that it started with.
        overrides: values to replace in the recipe, each KEY=VALUE, such as
            `preference.train.beta=0.05`.
        prompts: training prompts at most, 1 or more; replaces `prompts.limit` of the recipe.
        phases: phases to run, those before them being done; by default all.
    """
    run = begin_run(recipe, run_id, resume, overrides or (), prompts)
    with outliving_server(run):
        with work_in(run):
            await name_flow_run(run)
            for phase in chosen(phases):
                await run_phase(phase, run)
            ctx = open_phase(str(run.root))
            report = await report_phase(ctx, PrefectDriver(run), phases)
        await wait_for_people(run, chosen(phases))
    return str(report)
