"""The stages that a recipe asks for, in order, one function for each pass of a run.

In:  the context of a run whose prompts are on disk, and an open engine
Out: stages with their settings and folders; nothing has run yet
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.audits.canary_stage import CanaryStage
from pipeline.config.sampling import SampleConfig
from pipeline.config.training import DpaConfig
from pipeline.data.prompts import first_shards
from pipeline.engines.base import Engine
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.conflicts import Conflicts, conflicts_of
from pipeline.labeling.directions import at_angle, request
from pipeline.labeling.judge import Judge
from pipeline.labeling.judge_stage import JudgeStage, make_judge
from pipeline.labeling.labelers import labeler_of
from pipeline.labeling.pair import PairStage
from pipeline.labeling.pool import PoolStage
from pipeline.labeling.score import make_score_stage
from pipeline.run.context import RunContext
from pipeline.stages.base import Stage
from pipeline.stages.critique import CritiqueStage
from pipeline.stages.revise import ReviseStage
from pipeline.stages.sample import SampleStage
from pipeline.store.stage_names import (
    CANARY,
    DIRECTED,
    EFFICACY,
    EVALUATION,
    HELDOUT,
    INITIALS,
    JUDGE,
    LABELS,
    POOLED,
    PREFERENCE,
    PROMPTS,
    REVISE,
    SAMPLE,
    SAMPLES,
    SCORE,
    SUPERVISED,
    nth_folder,
    split_folder,
    stage_folder,
)


def supervised_stages(ctx: RunContext, engine: Engine) -> list[Stage]:
    """Initial responses, then `rounds` times a critique and a revision of each."""
    config, templates = ctx.config.supervised, ctx.files.templates
    stages: list[Stage] = [_sample(ctx, engine, INITIALS, config.sample)]
    for number, source in enumerate(chain_folders(ctx)[:-1], start=1):
        common: dict[str, Any] = {
            "engine": engine,
            "constitution": ctx.constitution,
            "seed": ctx.config.seed,
            "run_id": ctx.run.run_id,
            "round": number,
            "source": source,
        }
        if config.revise.with_critique:
            sampling = config.revise.critique.sampling()
            stages.append(CritiqueStage(template=templates.critique, sampling=sampling, **common))
        stages.append(
            ReviseStage(
                critique_template=templates.critique,
                template=templates.revise,
                sampling=config.revise.revision.sampling(),
                revise=config.revise,
                **common,
            )
        )
    return stages


def chain_folders(ctx: RunContext) -> list[str]:
    """Folders of the initial responses and of each round's revisions, in order."""
    rounds = range(1, ctx.config.supervised.revise.rounds + 1)
    return [INITIALS, *(stage_folder(SUPERVISED, REVISE, number) for number in rounds)]


def measures_efficacy(ctx: RunContext) -> bool:
    """Whether the judge compares each revision with the text before it."""
    config = ctx.config.supervised
    return bool(config.enabled and config.revise.efficacy and config.revise.rounds)


def efficacy_stages(ctx: RunContext, engine: Engine) -> list[Stage]:
    """The judge's comparisons of each revision with the text before it, under the principle of the
    revision.
    """
    return [
        JudgeStage(
            judge=make_judge(ctx.labeling, engine),
            compared=Compared("efficacy", initials=before, revisions=after),
            run_id=ctx.run.run_id,
            folder=stage_folder(SUPERVISED, EFFICACY, number),
        )
        for number, (before, after) in enumerate(itertools.pairwise(chain_folders(ctx)), start=1)
    ]


def compared_texts(ctx: RunContext) -> Compared:
    """The folders whose texts the preference phase compares."""
    mode = ctx.config.preference.comparisons
    if mode == "delta":
        stronger, weaker = (stage_folder(PREFERENCE, SAMPLE, s) for s in ctx.config.delta_sides)
        return Compared(mode, samples=stronger, initials=weaker)
    revisions = mode in ("revision_vs_initial", "all")
    return Compared(
        mode,
        samples=SAMPLES if mode != "revision_vs_initial" else None,
        others=tuple(stage_folder(PREFERENCE, SAMPLE, name) for name in ctx.config.policies.named),
        initials=INITIALS if revisions else None,
        revisions=chain_folders(ctx)[-1] if revisions else None,
    )


def finished_folders(ctx: RunContext) -> tuple[str, ...]:
    """Folders of the supervised phase that the preference phase reads, each once."""
    texts = compared_texts(ctx).texts
    revisions = [name for name in texts if split_folder(name)[0] == SUPERVISED]
    measured = chain_folders(ctx) if measures_efficacy(ctx) else []
    return tuple(dict.fromkeys([*revisions, *measured]))


def sample_stages(ctx: RunContext, engine: Engine) -> list[Stage]:
    """The policy's samples; empty when the recipe compares revisions or other policies alone."""
    if SAMPLES not in compared_texts(ctx).texts:
        return []
    return [_sample(ctx, engine, SAMPLES, ctx.config.preference.sample)]


def other_sample_stages(ctx: RunContext, engine: Engine, name: str) -> list[Stage]:
    """The samples of a further policy, `weaker` or `stronger`."""
    folder = stage_folder(PREFERENCE, SAMPLE, name)
    return [_sample(ctx, engine, folder, ctx.config.samples_of(name))]


def judge_folders(ctx: RunContext) -> tuple[str, ...]:
    """Folder of each judge's labels: `preference/judge`, `preference/judge-2`, ..."""
    return tuple(nth_folder(JUDGE, number) for number in range(len(ctx.config.label_engines)))


def label_folder(ctx: RunContext) -> str:
    """Folder of the labels that become pairs."""
    config = ctx.config.preference
    several = labeler_of(config).labels_per_comparison(config) > 1 or len(judge_folders(ctx)) > 1
    return POOLED if several or conflicts(ctx) else LABELS


def conflicts(ctx: RunContext) -> Conflicts | None:
    """How conflicts of principles are resolved; None where there are none to resolve."""
    config = ctx.config.preference
    resolves = labeler_of(config).resolves_conflicts
    return conflicts_of(ctx.constitution, config) if resolves else None


def label_stages(ctx: RunContext, engine: Engine, number: int = 0) -> list[Stage]:
    """The labels of one judge and its canaries; for the last judge of the panel, the pairs too.

    Args:
        number: index of the judge in the panel, from 0.
    """
    labeler = labeler_of(ctx.config.preference)
    compared = compared_texts(ctx)
    stages = labeler.stages(ctx.labeling, engine, compared, number)
    if labeler.has_orders:
        stages += canary_stages(ctx, engine, compared, number)
    last = number == len(judge_folders(ctx)) - 1
    return [*stages, *pair_stages(ctx)] if last else stages


def canary_stages(ctx: RunContext, engine: Engine, compared: Compared, number: int) -> list[Stage]:
    """Comparisons with known answers; empty when the recipe does not audit its labels."""
    audit = ctx.config.preference.audit
    if not audit.enabled or not audit.canaries_per_shard:
        return []
    # The prompts are on disk before any label; later draws leave the canaries of the first alone.
    num_shards = first_shards(ctx.run.root, PROMPTS)
    return [
        CanaryStage(
            judge=make_judge(ctx.labeling, engine),
            canaries=ctx.files.canaries,
            count=audit.canaries_in_shard(num_shards),
            run_id=ctx.run.run_id,
            texts=compared.texts,
            judgments=nth_folder(JUDGE, number),
            folder=nth_folder(CANARY, number),
        )
    ]


def pair_stages(ctx: RunContext) -> list[Stage]:
    """Pairs from labels, pooled first where a comparison has several."""
    run_id, labels = ctx.run.run_id, label_folder(ctx)
    pool = PoolStage(judge_folders(ctx), run_id, conflicts=conflicts(ctx))
    bound = ctx.files.labeling.error_bound
    pairs = PairStage(
        pair=ctx.config.preference.pair,
        run_id=run_id,
        responses=compared_texts(ctx).texts,
        judgments=labels,
        least_label=bound.least_label if bound else 0.5,
    )
    return [pool, pairs] if labels == POOLED else [pairs]


def evaluation_samples(ctx: RunContext, engine: Engine, policy: str) -> list[Stage]:
    """Responses of one policy to the held-out prompts."""
    folder = stage_folder(EVALUATION, SAMPLE, policy)
    return [_sample(ctx, engine, folder, ctx.config.evaluation.sample, HELDOUT)]


def direction_samples(ctx: RunContext, engine: Engine) -> list[Stage]:
    """Responses of the tuned policy to the held-out prompts, in each measured direction; empty for
    a policy that was not trained on directions.
    """
    train = ctx.config.preference.train
    if not isinstance(train, DpaConfig):
        return []
    return [
        _sample(
            ctx,
            engine,
            stage_folder(EVALUATION, DIRECTED, number),
            ctx.config.evaluation.sample,
            HELDOUT,
            request(train.attributes, at_angle(angle)),
        )
        for number, angle in enumerate(train.measured_angles, start=1)
    ]


def direction_ratings(ctx: RunContext, engine: Engine) -> list[Stage]:
    """Ratings of the responses of `direction_samples`, under all principles."""
    train = ctx.config.preference.train
    if not isinstance(train, DpaConfig):
        return []
    return [
        make_score_stage(
            ctx.labeling,
            engine,
            Compared(
                "evaluation", samples=stage_folder(EVALUATION, DIRECTED, number), prompts=HELDOUT
            ),
            stage_folder(EVALUATION, SCORE, number),
        )
        for number, _ in enumerate(train.measured_angles, start=1)
    ]


def second_judge(ctx: RunContext, engine: Engine) -> Judge:
    """The recipe's `evaluation.judge`: without the calibration, which the labeling judge's labels
    were fitted to.
    """
    inputs = ctx.labeling
    return make_judge(replace(inputs, files=replace(inputs.files, calibration=None)), engine)


def evaluation_judges(
    ctx: RunContext, engine: Engine, matches: Sequence[tuple[str, str]]
) -> list[Stage]:
    """Comparisons of two policies each, sample by sample.

    Args:
        matches: the policies to compare; the first one's response is `first` in each comparison.
    """
    own = ctx.config.evaluation.judge is not None
    judge = second_judge(ctx, engine) if own else make_judge(ctx.labeling, engine)
    return [
        JudgeStage(
            judge=judge,
            compared=Compared(
                "evaluation",
                samples=stage_folder(EVALUATION, SAMPLE, policy),
                initials=stage_folder(EVALUATION, SAMPLE, other),
                prompts=HELDOUT,
            ),
            run_id=ctx.run.run_id,
            folder=stage_folder(EVALUATION, JUDGE, f"{policy}-vs-{other}"),
        )
        for policy, other in matches
    ]


def _sample(
    ctx: RunContext,
    engine: Engine,
    folder: str,
    config: SampleConfig,
    prompts: str = PROMPTS,
    opening: str = "",
) -> SampleStage:
    return SampleStage(
        engine=engine,
        sampling=config.sampling(),
        num_samples=config.num_samples,
        seed=ctx.config.seed,
        run_id=ctx.run.run_id,
        folder=folder,
        prompts=prompts,
        opening=opening,
    )
