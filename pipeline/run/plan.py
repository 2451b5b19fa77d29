"""Which stages a recipe asks for, in order: a context with its prompts and open engines in, stages out."""

import itertools

from pipeline.audits.canary_stage import CanaryStage
from pipeline.audits.judge_audit import canary_folder
from pipeline.engines.base import Engine
from pipeline.labeling.calibration import check_calibration
from pipeline.labeling.judge import Judge
from pipeline.labeling.judge_stage import JudgeStage
from pipeline.labeling.pair import PairStage
from pipeline.labeling.pool import PoolStage
from pipeline.run.context import RunContext
from pipeline.run.label_stages import score_stages
from pipeline.stages.base import Stage
from pipeline.stages.critique import CritiqueStage
from pipeline.stages.revise import ReviseStage
from pipeline.stages.sample import SampleStage
from pipeline.store.shards import stage_manifests

INITIALS = "supervised/sample"
SAMPLES = "preference/sample"


def supervised_stages(ctx: RunContext, engine: Engine) -> list[Stage]:
    """Sample, then critique and revise `rounds` times; one principle per round and response."""
    config = ctx.config.supervised
    run_id, seed = ctx.run.run_id, ctx.config.seed
    stages: list[Stage] = [
        SampleStage(
            engine=engine,
            sampling=config.sample.sampling(),
            num_samples=config.sample.num_samples,
            seed=seed,
            run_id=run_id,
            folder=INITIALS,
        )
    ]
    source = INITIALS
    for number in range(1, config.revise.rounds + 1):
        if config.revise.with_critique:
            stages.append(
                CritiqueStage(
                    engine=engine,
                    constitution=ctx.constitution,
                    template=ctx.templates.critique,
                    sampling=config.revise.critique.sampling(),
                    seed=seed,
                    run_id=run_id,
                    round=number,
                    source=source,
                )
            )
        revise = ReviseStage(
            engine=engine,
            constitution=ctx.constitution,
            critique_template=ctx.templates.critique,
            template=ctx.templates.revise,
            sampling=config.revise.revision.sampling(),
            seed=seed,
            run_id=run_id,
            round=number,
            source=source,
            revise=config.revise,
        )
        stages.append(revise)
        source = revise.folder
    return stages


def revision_folders(ctx: RunContext) -> list[str]:
    """Folders of the texts of the chain: initial responses, then each round's revisions."""
    rounds = ctx.config.supervised.revise.rounds
    return [INITIALS, *(f"supervised/revise-{number}" for number in range(1, rounds + 1))]


def efficacy_stages(ctx: RunContext, engine: Engine) -> list[Stage]:
    """Each revision against the text before it, under the principle that asked for it."""
    folders = revision_folders(ctx)
    return [
        JudgeStage(
            judge=make_judge(ctx, engine),
            comparisons="efficacy",
            run_id=ctx.run.run_id,
            samples=None,
            initials=before,
            revisions=after,
            folder=f"supervised/efficacy-{number}",
        )
        for number, (before, after) in enumerate(itertools.pairwise(folders), start=1)
    ]


def last_revisions(ctx: RunContext) -> str:
    """Folder of the last revisions."""
    return f"supervised/revise-{ctx.config.supervised.revise.rounds}"


def compared_revisions(ctx: RunContext) -> tuple[str, ...]:
    """Folders of the supervised phase that the comparisons need; none for samples alone."""
    if ctx.config.preference.comparisons not in ("revision_vs_initial", "all"):
        return ()
    return (INITIALS, last_revisions(ctx))


def finished_folders(ctx: RunContext) -> tuple[str, ...]:
    """Folders of the supervised phase that the preference phase reads."""
    measures = ctx.config.supervised.enabled and ctx.config.supervised.revise.efficacy
    folders = revision_folders(ctx) if measures else []
    return tuple(dict.fromkeys([*compared_revisions(ctx), *folders]))


def sample_stage(ctx: RunContext, engine: Engine) -> list[Stage]:
    """The samples that are compared; none when only revisions are."""
    if ctx.config.preference.comparisons == "revision_vs_initial":
        return []
    sample = ctx.config.preference.sample
    return [
        SampleStage(
            engine=engine,
            sampling=sample.sampling(),
            num_samples=sample.num_samples,
            seed=ctx.config.seed,
            run_id=ctx.run.run_id,
            folder=SAMPLES,
        )
    ]


def make_judge(ctx: RunContext, engine: Engine) -> Judge:
    """A model with the recipe's way of asking it.

    Raises:
        ConfigError: the recipe's calibration was fitted for another judge or another way.
    """
    judge = Judge(
        engine=engine,
        constitution=ctx.constitution,
        template=ctx.templates.judge,
        config=ctx.config.preference.judge,
        seed=ctx.config.seed,
        exemplars=ctx.labeling.exemplars,
        calibration=ctx.labeling.calibration,
    )
    if judge.calibration is not None:
        check_calibration(judge.calibration, engine.fingerprint, judge.method_hash)
    return judge


def judge_folders(ctx: RunContext) -> tuple[str, ...]:
    """Folder of each judge's labels: `preference/judge`, then `preference/judge-2`, ..."""
    count = len(ctx.config.judge_engines)
    return ("preference/judge", *(f"preference/judge-{n}" for n in range(2, count + 1)))


def label_folder(ctx: RunContext) -> str:
    """Folder of the labels that become pairs."""
    config = ctx.config.preference
    several = config.labeler == "judge" and config.judge.num_principles > 1
    return "preference/pool" if several or len(judge_folders(ctx)) > 1 else "preference/judge"


def judge_stages(ctx: RunContext, engine: Engine, number: int = 0) -> list[Stage]:
    """The labels of judge `number` of the panel; after the last one, the pairs."""
    config = ctx.config.preference
    folders = judge_folders(ctx)
    pairs = pair_stages(ctx) if number == len(folders) - 1 else []
    if config.labeler != "judge":
        return [*score_stages(ctx, engine, folders[number], compared_folders(ctx)), *pairs]
    judge = JudgeStage(
        judge=make_judge(ctx, engine),
        comparisons=config.comparisons,
        run_id=ctx.run.run_id,
        folder=folders[number],
        **compared_folders(ctx),
    )
    return [judge, *canary_stages(ctx, judge), *pairs]


def canary_stages(ctx: RunContext, labels: JudgeStage) -> list[Stage]:
    """What a judge is asked besides, when the recipe audits its labels."""
    audit = ctx.config.preference.audit
    if not audit.enabled or not audit.canaries_per_shard:
        return []
    texts = tuple(name for name in (labels.samples, labels.initials, labels.revisions) if name)
    # The prompts are on disk before any label, and their shards stay what they are when a run resumes.
    count = audit.canaries_in_shard(len(stage_manifests(ctx.run.root, labels.prompts)))
    return [
        CanaryStage(
            judge=labels.judge,
            canaries=ctx.labeling.canaries,
            count=count,
            run_id=ctx.run.run_id,
            texts=texts,
            judgments=labels.folder,
            folder=canary_folder(labels.folder),
        )
    ]


def pair_stages(ctx: RunContext) -> list[Stage]:
    """From labels to pairs."""
    run_id, labels = ctx.run.run_id, label_folder(ctx)
    texts = tuple(name for name in compared_folders(ctx).values() if name)
    pool = [PoolStage(judge_folders(ctx), run_id)] if labels == "preference/pool" else []
    return [
        *pool,
        PairStage(
            pair=ctx.config.preference.pair, run_id=run_id, responses=texts, judgments=labels
        ),
    ]


def compared_folders(ctx: RunContext) -> dict[str, str | None]:
    """What is compared with what: samples, initial responses and last revisions."""
    revisions = bool(compared_revisions(ctx))
    return {
        "samples": SAMPLES if ctx.config.preference.comparisons != "revision_vs_initial" else None,
        "initials": INITIALS if revisions else None,
        "revisions": last_revisions(ctx) if revisions else None,
    }


def evaluation_sample(ctx: RunContext, engine: Engine, policy: str) -> Stage:
    """Responses of one policy to the held-out prompts."""
    sample = ctx.config.evaluation.sample
    return SampleStage(
        engine=engine,
        sampling=sample.sampling(),
        num_samples=sample.num_samples,
        seed=ctx.config.seed,
        run_id=ctx.run.run_id,
        folder=f"evaluation/sample-{policy}",
        prompts="heldout",
    )


def evaluation_judge(ctx: RunContext, engine: Engine, policy: str, other: str) -> Stage:
    """Comparisons of two policies, sample by sample: `first` is the policy's response."""
    return JudgeStage(
        judge=make_judge(ctx, engine),
        comparisons="evaluation",
        run_id=ctx.run.run_id,
        samples=f"evaluation/sample-{policy}",
        initials=f"evaluation/sample-{other}",
        folder=f"evaluation/judge-{policy}-vs-{other}",
        prompts="heldout",
    )
