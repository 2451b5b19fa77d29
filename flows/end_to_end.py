"""The main flow: takes a recipe, makes a judged preference set, two policies and a report.

rlaif run flows/configs/demo.yaml
prefect deployment run rlaif/main -p recipe=flows/configs/demo.yaml
"""

from prefect import flow

from flows.driver import PrefectDriver
from flows.phases import PHASE_FLOWS, open_phase
from pipeline.prefect_server.outlive import outliving_server
from pipeline.run.phases import report_phase
from pipeline.run.start import begin_run, work_in


@flow(name="rlaif", flow_run_name="{recipe}")
async def end_to_end(
    recipe: str, run_id: str | None = None, resume: bool = False, overrides: list[str] | None = None
) -> str:
    """Take a run through all its phases; returns the path of the report.

    Args:
        recipe: a YAML file such as flows/configs/demo.yaml.
        run_id: name of the run folder; by default the recipe's name and the time.
        resume: continue the run called `run_id`, with the recipe that it started with.
        overrides: values to replace in the recipe, each such as `preference.train.beta=0.05`.
    """
    run = begin_run(recipe, run_id, resume, overrides or ())
    with outliving_server(run), work_in(run):
        for phase in PHASE_FLOWS.values():
            await phase(str(run.root))
        return str(await report_phase(open_phase(str(run.root)), PrefectDriver(run)))
