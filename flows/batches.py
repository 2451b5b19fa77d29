"""At most about 200 task runs in a flow run: further shards go to sub-flows, the engine stays.

The phases call one coroutine per shard-stage. The first shards become task runs of the phase's
own flow run; each later group of shards gets a sub-flow that stays open while steps come in.
"""

import asyncio
import contextvars
from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow

from flows.tasks import Handle, StageCalls
from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner
from pipeline.store import Manifest

TASK_RUNS = 200
"""A larger graph cannot be read, and the server drops records that come in bursts."""


@dataclass
class Group:
    """A sub-flow that is open for the steps of its shards."""

    inside: contextvars.Context
    closing: asyncio.Event
    flow_run: asyncio.Task[None]


async def open_group(first: int, last: int) -> Group:
    """Start a sub-flow for the shards `first` to `last` and return when steps can run in it."""
    opened: asyncio.Future[contextvars.Context] = asyncio.get_running_loop().create_future()
    closing = asyncio.Event()

    @flow(name="shards", flow_run_name=f"shards-{first}-{last}")
    async def hold() -> None:
        opened.set_result(contextvars.copy_context())
        await closing.wait()

    flow_run = asyncio.create_task(hold())
    await asyncio.wait({opened, flow_run}, return_when=asyncio.FIRST_COMPLETED)
    if flow_run.done():
        flow_run.result()
    return Group(await opened, closing, flow_run)


class Batches:
    """What a wavefront calls for each shard-stage, with `num_stages` stages for each shard."""

    def __init__(self, runner: Runner, num_stages: int) -> None:
        self._calls = StageCalls(runner)
        self._width = max(1, TASK_RUNS // num_stages)
        self._groups: dict[int, asyncio.Task[Group]] = {}

    @property
    def ends(self) -> list[Handle]:
        """What each shard has reached, for the tasks that come after all of them."""
        return list(self._calls.ends.values())

    async def __call__(
        self, stage: Stage, shard_index: int, manifests: Sequence[Manifest]
    ) -> Manifest:
        """Run one shard-stage as a task run of the flow run that its shard belongs to."""
        step = self._calls(stage, shard_index, manifests)
        number = shard_index // self._width
        if number == 0:
            return await step
        if number not in self._groups:
            first = number * self._width
            opening = open_group(first, first + self._width - 1)
            self._groups[number] = asyncio.create_task(opening)
        group = await asyncio.shield(self._groups[number])
        return await asyncio.create_task(step, context=group.inside.copy())

    async def __aenter__(self) -> "Batches":
        return self

    async def __aexit__(self, *error: object) -> None:
        for opening in self._groups.values():
            group = await opening
            group.closing.set()
            await group.flow_run
