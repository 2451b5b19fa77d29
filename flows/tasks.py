"""Every Prefect task of the project: one per kind of stage, and one for the steps between them.

A task passes its result on inside a Handle, and Prefect draws the graph from the identity of these
objects; it would also look into a manifest and take equal strings for edges. Its caching is off:
the manifests on disk are the cache, and a shard-stage that was there already ends in a state called
`Reused`.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_table_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from pipeline.errors import AuditError
from pipeline.report import audit_markdown, headline_numbers, principle_table, summary_markdown
from pipeline.run.driver import PLAIN
from pipeline.run.phases import REPORT, WRITE_PREFERENCE
from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner
from pipeline.store import Manifest, RunDir
from pipeline.store.stage_names import split_folder

SETTINGS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


class Handle:
    """Wraps a value that a task passes on. Prefect tells handles apart and does not look inside."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


async def run_stage(
    label: str, shard_index: int, step: Handle, upstream: Sequence[Handle]
) -> State[Handle] | Handle:
    """One stage of one shard; returns its manifest."""
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
    """Runs shard-stages as tasks of their kind, linked by what each shard has reached."""

    def __init__(self) -> None:
        self._results: dict[tuple[str, int], Handle] = {}
        self.ends: dict[int, Handle] = {}
        """The last result of each shard."""

    async def __call__(
        self, runner: Runner, stage: Stage, shard_index: int, manifests: Sequence[Manifest]
    ) -> Manifest:
        """The manifest of one shard-stage."""
        keys = [(m.stage, m.shard_index) for m in manifests]
        upstream = [self._results[key] for key in keys if key in self._results]
        label = stage.folder.rpartition("/")[2]
        run = stage_task(split_folder(stage.folder)[1])
        step = Handle((runner, stage, manifests))
        state = await run(label, shard_index, step, upstream, return_state=True)
        result: Handle = await state.aresult()
        self._results[stage.folder, shard_index] = self.ends[shard_index] = result
        manifest: Manifest = result.value
        return manifest


@task(name="step", task_run_name="{name}", **SETTINGS)
async def run_step(name: str, run: Handle, work: Handle, upstream: Sequence[Handle]) -> Handle:
    """A step between the stages; its result and, where people look for it, an artifact."""
    try:
        result = await PLAIN.step(name, work.value)
    except AuditError:
        # What stopped the run is what a person wants to see most.
        await show_audit(run.value)
        raise
    if name in ARTIFACTS:
        await ARTIFACTS[name](run.value)
    return Handle(result)


async def show_audit(run: RunDir) -> None:
    """The audit of the labels as a page of the run, if there was one."""
    if audit := audit_markdown(run):
        await acreate_markdown_artifact(audit, key=f"audit-{artifact_key(run)}")


async def show_report(run: RunDir) -> None:
    """The report's summary, its principles and a link to it as pages of the run."""
    key = artifact_key(run)
    await acreate_markdown_artifact(summary_markdown(run), key=f"summary-{key}")
    await acreate_table_artifact(principle_table(run), key=f"principles-{key}")
    await acreate_link_artifact(run.report.as_uri(), link_text="report.html", key=f"report-{key}")
    for name, value in headline_numbers(run):
        get_run_logger().info("%s: %s", name, value)


ARTIFACTS: dict[str, Callable[[RunDir], Awaitable[None]]] = {
    WRITE_PREFERENCE: show_audit,
    REPORT: show_report,
}
"""What a step shows when it is done."""


def artifact_key(run: RunDir) -> str:
    """The run's id in the letters that a key may have."""
    return re.sub("[^a-z0-9]+", "-", run.run_id.lower())
