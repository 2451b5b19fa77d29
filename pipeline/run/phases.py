"""The phases of a run: what each one does, in order. Finished work is read from disk, not redone.

    supervised   prompts -> responses -> critiques -> revisions -> SFT set -> SL-CAI policy
    preference   prompts -> samples -> labels -> pairs -> preference set
    training     preference set -> tuned policy
    evaluation   held-out prompts -> every policy -> comparisons -> metrics
    report       report.html, report.md

A driver runs the pieces, as plain calls or as Prefect's tasks (`flows/`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.labeling import PreferenceConfig
from pipeline.config.recipe import SupervisedConfig
from pipeline.config.training import ReferenceSection, TrainingConfig
from pipeline.data.dataset import load_dataset
from pipeline.data.export import export_preference, export_sft
from pipeline.data.prompts import first_shards
from pipeline.engines import ENGINES, ScriptedEngine
from pipeline.errors import BudgetSpentError
from pipeline.evaluation import collect_metrics, load_oracle
from pipeline.evaluation.gate import decide, unprobed_trainings
from pipeline.impact.version import relabel_version
from pipeline.report import write_report
from pipeline.review.outcome import reviewed
from pipeline.run.audit_gate import require_audit
from pipeline.run.context import PROMOTED, RunContext, fixed_reference
from pipeline.run.driver import PLAIN, Driver
from pipeline.run.passes import (
    Pass,
    StageMaker,
    draw_shards,
    heldout_shards,
    judges_itself,
    label_passes,
    prompt_shards,
    require_finished,
    run_pass,
    run_passes,
)
from pipeline.run.plan import (
    compared_texts,
    direction_ratings,
    direction_samples,
    evaluation_judges,
    evaluation_samples,
    finished_folders,
    label_stages,
    other_sample_stages,
    sample_stages,
    supervised_stages,
)
from pipeline.run.promoted import write_promoted
from pipeline.run.start import review_folder
from pipeline.run.target import count_kept, describe_target, next_draw
from pipeline.run.webhook import send_promotion
from pipeline.store import RunDir, write_json
from pipeline.store.remote import mirror_of
from pipeline.store.shards import iter_manifests
from pipeline.store.spending import stop_clock
from pipeline.store.stage_names import HELDOUT, PROMPTS
from pipeline.training.job import TrainingJob
from pipeline.training.launch import launch

RELABEL = "relabel-version"
WRITE_SFT, TRAIN_SFT = "write-sft-set", "train-sft"
WRITE_PREFERENCE, TRAIN_PREFERENCE = "write-preference-set", "train-preference"
REPORT = "report"


async def supervised_phase(ctx: RunContext, driver: Driver = PLAIN) -> None:
    """Revise the initial policy's responses and learn from the revisions. A night under a changed
    constitution first makes again what the change touches in the version that it extends.
    """
    if ctx.run.info().get("relabel"):
        await driver.step(RELABEL, lambda: relabel_version(ctx))
    await supervised_chain(ctx, driver)
    await driver.step(WRITE_SFT, lambda: supervised_dataset(ctx))
    await driver.step(TRAIN_SFT, lambda: train(ctx, "sft", ctx.config.supervised))


async def preference_phase(ctx: RunContext, driver: Driver = PLAIN) -> None:
    """Label comparisons under the constitution, and write the pairs as a data set."""
    await preference_chain(ctx, driver)
    await driver.step(WRITE_PREFERENCE, lambda: preference_dataset(ctx))


async def training_phase(ctx: RunContext, driver: Driver = PLAIN) -> None:
    """Learn from the pairs."""
    await driver.step(TRAIN_PREFERENCE, lambda: train_preference(ctx))


async def evaluation_phase(ctx: RunContext, driver: Driver = PLAIN) -> None:
    """Sample every policy on the held-out prompts, judge them in pairs, write the metrics."""
    if ctx.config.evaluation.enabled and ctx.config.prompts.heldout:
        await run_passes(ctx, evaluation_passes(ctx), heldout_shards(ctx), driver)
    oracle = ctx.config.evaluation.oracle
    metrics = collect_metrics(ctx.run, ctx.config, load_oracle(oracle) if oracle else None)
    if gate := ctx.config.evaluation.gate:
        if gate.review:
            found = reviewed(ctx.run, review_folder(ctx.run))
            metrics = metrics.model_copy(update={"review": found})
        result = decide(gate, metrics, ctx.run.run_id, unprobed_trainings(ctx.config))
        metrics = metrics.model_copy(update={"gate": result})
        if result.decision == PROMOTED:
            write_promoted(ctx, metrics)
            # Before the entry: a run that is stopped between the two sends it twice, and not never.
            send_promotion(ctx.run, ctx.config.webhook_env)
        ctx.run.update_info(gate=result.decision)
    write_json(ctx.run.metrics, metrics.model_dump(mode="json"))


def evaluation_passes(ctx: RunContext) -> list[Pass]:
    """The samples of every policy, then the judge of each two."""
    names = policies(ctx)
    passes: list[Pass] = [
        (ctx.policy_engine(folder), [partial(evaluation_samples, policy=name)])
        for name, folder in names.items()
    ]
    judges: list[StageMaker] = [partial(evaluation_judges, matches=matches(list(names)))]
    if "tuned" in names:
        passes[-1][1].append(direction_samples)
        judges.append(direction_ratings)
    return [*passes, (ctx.evaluation_judge(), judges)]


async def report_phase(
    ctx: RunContext, driver: Driver = PLAIN, phases: Sequence[str] | None = None
) -> Path:
    """Write the report and mark the run as finished; returns the report's path.

    Args:
        phases: those that were run, if not all: without the last one the run is not finished.
    """

    def finish() -> Path:
        stop_clock(ctx.run)
        report = write_report(ctx.run)
        last = phases is None or list(PHASES)[-1] in phases
        ctx.run.end("finished" if last else f"stopped after {', '.join(phases or ())}")
        return report

    report: Path = await driver.step(REPORT, finish)
    return report


Phase = Callable[[RunContext, Driver], Awaitable[None]]
PHASES: dict[str, Phase] = {
    "supervised": supervised_phase,
    "preference": preference_phase,
    "training": training_phase,
    "evaluation": evaluation_phase,
}
"""The phases before the report, in order."""


async def run_all(ctx: RunContext, driver: Driver = PLAIN) -> Path:
    """Take a run through all phases, in order; returns the report's path.

    Raises:
        RunStoppedError: too many rows failed; all that succeeded is on disk.
        AuditError: the labels or texts failed their audit.
        TrainingError: a training ended badly.
    """
    for phase in PHASES.values():
        await phase(ctx, driver)
    return await report_phase(ctx, driver)


async def supervised_chain(ctx: RunContext, driver: Driver = PLAIN) -> None:
    """Prompts and held-out prompts, then initial responses, critiques and revisions.

    When only revisions are compared and the policy judges itself, the labels are made in the same
    pass, while each shard's prefix is still in the engine's cache.
    """
    shards = prompt_shards(ctx)[: first_shards(ctx.run.root, PROMPTS)]
    if ctx.config.prompts.heldout:
        # Write them now, not when they are needed: a file that changes during the run must not
        # change which prompts are held out of its data.
        heldout_shards(ctx)
    if not ctx.config.supervised.enabled:
        return
    makers: list[StageMaker] = [supervised_stages]
    alone = judges_itself(ctx, None) and not ctx.config.panel
    if ctx.config.preference.enabled and alone and compared_texts(ctx).samples is None:
        makers.append(label_stages)
    await run_pass(ctx, ctx.policy_engine(), shards, makers, driver)


async def preference_chain(ctx: RunContext, driver: Driver = PLAIN) -> Sequence[int]:
    """Samples of the SL-CAI policy (without SFT, of the initial one) and of further policies, their
    labels and pairs; of further prompts too, until the pairs that the recipe orders are kept.
    Returns the shards that were labeled, by index.

    Raises:
        BudgetSpentError: says how many pairs there are so far.
    """
    shards = prompt_shards(ctx)
    if not ctx.config.preference.enabled:
        return shards
    target = ctx.config.prompts.target_pairs
    if target is None:
        await _label_shards(ctx, shards, driver)
        return shards
    labeled = [*shards]
    try:
        await _label_shards(ctx, shards, driver)
        while (kept := count_kept(ctx.run)) < target:
            drawn = _num_prompts(ctx)
            number, limit = next_draw(target, kept, drawn), ctx.config.prompts.limit
            more = draw_shards(ctx, number if limit is None else min(number, limit - drawn))
            if not more:
                break
            ctx.progress.note(
                f"{kept:,} of {target:,} pairs from {drawn:,} prompts; more are drawn"
            )
            await _label_shards(ctx, more, driver)
            labeled += more
    except BudgetSpentError as error:
        line = describe_target(ctx.run, target, count_kept(ctx.run), "the budget is spent")
        raise BudgetSpentError(f"{error}. {line}") from None
    line = describe_target(ctx.run, target, kept, f"all {_num_prompts(ctx):,} prompts are used")
    ctx.run.update_info(target=line)
    ctx.progress.note(line)
    return labeled


def _num_prompts(ctx: RunContext) -> int:
    return sum(m.counts.expected for m in iter_manifests(ctx.run.root, PROMPTS))


async def _label_shards(ctx: RunContext, shards: Sequence[int], driver: Driver) -> None:
    if finished_folders(ctx) and ctx.config.prompts.target_pairs is not None:
        # Prompts of a later draw have no revisions yet.
        await run_pass(ctx, ctx.policy_engine(), shards, [supervised_stages], driver)
    require_finished(ctx, shards, finished_folders(ctx))
    await run_passes(ctx, preference_passes(ctx), shards, driver)


def preference_passes(ctx: RunContext) -> list[Pass]:
    """The samples of the other policies and of the policy, then the labels."""
    passes: list[Pass] = [
        (other, [partial(other_sample_stages, name=name)])
        for name, other in ctx.other_policies().items()
    ]
    policy = sl_cai_model(ctx)
    makers: list[StageMaker] = [sample_stages]
    labels = label_passes(ctx)
    if judges_itself(ctx, policy):
        makers += labels.pop(0)[1]
    return [*passes, (ctx.policy_engine(policy), makers), *labels]


def supervised_dataset(ctx: RunContext) -> dict[str, Any]:
    """Write dataset/sft.parquet from the revisions; returns its counts."""
    return export_sft(ctx.run, ctx.config, ctx.constitution)


def preference_dataset(ctx: RunContext) -> dict[str, Any]:
    """Write dataset/preference.parquet from the pairs, and feedback.parquet where users gave any;
    returns their counts.

    Raises:
        AuditError: labels or texts miss the recipe's thresholds; nothing is exported.
    """
    require_audit(ctx)
    return export_preference(ctx.run, ctx.config, ctx.constitution)


async def train(
    ctx: RunContext,
    name: str,
    section: SupervisedConfig | PreferenceConfig,
    model: Path | None = None,
) -> Path | None:
    """Train a policy on one data set; returns its folder, or None when the recipe trains none.

    Args:
        name: the training's folder, `sft` or `preference`.
        section: the settings of its phase.
        model: folder of the policy to start from; None for the initial policy.

    Raises:
        ConfigError, DataError, MachineError, StoreError, TrainingError: see `launch`.
        BudgetSpentError: hours or money are spent; a later call continues from a checkpoint.
    """
    if not section.enabled or section.train is None:
        return None
    policy = ctx.policy_engine(model)
    start = ENGINES[policy.type].starting_model(policy)
    job = TrainingJob(
        config=section.train,
        model=start.folder,
        reference=fixed_reference(ctx.run) if holds_reference(section.train) else None,
        dataset=ctx.run.dataset / f"{section.train.learns_from}.parquet",
        feedback=feedback_file(ctx.run, section.train),
        output_dir=ctx.run.training(name),
        reference_cache=ctx.reference_cache,
        chat_template=start.chat_template,
        chat_template_args=start.chat_template_args,
        reward_model=ctx.reward_model() if section.train.learns_online else None,
    )
    meter = ctx.runner.meter

    def show(line: str) -> None:
        # A finished training writes no line, and needs no budget.
        if limit.when() is None and (left := meter.seconds_left()) is not None:
            limit.reschedule(asyncio.get_running_loop().time() + left)
        ctx.progress.training(name, line)

    try:
        async with asyncio.timeout(None) as limit:
            result = await launch(job, on_line=show)
    except TimeoutError:
        raise BudgetSpentError(meter.problem() or "the budget is spent") from None
    if (store := mirror_of(ctx.run.root)) is not None:
        store.push(ctx.run.root)
    return result.model_dir


async def train_preference(ctx: RunContext) -> Path | None:
    """Train the tuned policy or a reward model, from the SL-CAI policy where there is one; see
    `train`.
    """
    return await train(ctx, "preference", ctx.config.preference, sl_cai_model(ctx))


def sl_cai_model(ctx: RunContext) -> Path | None:
    """Folder of the SL-CAI policy; None when the recipe trains none."""
    return _model_folder(ctx, "sft", ctx.config.supervised)


def tuned_model(ctx: RunContext) -> Path | None:
    """Folder of the tuned policy; None when the recipe trains none, or a reward model."""
    return _model_folder(ctx, "preference", ctx.config.preference)


def _model_folder(
    ctx: RunContext, name: str, section: SupervisedConfig | PreferenceConfig
) -> Path | None:
    trains = section.enabled and section.train is not None and section.train.trains_policy
    return ctx.run.training(name) / "model" if trains else None


def policies(ctx: RunContext) -> dict[str, Path | None]:
    """The policies of the run, first to last, with their folders; None for the initial policy."""
    trained = {"sl_cai": sl_cai_model(ctx), "tuned": tuned_model(ctx)}
    return {"initial": None} | {name: path for name, path in trained.items() if path is not None}


def matches(names: list[str]) -> list[tuple[str, str]]:
    """The policies to compare: each later one with each earlier one."""
    return [(later, earlier) for i, later in enumerate(names) for earlier in names[:i]]


def planned_folders(ctx: RunContext) -> set[str]:
    """Folders that the recipe of a run fills with shards."""
    config = ctx.config
    passes = preference_passes(ctx) if config.preference.enabled else []
    if config.evaluation.enabled and config.prompts.heldout:
        passes += evaluation_passes(ctx)
    makers: list[StageMaker] = [supervised_stages] if config.supervised.enabled else []
    makers += [maker for _, of_pass in passes for maker in of_pass]
    # No folder is named by a model, or by what was fitted to one.
    labeling = replace(ctx.files.labeling, calibration=None, known_labels=None)
    ctx = replace(ctx, files=replace(ctx.files, labeling=labeling))
    engine = ScriptedEngine(lambda messages: "")
    stages = (stage for maker in makers for stage in maker(ctx, engine))
    return {PROMPTS, HELDOUT, *(stage.folder for stage in stages)}


def holds_reference(config: TrainingConfig) -> bool:
    """Whether all rounds are trained against the reference of the first."""
    return isinstance(config, ReferenceSection) and config.reference == "fixed"


def feedback_file(run: RunDir, config: TrainingConfig) -> Path | None:
    """Path of the users' feedback in a run's data set; None when there is none, or when the method
    takes pairs alone.
    """
    dataset = load_dataset(run)
    if not config.takes_feedback or dataset is None or "feedback" not in dataset.sets:
        return None
    return run.root / dataset.sets["feedback"].path
