"""What runs in a worker: one engine, and the stages of a pass made on it.

It reads the run's folder and writes files of attempts into it, never a manifest.
"""

import asyncio
import importlib
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.config.engines import EngineSection
from pipeline.engines.base import NOTICE, Engine
from pipeline.engines.lazy import lazy_engine
from pipeline.errors import MachineError, PipelineError, StoreError
from pipeline.stages.base import Stage
from pipeline.stages.meter import Meter
from pipeline.stages.runner import Made, Progress, Runner
from pipeline.store import Manifest, RunDir, ShardCounts
from pipeline.store.remote import fetch, mirror
from pipeline.workers.cluster import code_hash

OpenStages = Callable[[Path, Engine], tuple[Runner, list[Stage]]]
"""Makes the stages of a pass for a run's folder and an open engine, and the runner below it."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know. It travels to the worker's process."""

    number: int
    """The worker's number among those of its engine, from 0."""
    root: Path
    """The run's folder."""
    run_id: str
    code: str
    """`code_hash` of the driver."""
    engine: EngineSection
    open_stages: OpenStages
    store: str = ""
    """URL above the runs, where the run's folder is a working copy of it."""


@dataclass
class Account(Progress):
    """What one attempt has planned and made so far."""

    folder: str
    rows_planned: int = 0
    counts: ShardCounts = field(default_factory=ShardCounts)

    def planned(self, folder: str, rows: int) -> None:
        """See Progress.planned."""
        self.rows_planned += rows

    def rows_done(self, folder: str, counts: ShardCounts) -> None:
        """See Progress.rows_done."""
        self.counts += counts


@dataclass(frozen=True)
class Station:
    """Where a worker runs."""

    host: str
    node: str
    """Ray's id of the machine."""
    process: int
    """Number of the worker's process there."""


class Worker:
    """Makes shard-stages on its own engine, for one job after the other. Every method is called
    from afar.
    """

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._accounts: dict[str, Account] = {}
        self._notes: list[str] = []

    async def start(self, job: Job) -> Station | PipelineError:
        """Check that this process can do the job, before anything is paid for. The engine opens
        with its first call.
        """
        host = socket.gethostname()
        ray = importlib.import_module("ray")
        try:
            if code_hash() != job.code:
                raise MachineError(
                    f"worker {job.number} on {host} has another version of this program than the "
                    "driver; install the same on every machine"
                )
            root = job.root
            if job.store:
                root = mirror(job.store).root / root.name
                # Again for each job: a model may have been trained since the last one.
                mirror(job.store).pull(root, again=True)
            if RunDir(root).info().get("run_id") != job.run_id:
                raise StoreError(
                    f"worker {job.number} on {host} does not see the run's folder {job.root}; put "
                    "the runs where every machine sees them: a shared folder or a store in "
                    "RLAIF_OUTPUTS"
                )
            engine = await self._stack.enter_async_context(lazy_engine(job.engine))
            self._runner, stages = job.open_stages(root, engine)
        except PipelineError as error:
            return error
        self._stages = {stage.folder: stage for stage in stages}
        return Station(host, ray.get_runtime_context().get_node_id(), os.getpid())

    async def make(
        self,
        folder: str,
        shard_index: int,
        upstream: Sequence[Manifest],
        old: Manifest | None,
        key: str,
        made_by: dict[str, str],
        careful: int,
    ) -> tuple[Made | PipelineError, Account]:
        """Make the rows of a shard-stage and write them to a file of this attempt.

        Returns:
            What was made, or the error that a person has to see, and what it planned and made.
        """
        NOTICE.set(self._notes.append)
        account = self._accounts[made_by["attempt"]] = Account(folder)
        # The driver counts what a run spends.
        runner = replace(self._runner, progress=account, meter=Meter())
        stage = self._stages[folder]
        try:
            for manifest in (*upstream, *filter(None, [old])):
                # In a thread: a slow store must not hold up the calls of other shards.
                await asyncio.to_thread(fetch, self._runner.root / manifest.path)
            made = await runner.make(
                stage, shard_index, upstream, old, key, made_by=made_by, careful=careful
            )
            return made, account
        except PipelineError as error:
            return error, account
        finally:
            del self._accounts[made_by["attempt"]]

    async def progress(self) -> tuple[dict[str, Account], list[str]]:
        """What each attempt has planned and made so far, and the lines since the last call."""
        notes, self._notes[:] = list(self._notes), []
        return dict(self._accounts), notes

    async def close(self) -> None:
        """Release the engine; `start` begins the next job."""
        await self._stack.aclose()
