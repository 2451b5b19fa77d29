"""Prefect as the driver of a phase: shard-stages and steps become task runs of its flow run.

One flow run holds about 200 task runs at most. The first shards are task runs of the phase's own
flow run; each further group of shards gets a sub-flow, which stays open until the chain has ended.
The engine stays open throughout.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from prefect import flow

from flows.artifacts import PassArtifacts
from flows.tasks import Handle, StageCalls, run_step
from pipeline.run.driver import Work
from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner
from pipeline.store import Manifest, RunDir
from pipeline.workers.runner import PooledRunner

TASK_RUNS = 200
"""Task runs in a flow run: a larger graph is unreadable, and the server drops records in bursts."""


@asynccontextmanager
async def open_group(first: int, last: int) -> AsyncIterator[contextvars.Context]:
    """A sub-flow for the shards `first` to `last`; yields the context in which their steps run."""
    opened: asyncio.Future[contextvars.Context] = asyncio.get_running_loop().create_future()
    closing = asyncio.Event()

    @flow(name="shards", flow_run_name=f"shards-{first}-{last}")
    async def hold() -> None:
        opened.set_result(contextvars.copy_context())
        await closing.wait()

    flow_run = asyncio.create_task(hold())
    futures: set[asyncio.Future[Any]] = {opened, flow_run}
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    if flow_run.done():
        flow_run.result()
    try:
        yield await opened
    finally:
        closing.set()
        await flow_run


class PrefectDriver:
    """Runs the pieces of one phase in the current flow run; see `pipeline.run.driver.Driver`."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._calls = StageCalls()
        self._upstream: list[Handle] = []
        self._room = TASK_RUNS
        """Task runs for which the phase's own flow run still has room."""

    async def chain(self, runner: Runner, shards: Sequence[int], stages: Sequence[Stage]) -> None:
        """See Driver.chain."""
        num_own = min(len(shards), max(1, self._room // len(stages)))
        self._room -= num_own * len(stages)
        group_size = max(1, TASK_RUNS // len(stages))
        groups: dict[int, asyncio.Task[contextvars.Context]] = {}
        # Shards of a later draw do not begin at 0.
        start = min(shards, default=0)

        table = runner.workers_table if isinstance(runner, PooledRunner) else None
        folders = [stage.folder for stage in stages]
        artifacts = PassArtifacts(self._run, folders, len(shards) * len(stages), table)

        async def call(stage: Stage, shard_index: int, manifests: Sequence[Manifest]) -> Manifest:
            manifest = await run_task(stage, shard_index, manifests)
            artifacts.step()
            return manifest

        async def run_task(
            stage: Stage, shard_index: int, manifests: Sequence[Manifest]
        ) -> Manifest:
            step = self._calls(runner, stage, shard_index, manifests)
            if shard_index - start < num_own:
                return await step
            number = (shard_index - start - num_own) // group_size
            if number not in groups:
                first = num_own + number * group_size
                last = min(first + group_size, len(shards)) - 1
                group = open_group(start + first, start + last)
                groups[number] = asyncio.create_task(stack.enter_async_context(group))
            context = await asyncio.shield(groups[number])
            return await asyncio.create_task(step, context=context.copy())

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(artifacts.following())
            await runner.wavefront(shards, stages, call)
        self._upstream = list(self._calls.ends.values())

    async def step(self, name: str, work: Work) -> Any:
        """See Driver.step."""
        result: Handle = await run_step(name, Handle(self._run), Handle(work), self._upstream)
        self._upstream = [result]
        return result.value
