"""Every Prefect task of the project: one for each kind of stage, and one for the steps in between.

Results travel inside Handles, and Prefect draws its graph from the identity of these objects; it
would also search a manifest and mistake equal strings for edges. Prefect's cache is off, since the
manifests on disk are the cache: a shard-stage that was finished earlier ends in a state `Reused`.
"""

import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from pipeline.errors import AuditError
from pipeline.report import audit_markdown, headline_numbers, principle_table, summary_markdown
from pipeline.run.driver import PLAIN
from pipeline.run.phases import REPORT, WRITE_PREFERENCE
from pipeline.run.titles import run_tags, run_title
from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner
from pipeline.store import Manifest, RunDir
from pipeline.store.stage_names import split_folder

PROGRESS_EVERY_S = 5.0
"""Seconds between two updates of a progress artifact."""
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
        manifest: Manifest = result.value
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


async def show_audit(run: RunDir) -> None:
    """Show the audit of the labels, if there was one, as a Markdown artifact."""
    if audit := audit_markdown(run):
        key = f"audit-{artifact_key(run)}"
        await acreate_markdown_artifact(
            audit, key=key, description=f"Checks of the labels of {run.run_id}"
        )


async def show_report(run: RunDir) -> None:
    """Show the report's summary, its table of principles and a link to it as artifacts."""
    key = artifact_key(run)
    await acreate_markdown_artifact(
        summary_markdown(run), key=f"summary-{key}", description=f"Main figures of {run.run_id}"
    )
    await acreate_table_artifact(
        principle_table(run),
        key=f"principles-{key}",
        description=f"Labels of {run.run_id} by principle",
    )
    await acreate_link_artifact(
        run.report.as_uri(),
        link_text="report.html",
        key=f"report-{key}",
        description=f"The whole report of {run.run_id}, a file on the machine that made it",
    )
    for name, value in headline_numbers(run):
        get_run_logger().info("%s: %s", name, value)


async def name_flow_run(run: RunDir) -> None:
    """Name the flow run by recipe and run, and tag it with recipe, constitution and policy."""
    tags = sorted({*flow_run.tags, *run_tags(run)})
    async with get_client() as client:
        await client.update_flow_run(UUID(flow_run.id), name=run_title(run), tags=tags)


class ChainProgress:
    """A progress artifact: the share of shard-stages of one pass that are done."""

    def __init__(self, run: RunDir, folders: Sequence[str], total: int) -> None:
        self._key = f"progress-{artifact_key(run)}"
        self._description = f"Shards done in {', '.join(folders)} of {run.run_id}"
        self._total, self._done, self._shown = max(1, total), 0, -math.inf
        self._id: UUID | None = None

    async def step(self, done: int = 1) -> None:
        """Count finished shard-stages; the artifact follows every few seconds."""
        self._done += done
        share, now = 100 * self._done / self._total, time.monotonic()
        if self._id is None:
            self._id = await acreate_progress_artifact(share, self._key, self._description)
        elif now >= self._shown + PROGRESS_EVERY_S or self._done >= self._total:
            await aupdate_progress_artifact(self._id, share)
        else:
            return
        self._shown = now


ARTIFACTS: dict[str, Callable[[RunDir], Awaitable[None]]] = {
    WRITE_PREFERENCE: show_audit,
    REPORT: show_report,
}
"""The artifacts that a step shows when it ends well, by the name of the step."""


def artifact_key(run: RunDir) -> str:
    """The run's id in the characters that Prefect allows in a key."""
    return re.sub("[^a-z0-9]+", "-", run.run_id.lower())
