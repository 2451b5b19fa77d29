"""The phases of a run, each told once. What is finished on disk is taken, never made again.

    supervised   prompts -> responses -> critiques -> revisions -> SFT set -> SL-CAI policy
    preference   prompts -> samples -> labels -> pairs -> preference set -> tuned policy
    evaluation   held-out prompts -> every policy -> comparisons -> metrics
    report       report.html, report.md

A driver runs the pieces: plainly, or as Prefect's tasks (`flows/`).
"""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.training import TrainingConfig
from pipeline.data.dataset import load_dataset
from pipeline.data.export import export_preference, export_sft
from pipeline.engines import ENGINES
from pipeline.evaluation import collect_metrics, load_oracle
from pipeline.report import write_report
from pipeline.run.audit_gate import require_audit
from pipeline.run.context import RunContext
from pipeline.run.driver import PLAIN, Driver
from pipeline.run.passes import (
    StageMaker,
    heldout_shards,
    judges_itself,
    label_passes,
    prompt_shards,
    run_pass,
    with_finished,
)
from pipeline.run.plan import (
    compared_texts,
    evaluation_judges,
    evaluation_samples,
    finished_folders,
    label_stages,
    sample_stages,
    supervised_stages,
)
from pipeline.stages.runner import ShardState
from pipeline.store import RunDir, write_json
from pipeline.training.job import TrainingJob
from pipeline.training.launch import launch

WRITE_SFT, TRAIN_SFT = "write-sft-set", "train-sft"
WRITE_PREFERENCE, TRAIN_PREFERENCE = "write-preference-set", "train-preference"
REPORT = "report"


async def supervised_phase(ctx: RunContext, driver: Driver = PLAIN) -> None:
    """Revise the initial policy's responses and learn from the revisions."""
    await supervised_chain(ctx, driver)
    await driver.step(WRITE_SFT, lambda: supervised_dataset(ctx))
    await driver.step(TRAIN_SFT, lambda: train_supervised(ctx))


async def preference_phase(ctx: RunContext, driver: Driver = PLAIN) -> None:
    """Label comparisons under the constitution and learn from the pairs."""
    await preference_chain(ctx, driver)
    await driver.step(WRITE_PREFERENCE, lambda: preference_dataset(ctx))
    await driver.step(TRAIN_PREFERENCE, lambda: train_preference(ctx))


async def evaluation_phase(ctx: RunContext, driver: Driver = PLAIN) -> None:
    """Sample every policy on the held-out prompts, judge them in pairs, write the metrics."""
    names = policies(ctx)
    if ctx.config.evaluation.enabled and ctx.config.prompts.heldout:
        shards = heldout_shards(ctx)
        for name, folder in names.items():
            sample = partial(evaluation_samples, policy=name)
            shards = await run_pass(ctx, ctx.policy_engine(folder), shards, [sample], driver)
        judge = partial(evaluation_judges, matches=matches(list(names)))
        await run_pass(ctx, ctx.judge_engines()[0], shards, [judge], driver)
    oracle = ctx.config.evaluation.oracle
    metrics = collect_metrics(ctx.run, ctx.config, load_oracle(oracle) if oracle else None)
    write_json(ctx.run.metrics, metrics.model_dump(mode="json"))


async def report_phase(ctx: RunContext, driver: Driver = PLAIN) -> Path:
    """Write the report and mark the run as finished; returns the report's path."""
    report: Path = await driver.step(REPORT, lambda: finish(ctx))
    return report


Phase = Callable[[RunContext, Driver], Awaitable[None]]
PHASES: dict[str, Phase] = {
    "supervised": supervised_phase,
    "preference": preference_phase,
    "evaluation": evaluation_phase,
}
"""The phases before the report, in order."""


async def run_all(ctx: RunContext, driver: Driver = PLAIN) -> Path:
    """All phases in order; returns the report's path."""
    for phase in PHASES.values():
        await phase(ctx, driver)
    return await report_phase(ctx, driver)


async def supervised_chain(ctx: RunContext, driver: Driver = PLAIN) -> list[ShardState]:
    """Initial responses, critiques and revisions; before them, the prompts and the held-out
    prompts.

    When the comparisons need nothing but revisions and the policy judges itself, the labels are
    made in the same pass, while each shard's prefix is still in the cache.
    """
    shards = prompt_shards(ctx)
    if ctx.config.prompts.heldout:
        # Now, and not when they are needed: files that change while the run is under way must not
        # change what is held out of its data.
        heldout_shards(ctx)
    if not ctx.config.supervised.enabled:
        return shards
    makers: list[StageMaker] = [supervised_stages]
    alone = judges_itself(ctx, None) and not ctx.config.panel
    if ctx.config.preference.enabled and alone and compared_texts(ctx).samples is None:
        makers.append(label_stages)
    return await run_pass(ctx, ctx.policy_engine(), shards, makers, driver)


async def preference_chain(ctx: RunContext, driver: Driver = PLAIN) -> list[ShardState]:
    """Samples of the SL-CAI policy (of the initial one without SFT), labeled and paired."""
    if not ctx.config.preference.enabled:
        return prompt_shards(ctx)
    shards = with_finished(ctx, prompt_shards(ctx), finished_folders(ctx))
    policy = sl_cai_model(ctx)
    makers: list[StageMaker] = [sample_stages]
    passes = label_passes(ctx)
    if judges_itself(ctx, policy):
        makers += passes.pop(0)[1]
    shards = await run_pass(ctx, ctx.policy_engine(policy), shards, makers, driver)
    for engine, judge in passes:
        shards = await run_pass(ctx, engine, shards, judge, driver)
    return shards


def supervised_dataset(ctx: RunContext) -> dict[str, Any]:
    """Write dataset/sft.parquet from the revisions; returns its counts."""
    return export_sft(ctx.run, ctx.config, ctx.constitution)


def preference_dataset(ctx: RunContext) -> dict[str, Any]:
    """Write dataset/preference.parquet from the pairs, and feedback.parquet where users gave any;
    returns their counts.

    Raises:
        AuditError: labels or texts did not reach the recipe's thresholds; nothing is exported.
    """
    require_audit(ctx)
    return export_preference(ctx.run, ctx.config, ctx.constitution)


async def train_supervised(ctx: RunContext) -> Path | None:
    """Train the SL-CAI policy; None when the recipe does not."""
    config = ctx.config.supervised
    if not config.enabled or config.train is None:
        return None
    return await _train(ctx, "sft", config.train, None)


async def train_preference(ctx: RunContext) -> Path | None:
    """Train the tuned policy from the SL-CAI policy; None when the recipe does not."""
    config = ctx.config.preference
    if not config.enabled or config.train is None:
        return None
    return await _train(ctx, "preference", config.train, sl_cai_model(ctx))


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


def policies(ctx: RunContext) -> dict[str, Path | None]:
    """The policies that exist, first to last, with their folders (None: the recipe's own model)."""
    trained = {"sl_cai": sl_cai_model(ctx), "tuned": tuned_model(ctx)}
    return {"initial": None} | {name: path for name, path in trained.items() if path is not None}


def matches(names: list[str]) -> list[tuple[str, str]]:
    """Which policies meet: each later one against each earlier one."""
    return [(later, earlier) for i, later in enumerate(names) for earlier in names[:i]]


def feedback_file(run: RunDir, config: TrainingConfig) -> Path | None:
    """The unpaired rows of a run's data set; None where it has none, or the method takes pairs."""
    dataset = load_dataset(run)
    if not config.takes_feedback or dataset is None or "feedback" not in dataset.sets:
        return None
    return run.root / dataset.sets["feedback"].path


def finish(ctx: RunContext) -> Path:
    """Write the report and mark the run as finished; returns the report's path."""
    report = write_report(ctx.run)
    ctx.run.update_info(status="finished")
    return report


async def _train(ctx: RunContext, name: str, config: TrainingConfig, model: Path | None) -> Path:
    policy = ctx.policy_engine(model)
    start = ENGINES[policy.type].starting_model(policy)
    job = TrainingJob(
        config=config,
        model=start.folder,
        dataset=ctx.run.dataset / f"{name}.parquet",
        feedback=feedback_file(ctx.run, config),
        output_dir=ctx.run.training(name),
        reference_cache=ctx.reference_cache,
        chat_template=start.chat_template,
        chat_template_args=start.chat_template_args,
    )
    result = await launch(job, on_line=lambda line: ctx.progress.training(name, line))
    return result.model_dir
