"""Drivers run the pieces of a phase: plain calls here, Prefect in `flows/driver.py`.

A phase says what to do and in which order; its driver decides how each piece runs.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner

Work = Callable[[], Any]
"""A piece of work without arguments; its result may be awaitable."""


class Driver(Protocol):
    """Runs the pieces of a phase."""

    async def chain(self, runner: Runner, shards: Sequence[int], stages: Sequence[Stage]) -> None:
        """Take the shards, by index, through the stages.

        Raises:
            RunStoppedError, StoreError: see `Runner.wavefront`.
        """
        ...

    async def step(self, name: str, work: Work) -> Any:
        """Run one named step, after everything before it; returns its result and raises as it."""
        ...


class PlainDriver:
    """Calls each piece directly and keeps no record of it."""

    async def chain(self, runner: Runner, shards: Sequence[int], stages: Sequence[Stage]) -> None:
        """See Driver.chain."""
        await runner.wavefront(shards, stages)

    async def step(self, name: str, work: Work) -> Any:
        """See Driver.step."""
        result = work()
        return await result if inspect.isawaitable(result) else result


PLAIN = PlainDriver()
