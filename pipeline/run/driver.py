"""Who drives the phases: a plain loop here, Prefect in `flows/tasks.py`.

The phases say what is to be done and in which order; a driver says how each piece is run.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner, ShardState

Work = Callable[[], Any]
"""A piece of work; its result may have to be awaited."""


class Driver(Protocol):
    """Runs the pieces of a phase."""

    async def chain(
        self, runner: Runner, shards: Sequence[ShardState], stages: Sequence[Stage]
    ) -> list[ShardState]:
        """Take the shards through the stages; returns their manifests. Raises as
        `Runner.wavefront`.
        """
        ...

    async def step(self, name: str, work: Work) -> Any:
        """Run one named step that comes after all that was run before it; returns its result."""
        ...


class PlainDriver:
    """Calls everything where it stands, without records of what was called."""

    async def chain(
        self, runner: Runner, shards: Sequence[ShardState], stages: Sequence[Stage]
    ) -> list[ShardState]:
        """See Driver.chain."""
        return await runner.wavefront(shards, stages)

    async def step(self, name: str, work: Work) -> Any:
        """See Driver.step."""
        result = work()
        return await result if inspect.isawaitable(result) else result


PLAIN = PlainDriver()
