"""The main job: a recipe in, a judged preference set, two policies and a report out.

rlaif run flows/configs/demo.yaml
prefect deployment run rlaif/main -p recipe=flows/configs/demo.yaml
"""

from prefect import flow

from flows.evaluation_phase import evaluation_phase
from flows.phase import open_phase
from flows.preference_phase import preference_phase
from flows.supervised_phase import supervised_phase
from flows.tasks import Handle, write_report
from pipeline.run.begin import begin_run
from pipeline.store import RunLock


@flow(name="rlaif", flow_run_name="{recipe}")
async def end_to_end(recipe: str, run_id: str | None = None, resume: bool = False) -> str:
    """Both phases, the trainings and the evaluation; returns the path of the report.

    Args:
        recipe: a YAML file such as flows/configs/demo.yaml.
        run_id: name of the run folder; by default the recipe's name and the time.
        resume: go on with the run of that id, which keeps the recipe that it began with.
    """
    run = begin_run(recipe, run_id, resume)
    with RunLock(run.root):
        await supervised_phase(str(run.root))
        await preference_phase(str(run.root))
        await evaluation_phase(str(run.root))
        return await write_report(Handle(open_phase(str(run.root))))
