"""The runner whose shard-stages are made by workers. It alone writes manifests."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields

from pipeline.stages.base import Stage
from pipeline.stages.runner import Made, Progress, Runner, StepCall
from pipeline.store import Manifest
from pipeline.store.remote import fetch
from pipeline.store.shards import publish
from pipeline.workers.cluster import Cluster
from pipeline.workers.pool import Pool, ShardBrokeWorkersError

LOOK_AT_HEAD_S = 5.0
HEAD_IS_BACK = "the head of the Ray cluster answers again"
HEAD_IS_GONE = (
    "the head of the Ray cluster does not answer; after a minute of that, Ray ends this process, "
    "and `rlaif resume` continues the run once a cluster is there: all that succeeded is kept"
)


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
            watch = asyncio.create_task(_watch_head(pool.cluster, runner.progress))
            stack.callback(watch.cancel)
        yield PooledRunner(**values, pools=pools)


async def _watch_head(cluster: Cluster, progress: Progress) -> None:
    """Say when the cluster's head is gone: soon Ray ends this process without a word."""
    answered = True
    while True:
        await asyncio.sleep(LOOK_AT_HEAD_S)
        if (answers := await cluster.head_answers()) != answered:
            answered = answers
            progress.note(HEAD_IS_BACK if answers else HEAD_IS_GONE)
