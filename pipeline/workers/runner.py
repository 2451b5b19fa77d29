"""The runner whose shard-stages are made by workers. It alone writes manifests."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields

from pipeline.errors import RunStoppedError
from pipeline.stages.base import Stage
from pipeline.stages.runner import Made, Progress, Runner, StepCall
from pipeline.store import Manifest
from pipeline.store.remote import fetch
from pipeline.store.shards import publish
from pipeline.workers.cluster import HEAD_STAYED_AWAY, Cluster
from pipeline.workers.pool import Pool, ShardBrokeWorkersError

LOOK_AT_HEAD_S = 5.0
HEAD_IS_BACK = "the head of the Ray cluster answers again"
HEAD_IS_GONE = (
    "the head of the Ray cluster does not answer; the workers go on meanwhile, and the run stops "
    "when that lasts"
)
HEAD_PATIENCE_S = 30.0
"""Seconds without a head after which the run stops: Ray ends its process after 60, not its way."""


@dataclass
class PooledRunner(Runner):
    """A Runner that has its shard-stages made by pools of workers."""

    pools: Mapping[str, Pool] = field(default_factory=dict)
    """The pool that makes a stage, by the stage's folder."""

    def workers_table(self) -> list[dict[str, str | int]]:
        """The workers of all pools, a row each; see `Pool.table`."""
        stages: dict[Pool, list[str]] = {}
        for folder, pool in self.pools.items():
            stages.setdefault(pool, []).append(folder.rpartition("/")[2])
        return [
            {"stages": ", ".join(names), **row}
            for pool, names in stages.items()
            for row in pool.table()
        ]

    async def attempt(
        self,
        stage: Stage,
        shard_index: int,
        upstream: Sequence[Manifest],
        old: Manifest | None,
        key: str,
    ) -> Made:
        """Have a worker make the rows, and write their manifest. Where workers die of a shard, the
        rows that it lacks are failed. With a spent budget no worker is asked, and this
        process makes what costs nothing, such as the rows of a journal.
        """
        if stage.engine is not None and self.meter.problem():
            return await self.make(stage, shard_index, upstream, old, key)
        try:
            made = await self.pools[stage.folder].make(
                stage.folder, shard_index, upstream, old, key
            )
        except ShardBrokeWorkersError as error:
            self.progress.note(f"{stage.folder}/shard-{shard_index:05d}: {error}")
            return await self.make(stage, shard_index, upstream, old, key, give_up=str(error))
        manifest, stop = made
        await asyncio.to_thread(fetch, self.root / manifest.path)
        await asyncio.to_thread(publish, self.root, manifest)
        counts = manifest.counts
        self.meter.add_tokens(
            counts.prompt_tokens, counts.generated_tokens, manifest.engine.get("name", "")
        )
        return manifest, stop

    async def _through(self, index: int, chain: Sequence[Stage], step: StepCall) -> None:
        try:
            await super()._through(index, chain, step)
        finally:
            for pool in self.pools.values():
                pool.release(index)


@asynccontextmanager
async def pooled(runner: Runner, pools: Mapping[str, Pool]) -> AsyncIterator[PooledRunner]:
    """A runner with these pools, which are closed at the end. Each worker has as many shards in
    flight as `runner` has.
    """
    values = {
        f.name: getattr(runner, f.name) for f in fields(Runner) if f.init and f.name[0] != "_"
    }
    distinct = list(dict.fromkeys(pools.values()))
    workers = sum(len(pool.seats) for pool in distinct)
    values["shards_in_flight"] *= workers
    async with AsyncExitStack() as stack:
        for pool in distinct:
            stack.push_async_callback(pool.close)
        for pool in distinct[:1]:
            watch = asyncio.create_task(_watch_head(pool.cluster, distinct, runner.progress))
            stack.callback(watch.cancel)
        yield PooledRunner(**values, pools=pools)


async def _watch_head(cluster: Cluster, pools: Sequence[Pool], progress: Progress) -> None:
    """Say when the cluster's head is gone, and stop the run when it stays away."""
    last_answer = time.monotonic()
    answered = True
    while True:
        await asyncio.sleep(LOOK_AT_HEAD_S)
        answers = await asyncio.to_thread(cluster.head_answers)
        if answers != answered:
            answered = answers
            progress.note(HEAD_IS_BACK if answers else HEAD_IS_GONE)
        if answers:
            last_answer = time.monotonic()
        elif time.monotonic() - last_answer > HEAD_PATIENCE_S:
            for pool in pools:
                await pool.stop(RunStoppedError(HEAD_STAYED_AWAY))
            return
