"""Prefect as the driver of a phase: shard-stages and steps become task runs of its flow run.

At most about 200 task runs are in one flow run: the first shards are task runs of the phase's own,
and each later group of shards gets a sub-flow that stays open while its steps come in. The engine
stays open all the time.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from prefect import flow

from flows.tasks import Handle, StageCalls, run_step
from pipeline.run.driver import Work
from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner, ShardState
from pipeline.store import Manifest, RunDir

TASK_RUNS = 200
"""A larger graph cannot be read, and the server drops records that come in bursts."""


@asynccontextmanager
async def open_group(first: int, last: int) -> AsyncIterator[contextvars.Context]:
    """A sub-flow for the shards `first` to `last`: gives the context in which its steps run."""
    opened: asyncio.Future[contextvars.Context] = asyncio.get_running_loop().create_future()
    closing = asyncio.Event()

    @flow(name="shards", flow_run_name=f"shards-{first}-{last}")
    async def hold() -> None:
        opened.set_result(contextvars.copy_context())
        await closing.wait()

    flow_run = asyncio.create_task(hold())
    waited: set[asyncio.Future[Any]] = {opened, flow_run}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if flow_run.done():
        flow_run.result()
    try:
        yield await opened
    finally:
        closing.set()
        await flow_run


class PrefectDriver:
    """Runs the pieces of one phase in the flow run that is open; see `pipeline.run.driver.Driver`."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._calls = StageCalls()
        self._upstream: list[Handle] = []
        self._room = TASK_RUNS
        """Task runs that the phase's own flow run still takes."""

    async def chain(
        self, runner: Runner, shards: Sequence[ShardState], stages: Sequence[Stage]
    ) -> list[ShardState]:
        """See Driver.chain."""
        own = min(len(shards), max(1, self._room // len(stages)))
        self._room -= own * len(stages)
        width = max(1, TASK_RUNS // len(stages))
        groups: dict[int, asyncio.Task[contextvars.Context]] = {}

        async def call(stage: Stage, shard_index: int, manifests: Sequence[Manifest]) -> Manifest:
            step = self._calls(runner, stage, shard_index, manifests)
            if shard_index < own:
                return await step
            number = (shard_index - own) // width
            if number not in groups:
                first = own + number * width
                group = open_group(first, min(first + width, len(shards)) - 1)
                groups[number] = asyncio.create_task(stack.enter_async_context(group))
            context = await asyncio.shield(groups[number])
            return await asyncio.create_task(step, context=context.copy())

        async with AsyncExitStack() as stack:
            states = await runner.wavefront(shards, stages, call)
        self._upstream = list(self._calls.ends.values())
        return states

    async def step(self, name: str, work: Work) -> Any:
        """See Driver.step."""
        result: Handle = await run_step(name, Handle(self._run), Handle(work), self._upstream)
        self._upstream = [result]
        return result.value
