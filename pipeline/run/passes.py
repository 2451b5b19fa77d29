"""Passes: the prompts of a run as shards, and shards taken through the stages of one open engine.

In one process each pass opens one model and closes it before the next pass or a training begins, so
that one GPU is enough. Workers of a cluster hold several models at once where there is room.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.config.engines import AnyEngine
from pipeline.config.prompts import PromptSource
from pipeline.config.workers import WorkersConfig
from pipeline.data.dataset import parent_run
from pipeline.data.heldout import not_held_out, not_trained_on
from pipeline.data.prompts import (
    add_prompt_shards,
    draw_prompts,
    later_draws,
    read_prompts,
    write_prompt_shards,
)
from pipeline.engines.base import NOTICE, Engine
from pipeline.engines.lazy import lazy_engine
from pipeline.ids import content_hash
from pipeline.records import PromptRow
from pipeline.run.asked import AskedBefore, asked_before
from pipeline.run.context import RunContext, open_context
from pipeline.run.driver import PLAIN, Driver
from pipeline.run.plan import efficacy_stages, label_stages, measures_efficacy
from pipeline.run.target import first_draw
from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner
from pipeline.store import RunDir, require_manifest
from pipeline.store.remote import mirror_of
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import HELDOUT, PROMPTS

StageMaker = Callable[[RunContext, Engine], list[Stage]]
Pass = tuple[AnyEngine, list[StageMaker]]
"""The settings of an engine, and the functions that make its stages once it is open."""


def prompt_shards(ctx: RunContext) -> Sequence[int]:
    """The shards of the training prompts, by index, written on the first call.

    Raises:
        DataError: a prompt file cannot be read.
        StoreError: the disk is full.
    """
    prompts = ctx.config.prompts
    return _write_prompts(ctx, PROMPTS, prompts.train, first_draw(ctx.config))


def draw_shards(ctx: RunContext, number: int) -> Sequence[int]:
    """The shards of `number` further prompts; fewer, or none, where the prompts are used up.

    Raises:
        DataError: a prompt file cannot be read, or the run holds one of these prompts out.
        StoreError: the disk is full.
    """
    prompt_shards(ctx)
    own = (row.row_id for row in stage_rows(ctx.run.root, PROMPTS))
    (rows,) = _draws(ctx, [number], chain(own, _earlier_prompts(ctx)))
    if not rows:
        return ()
    size = ctx.config.execution.shard_size
    return add_prompt_shards(ctx.run.root, PROMPTS, not_held_out(rows, ctx.run), size, number)


def heldout_shards(ctx: RunContext) -> Sequence[int]:
    """The shards of the held-out prompts, written on the first call, after `prompt_shards`.

    Raises:
        DataError: the run, or the version that it continues, trains on one of these prompts.
    """
    prompts = ctx.config.prompts
    return _write_prompts(ctx, HELDOUT, prompts.heldout, prompts.heldout_limit)


def prompts_key(config: RunConfig, run_id: str, folder: str) -> str:
    """The manifest key of prompt shards. It ignores the contents of the prompt files, so that a
    run keeps its prompts when these files change.
    """
    limit = config.prompts.limit if folder == PROMPTS else config.prompts.heldout_limit
    return content_hash([folder, run_id, config.execution.shard_size, limit, config.seed])


async def run_pass(
    ctx: RunContext,
    config: AnyEngine,
    shards: Sequence[int],
    makers: Sequence[StageMaker],
    driver: Driver = PLAIN,
) -> None:
    """Open one engine and take the shards through the stages of the makers; see `run_passes`."""
    await run_passes(ctx, [(config, list(makers))], shards, driver)


async def run_passes(
    ctx: RunContext, passes: Sequence[Pass], shards: Sequence[int], driver: Driver = PLAIN
) -> None:
    """Take the shards, by index, through the stages of the passes. Workers of a cluster with room
    for several engines work on several passes at once; else each pass opens its engine and closes
    it.

    Raises:
        RunStoppedError, StoreError: see `Runner.wavefront`.
        MachineError, EngineError: an engine cannot be opened.
    """
    NOTICE.set(ctx.progress.note)
    workers = ctx.config.execution.workers
    if workers.kind == "ray":
        await _on_workers(ctx, workers, list(passes), shards, driver)
        return
    for config, makers in passes:
        async with lazy_engine(config) as engine:
            stages = [stage for maker in makers for stage in maker(ctx, engine)]
            if stages:
                await driver.chain(ctx.runner, shards, stages)


async def _on_workers(
    ctx: RunContext,
    workers: WorkersConfig,
    passes: list[Pass],
    shards: Sequence[int],
    driver: Driver,
) -> None:
    from pipeline.workers.actor import Job
    from pipeline.workers.cluster import code_hash, connect
    from pipeline.workers.pool import Pool
    from pipeline.workers.runner import pooled

    cluster = connect(workers)
    if len(passes) > 1 and not cluster.has_room(workers, len(passes)):
        for each in passes:
            await _on_workers(ctx, workers, [each], shards, driver)
        return
    pools: dict[str, Pool] = {}
    stages: list[Stage] = []
    async with AsyncExitStack() as stack:
        for config, makers in passes:
            # Not opened here, except where only an endpoint knows what it serves.
            engine = await stack.enter_async_context(lazy_engine(config))
            own = [stage for maker in makers for stage in maker(ctx, engine)]
            opener = partial(stages_in_worker, tuple(makers))
            store = mirror_of(ctx.run.root)
            url = store.url.removesuffix("/runs") if store else ""
            job = Job(0, ctx.run.root, ctx.run.run_id, code_hash(), config, opener, url)
            pool = Pool(
                cluster,
                job,
                num=workers.num,
                gpus=workers.gpus,
                tries=ctx.config.execution.retries + 1,
                progress=ctx.progress,
            )
            pools |= {stage.folder: pool for stage in own}
            stages += own
        runner = await stack.enter_async_context(pooled(ctx.runner, pools))
        if stages:
            await driver.chain(runner, shards, stages)


def stages_in_worker(
    makers: Sequence[StageMaker], root: Path, engine: Engine
) -> tuple[Runner, list[Stage]]:
    """What a worker needs of a run: the stages of a pass on its engine, and the runner."""
    ctx = open_context(RunDir(root))
    return ctx.runner, [stage for maker in makers for stage in maker(ctx, engine)]


def require_finished(ctx: RunContext, shards: Sequence[int], folders: Sequence[str]) -> None:
    """Look, before anything is paid for, whether an earlier phase has finished these folders.

    Raises:
        StoreError: a shard of one of them is missing or damaged.
    """
    for index in shards:
        for folder in folders:
            require_manifest(ctx.run.root, folder, index)


def label_passes(ctx: RunContext) -> list[Pass]:
    """One pass for each engine that labels; the judge also measures the revisions."""
    passes: list[Pass] = [
        (engine, [partial(label_stages, number=number)])
        for number, engine in enumerate(ctx.label_engines())
    ]
    if measures_efficacy(ctx):
        if ctx.config.preference.own_engine is None:
            passes[0][1].insert(0, efficacy_stages)
        else:
            passes.append((ctx.judge_engine(), [efficacy_stages]))
    return passes


def judges_itself(ctx: RunContext, policy: Path | None) -> bool:
    """Whether the sampling policy also labels first, so that one engine serves both.

    Args:
        policy: folder of the trained policy; None for the initial one.
    """
    return policy is None and ctx.label_engines()[0] == ctx.policy_engine()


def _write_prompts(
    ctx: RunContext, folder: str, sources: Sequence[PromptSource], limit: int | None
) -> Sequence[int]:
    rows = _rows(ctx, folder, sources, limit)
    later: Iterable[list[PromptRow]] = ()
    if folder == PROMPTS and (sizes := later_draws(ctx.run.root, folder)):
        later = islice(_draws(ctx, [limit or 0, *sizes], _earlier_prompts(ctx)), 1, None)
    if folder == HELDOUT:
        rows = not_trained_on(rows, ctx.run)
    key = prompts_key(ctx.config, ctx.run.run_id, folder)
    size = ctx.config.execution.shard_size
    # A night may have no new prompts, and rows of earlier nights to make again.
    may_be_none = folder == PROMPTS and bool(ctx.run.info().get("relabel"))
    return write_prompt_shards(
        ctx.run.root, folder, rows, size, key, later, may_be_none=may_be_none
    )


def _rows(
    ctx: RunContext, folder: str, sources: Sequence[PromptSource], limit: int | None
) -> Iterator[PromptRow]:
    # A generator: prompts that are on disk need no search for near-duplicates.
    seed, run_id = ctx.config.seed, ctx.run.run_id
    asked = _earlier_prompts(ctx) if folder == PROMPTS else AskedBefore()
    yield from read_prompts(sources, limit=limit, seed=seed, run_id=run_id, exclude=asked)


def _earlier_prompts(ctx: RunContext) -> AskedBefore:
    return asked_before(ctx.config, parent_run(ctx.run))


def _draws(
    ctx: RunContext, sizes: Sequence[int], known: Iterable[str]
) -> Iterator[list[PromptRow]]:
    seed, sources = ctx.config.seed, ctx.config.prompts.train
    return draw_prompts(sources, sizes, seed=seed, run_id=ctx.run.run_id, exclude=known)
