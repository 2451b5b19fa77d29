"""Every Prefect task of the project: one for each kind of stage, and one for the steps in between.

Results travel inside Handles, and Prefect draws its graph from the identity of these objects; it
would also search a manifest and mistake equal strings for edges. Prefect's cache is off, since the
manifests on disk are the cache: a shard-stage that was finished earlier ends in a state `Reused`.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.artifacts import ARTIFACTS, show_audit
from pipeline.errors import AuditError
from pipeline.run.driver import PLAIN
from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner
from pipeline.store import Manifest
from pipeline.store.stage_names import split_folder

SETTINGS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


class Handle:
    """A box for the result of a task, which Prefect follows by identity without looking inside."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


async def run_stage(
    label: str, shard_index: int, step: Handle, upstream: Sequence[Handle]
) -> State[Handle] | Handle:
    """Run one stage of one shard; returns its manifest.

    Args:
        label: folder of the stage without its phase, for the name of the task run.
        step: the runner, the stage, and the manifests that it reads.
        upstream: results that the graph shows as parents.
    """
    runner, stage, manifests = step.value
    manifest: Manifest = await runner.step(stage, shard_index, manifests)
    if manifest.resumed:
        message = f"{manifest.counts.expected} rows"
        return Completed(name="Reused", message=message, data=Handle(manifest))
    return Handle(manifest)


@cache
def stage_task(kind: str) -> Any:
    """The task of a kind of stage."""
    return task(name=kind, task_run_name="{label}-{shard_index:05d}", **SETTINGS)(run_stage)


class StageCalls:
    """Runs shard-stages as tasks, each linked to the tasks whose manifests it reads."""

    def __init__(self) -> None:
        self._results: dict[tuple[str, int], Handle] = {}
        self.ends: dict[int, Handle] = {}
        """The last result of each shard."""

    async def __call__(
        self, runner: Runner, stage: Stage, shard_index: int, manifests: Sequence[Manifest]
    ) -> Manifest:
        """Run one shard-stage; returns its manifest."""
        keys = [(m.stage, m.shard_index) for m in manifests]
        upstream = [self._results[key] for key in keys if key in self._results]
        label = stage.folder.rpartition("/")[2]
        run = stage_task(split_folder(stage.folder)[1])
        step = Handle((runner, stage, manifests))
        state = await run(label, shard_index, step, upstream, return_state=True)
        result: Handle = await state.aresult()
        self._results[stage.folder, shard_index] = self.ends[shard_index] = result
        # Handles stay as long as the graph grows; the manifests are on disk.
        manifest: Manifest = result.value
        result.value = None
        return manifest


@task(name="step", task_run_name="{name}", **SETTINGS)
async def run_step(name: str, run: Handle, work: Handle, upstream: Sequence[Handle]) -> Handle:
    """Run a step between the stages; returns its result, and shows the artifacts of that step.

    Args:
        name: name of the step and of its task run.
        run: the folder of the run.
        work: the `Work` to do.
        upstream: results that the graph shows as parents.
    """
    try:
        result = await PLAIN.step(name, work.value)
    except AuditError:
        # A person wants to see first what stopped the run.
        await show_audit(run.value)
        raise
    if name in ARTIFACTS:
        await ARTIFACTS[name](run.value)
    return Handle(result)
