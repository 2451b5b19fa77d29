"""Every Prefect task of the project: one per kind of stage, and the steps between the phases.

A task passes what it made on inside a Handle, and Prefect draws the graph from the identity of
these objects; it would also look into a manifest and take equal strings for edges. Its caching is
off: the manifests on disk are the cache, and a shard-stage that was there already ends in a state
called `Reused`.
"""

import re
from collections.abc import Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_table_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from pipeline.report import audit_markdown, headline_numbers, principle_table, summary_markdown
from pipeline.run import finish, phases
from pipeline.run.context import RunContext
from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner
from pipeline.store import Manifest

PLAIN: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


class Handle:
    """An object that Prefect cannot look into, only tell from others."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


async def run_stage(
    label: str, shard_index: int, step: Handle, upstream: Sequence[Handle]
) -> State[Handle] | Handle:
    """One stage of one shard; gives its manifest."""
    runner, stage, manifests = step.value
    made: Manifest = await runner.step(stage, shard_index, manifests)
    if made.resumed:
        message = f"{made.counts.expected} rows"
        return Completed(name="Reused", message=message, data=Handle(made))
    return Handle(made)


STAGE_TASKS = {
    kind: task(name=kind, task_run_name="{label}-{shard_index:05d}", **PLAIN)(run_stage)
    for kind in (
        "sample",
        "critique",
        "revise",
        "efficacy",
        "score",
        "judge",
        "canary",
        "pool",
        "pair",
    )
}


class StageCalls:
    """Runs shard-stages as tasks of their kind: `preference/judge` is a `judge`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._made: dict[tuple[str, int], Handle] = {}
        self.ends: dict[int, Handle] = {}
        """What each shard has reached."""

    async def __call__(
        self, stage: Stage, shard_index: int, manifests: Sequence[Manifest]
    ) -> Manifest:
        """The manifest of one shard-stage."""
        label = stage.folder.rpartition("/")[2]
        upstream = [
            self._made[key] for m in manifests if (key := (m.stage, m.shard_index)) in self._made
        ]
        run = STAGE_TASKS[label.partition("-")[0]]
        step = Handle((self._runner, stage, manifests))
        state = await run(label, shard_index, step, upstream, return_state=True)
        made: Handle = await state.aresult()
        self._made[stage.folder, shard_index] = self.ends[shard_index] = made
        return made.value  # type: ignore[no-any-return]


@task(task_run_name="write-{name}-set", **PLAIN)
async def write_dataset(name: str, context: Handle, ends: Sequence[Handle]) -> Handle:
    """Write a data set from the finished rows, once its audit has passed; gives its counts."""
    ctx: RunContext = context.value
    writers = {"sft": phases.supervised_dataset, "preference": phases.preference_dataset}
    try:
        return Handle(writers[name](ctx))
    finally:
        # Shown above all when it is what stops the run.
        if name == "preference" and (audit := audit_markdown(ctx.run)):
            await acreate_markdown_artifact(audit, key=f"audit-{artifact_key(ctx)}")


@task(task_run_name="train-{name}", **PLAIN)
async def train(name: str, context: Handle, dataset: Handle) -> Handle:
    """Train on a data set; gives the model's folder, None when the recipe does not train."""
    ctx: RunContext = context.value
    trainings = {"sft": phases.train_supervised, "preference": phases.train_preference}
    return Handle(await trainings[name](ctx, lambda line: ctx.progress.training(name, line)))


@task(task_run_name="report", **PLAIN)
async def write_report(context: Handle) -> str:
    """Write the report, and show its summary on the run's page; gives the report's path."""
    ctx: RunContext = context.value
    report = finish.finish(ctx)
    key = artifact_key(ctx)
    await acreate_markdown_artifact(summary_markdown(ctx.run), key=f"summary-{key}")
    await acreate_table_artifact(principle_table(ctx.run), key=f"principles-{key}")
    await acreate_link_artifact(report.as_uri(), link_text="report.html", key=f"report-{key}")
    for name, value in headline_numbers(ctx.run):
        get_run_logger().info("%s: %s", name, value)
    return str(report)


def artifact_key(ctx: RunContext) -> str:
    """The run's id in the letters that a key may have."""
    return re.sub("[^a-z0-9]+", "-", ctx.run.run_id.lower())
