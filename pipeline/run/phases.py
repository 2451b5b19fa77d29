"""The phases of a run. Each is idempotent: what is finished on disk is taken, not made again.

    prepare -> supervised_chain -> supervised_dataset -> train_supervised
            -> preference_chain -> preference_dataset -> train_preference -> evaluate -> finish

A model is opened for the passes that need it and closed before the next one opens and before
training starts, so that one GPU is enough.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.config.engines import EngineConfig
from pipeline.config.paths import resolve_path
from pipeline.config.training import TrainingConfig
from pipeline.data.dataset import known_prompt_ids, load_dataset, parent_run
from pipeline.data.export import export_preference, export_sft
from pipeline.data.heldout import HELDOUT, not_trained_on
from pipeline.data.prompts import read_prompts, write_prompt_shards
from pipeline.engines import ENGINES
from pipeline.engines.base import Engine
from pipeline.engines.lazy import lazy_engine
from pipeline.ids import content_hash
from pipeline.run.audit_gate import require_audit
from pipeline.run.context import RunContext
from pipeline.run.plan import (
    efficacy_stages,
    finished_folders,
    judge_stages,
    sample_stage,
    supervised_stages,
)
from pipeline.stages.base import Stage
from pipeline.stages.runner import ShardState, StepCall
from pipeline.store import RunDir, require_manifest
from pipeline.training.job import TrainingJob
from pipeline.training.launch import launch

StageMaker = Callable[[RunContext, Engine], list[Stage]]
LineCall = Callable[[str], None]


def prepare(ctx: RunContext) -> list[ShardState]:
    """Write the training prompts as shards, or find them there."""
    prompts = ctx.config.prompts
    return _prompt_shards(ctx, "prompts", prompts.train, prompts.limit)


def heldout_shards(ctx: RunContext) -> list[ShardState]:
    """The same for the held-out prompts, after `prepare`.

    Raises:
        DataError: the run, or the version that it goes on from, trains on one of them.
    """
    prompts = ctx.config.prompts
    return _prompt_shards(ctx, HELDOUT, prompts.heldout, prompts.heldout_limit)


async def supervised_chain(ctx: RunContext, call: StepCall | None = None) -> list[ShardState]:
    """Initial responses, critiques and revisions; before them, the prompts and the held-out prompts.

    When the comparisons need nothing but revisions and the policy judges itself, the labels are
    made in the same pass, while each shard's prefix is still in the cache.
    """
    shards = prepare(ctx)
    if ctx.config.prompts.heldout:
        # Now, and not when they are needed: files that change while the run is under way must not
        # change what is held out of its data.
        heldout_shards(ctx)
    if not ctx.config.supervised.enabled:
        return shards
    makers: list[StageMaker] = [supervised_stages]
    revisions_only = ctx.config.preference.comparisons == "revision_vs_initial"
    alone = _judges_itself(ctx, None) and not ctx.config.panel
    if ctx.config.preference.enabled and revisions_only and alone:
        makers.append(judge_stages)
    return await run_pass(ctx, ctx.policy_engine(), shards, makers, call)


def supervised_dataset(ctx: RunContext) -> dict[str, Any]:
    """Write dataset/sft.parquet from the revisions; returns its counts."""
    return export_sft(ctx.run, ctx.config, ctx.constitution)


async def train_supervised(ctx: RunContext, on_line: LineCall | None = None) -> Path | None:
    """Train the SL-CAI policy; None when the recipe does not."""
    config = ctx.config.supervised
    if not config.enabled or config.train is None:
        return None
    return await _train(ctx, "sft", config.train, ctx.run.dataset / "sft.parquet", None, on_line)


async def preference_chain(ctx: RunContext, call: StepCall | None = None) -> list[ShardState]:
    """Samples of the SL-CAI policy (of the initial one without SFT), judged and paired."""
    if not ctx.config.preference.enabled:
        return prepare(ctx)
    shards = with_finished(ctx, prepare(ctx), finished_folders(ctx))
    policy = sl_cai_model(ctx)
    makers: list[StageMaker] = [sample_stage]
    judges = _judge_passes(ctx)
    if judges and _judges_itself(ctx, policy):
        makers += judges.pop(0)[1]
    shards = await run_pass(ctx, ctx.policy_engine(policy), shards, makers, call)
    for engine, stages in judges:
        shards = await run_pass(ctx, engine, shards, stages, call)
    return shards


def preference_dataset(ctx: RunContext) -> dict[str, Any]:
    """Write dataset/preference.parquet from the pairs, and feedback.parquet where users gave any;
    returns their counts.

    Raises:
        AuditError: labels or texts did not reach the recipe's thresholds; nothing is exported.
    """
    require_audit(ctx)
    return export_preference(ctx.run, ctx.config, ctx.constitution)


async def train_preference(ctx: RunContext, on_line: LineCall | None = None) -> Path | None:
    """Train the tuned policy from the SL-CAI policy; None when the recipe does not."""
    config = ctx.config.preference
    if not config.enabled or config.train is None:
        return None
    data = ctx.run.dataset / "preference.parquet"
    return await _train(ctx, "preference", config.train, data, sl_cai_model(ctx), on_line)


def feedback_file(run: RunDir, config: TrainingConfig) -> Path | None:
    """The unpaired rows of a run's data set; None where it has none, or the method takes pairs."""
    dataset = load_dataset(run)
    if not config.takes_feedback or dataset is None or "feedback" not in dataset.sets:
        return None
    return run.root / dataset.sets["feedback"].path


def sl_cai_model(ctx: RunContext) -> Path | None:
    """Folder of the SL-CAI policy; None when the recipe trains none."""
    config = ctx.config.supervised
    trained = config.enabled and config.train is not None
    return ctx.run.training("sft") / "model" if trained else None


def tuned_model(ctx: RunContext) -> Path | None:
    """Folder of the tuned policy; None when the recipe trains none."""
    config = ctx.config.preference
    trained = config.enabled and config.train is not None
    return ctx.run.training("preference") / "model" if trained else None


async def run_pass(
    ctx: RunContext,
    config: EngineConfig,
    shards: Sequence[ShardState],
    makers: Sequence[StageMaker],
    call: StepCall | None = None,
) -> list[ShardState]:
    """Open one engine and take the shards through the stages that the makers ask for."""
    async with lazy_engine(config) as engine:
        stages = [stage for maker in makers for stage in maker(ctx, engine)]
        return await ctx.runner.wavefront(shards, stages, call) if stages else list(shards)


def with_finished(
    ctx: RunContext, shards: Sequence[ShardState], folders: Sequence[str]
) -> list[ShardState]:
    """The shards with the manifests of stages that an earlier phase has finished."""
    found = []
    for shard in shards:
        state = dict(shard)
        index = next(iter(shard.values())).shard_index
        for folder in folders:
            state[folder] = require_manifest(ctx.run.root, folder, index)
        found.append(state)
    return found


def _judge_passes(ctx: RunContext) -> list[tuple[EngineConfig, list[StageMaker]]]:
    """Each judge of the panel with its stages; the first one also measures the revisions."""
    revise = ctx.config.supervised.revise
    measures = ctx.config.supervised.enabled and revise.efficacy and revise.rounds
    passes: list[tuple[EngineConfig, list[StageMaker]]] = []
    for number, engine in enumerate(ctx.judge_engines()):
        makers: list[StageMaker] = [partial(_numbered_judge, number=number)]
        if number == 0 and measures:
            makers.insert(0, efficacy_stages)
        passes.append((engine, makers))
    return passes


def _numbered_judge(ctx: RunContext, engine: Engine, number: int) -> list[Stage]:
    return judge_stages(ctx, engine, number)


def _judges_itself(ctx: RunContext, policy: Path | None) -> bool:
    return policy is None and ctx.judge_engines()[0] == ctx.policy_engine()


def prompts_key(config: RunConfig, run_id: str, folder: str) -> str:
    """What makes prompt shards those of this run: it keeps them even if the files outside change."""
    limit = config.prompts.limit if folder == "prompts" else config.prompts.heldout_limit
    return content_hash([folder, run_id, config.execution.shard_size, limit, config.seed])


def _prompt_shards(
    ctx: RunContext, folder: str, files: Sequence[Path], limit: int | None
) -> list[ShardState]:
    paths = [resolve_path(path) for path in files]
    parent = parent_run(ctx.run) if folder == "prompts" else None
    size = ctx.config.execution.shard_size
    key = prompts_key(ctx.config, ctx.run.run_id, folder)
    rows = read_prompts(
        paths,
        limit=limit,
        seed=ctx.config.seed,
        run_id=ctx.run.run_id,
        exclude=known_prompt_ids(parent) if parent else (),
    )
    if folder == HELDOUT:
        rows = not_trained_on(rows, ctx.run)
    manifests = write_prompt_shards(ctx.run.root, folder, rows, size, key)
    return [{folder: manifest} for manifest in manifests]


async def _train(
    ctx: RunContext,
    name: str,
    config: TrainingConfig,
    data: Path,
    model: Path | None,
    on_line: LineCall | None,
) -> Path:
    policy = ctx.policy_engine(model)
    start = ENGINES[policy.type].starting_model(policy)
    job = TrainingJob(
        config=config,
        model=start.folder,
        dataset=data,
        feedback=feedback_file(ctx.run, config),
        output_dir=ctx.run.training(name),
        reference_cache=ctx.reference_cache,
        chat_template=start.chat_template,
        chat_template_args=start.chat_template_args,
    )
    return (await launch(job, on_line=on_line)).model_dir
