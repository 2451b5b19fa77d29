"""Passes: prompts as shards, and shards through the stages of one open engine.

A model is opened for the passes that need it and closed before the next one opens and before
training starts, so that one GPU is enough.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.config.engines import EngineConfig
from pipeline.config.paths import resolve_path
from pipeline.data.dataset import known_prompt_ids, parent_run
from pipeline.data.heldout import not_trained_on
from pipeline.data.prompts import read_prompts, write_prompt_shards
from pipeline.engines.base import Engine
from pipeline.engines.lazy import lazy_engine
from pipeline.ids import content_hash
from pipeline.run.context import RunContext
from pipeline.run.driver import PLAIN, Driver
from pipeline.run.plan import efficacy_stages, label_stages, measures_efficacy
from pipeline.stages.base import Stage
from pipeline.stages.runner import ShardState
from pipeline.store import require_manifest
from pipeline.store.stage_names import HELDOUT, PROMPTS

StageMaker = Callable[[RunContext, Engine], list[Stage]]
Pass = tuple[EngineConfig, list[StageMaker]]
"""An engine with the functions that plan its stages."""


def prompt_shards(ctx: RunContext) -> list[ShardState]:
    """Write the training prompts as shards, or find them there."""
    prompts = ctx.config.prompts
    return _write_prompts(ctx, PROMPTS, prompts.train, prompts.limit)


def heldout_shards(ctx: RunContext) -> list[ShardState]:
    """Write the held-out prompts as shards, or find them there; call it after `prompt_shards`.

    Raises:
        DataError: the run, or the version that it continues, trains on one of them.
    """
    prompts = ctx.config.prompts
    return _write_prompts(ctx, HELDOUT, prompts.heldout, prompts.heldout_limit)


def prompts_key(config: RunConfig, run_id: str, folder: str) -> str:
    """What makes prompt shards those of this run: it keeps them even if the files outside change."""
    limit = config.prompts.limit if folder == PROMPTS else config.prompts.heldout_limit
    return content_hash([folder, run_id, config.execution.shard_size, limit, config.seed])


async def run_pass(
    ctx: RunContext,
    config: EngineConfig,
    shards: Sequence[ShardState],
    makers: Sequence[StageMaker],
    driver: Driver = PLAIN,
) -> list[ShardState]:
    """Open one engine and take the shards through the stages that the makers plan."""
    async with lazy_engine(config) as engine:
        stages = [stage for maker in makers for stage in maker(ctx, engine)]
        return await driver.chain(ctx.runner, shards, stages) if stages else list(shards)


def with_finished(
    ctx: RunContext, shards: Sequence[ShardState], folders: Sequence[str]
) -> list[ShardState]:
    """The shards with the manifests of stages that an earlier phase has finished.

    Raises:
        StoreError: one of them is missing or damaged.
    """
    states = []
    for shard in shards:
        state = dict(shard)
        index = next(iter(shard.values())).shard_index
        for folder in folders:
            state[folder] = require_manifest(ctx.run.root, folder, index)
        states.append(state)
    return states


def label_passes(ctx: RunContext) -> list[Pass]:
    """Each judge of the panel with its stages; the first one also measures the revisions."""
    passes: list[Pass] = [
        (engine, [partial(label_stages, number=number)])
        for number, engine in enumerate(ctx.judge_engines())
    ]
    if measures_efficacy(ctx):
        passes[0][1].insert(0, efficacy_stages)
    return passes


def judges_itself(ctx: RunContext, policy: Path | None) -> bool:
    """Whether the policy that samples is the first judge, so that one engine serves both."""
    return policy is None and ctx.judge_engines()[0] == ctx.policy_engine()


def _write_prompts(
    ctx: RunContext, folder: str, files: Sequence[Path], limit: int | None
) -> list[ShardState]:
    parent = parent_run(ctx.run) if folder == PROMPTS else None
    rows = read_prompts(
        [resolve_path(path) for path in files],
        limit=limit,
        seed=ctx.config.seed,
        run_id=ctx.run.run_id,
        exclude=known_prompt_ids(parent) if parent else (),
    )
    if folder == HELDOUT:
        rows = not_trained_on(rows, ctx.run)
    key = prompts_key(ctx.config, ctx.run.run_id, folder)
    size = ctx.config.execution.shard_size
    manifests = write_prompt_shards(ctx.run.root, folder, rows, size, key)
    return [{folder: manifest} for manifest in manifests]
