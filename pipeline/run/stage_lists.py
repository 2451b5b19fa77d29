"""Which stages a recipe asks for, in order. Pure: a context and open engines in, stages out."""

from pipeline.engines.base import Engine
from pipeline.run.context import RunContext
from pipeline.stages.base import Stage
from pipeline.stages.critique import CritiqueStage
from pipeline.stages.judge import JudgeStage
from pipeline.stages.pair import PairStage
from pipeline.stages.revise import ReviseStage
from pipeline.stages.sample import SampleStage

INITIALS = "supervised/sample"
SAMPLES = "preference/sample"


def supervised_stages(ctx: RunContext, engine: Engine) -> list[Stage]:
    """Sample, then critique and revise `rounds` times; one principle per round and response."""
    config = ctx.config.supervised
    run_id, seed = ctx.run.run_id, ctx.config.seed
    stages: list[Stage] = [SampleStage(
        engine=engine, sampling=config.sample.sampling(), num_samples=config.sample.num_samples,
        seed=seed, run_id=run_id, folder=INITIALS,
    )]
    source = INITIALS
    for number in range(1, config.revise.rounds + 1):
        critique = CritiqueStage(
            engine=engine, constitution=ctx.constitution, template=ctx.templates.critique,
            sampling=config.revise.critique.sampling(), seed=seed, run_id=run_id, round=number,
            source=source,
        )
        revise = ReviseStage(
            engine=engine, constitution=ctx.constitution,
            critique_template=ctx.templates.critique, template=ctx.templates.revise,
            sampling=config.revise.revision.sampling(), seed=seed, run_id=run_id, round=number,
            source=source,
        )
        stages += [critique, revise]
        source = revise.folder
    return stages


def last_revisions(ctx: RunContext) -> str:
    """Folder of the last revisions."""
    return f"supervised/revise-{ctx.config.supervised.revise.rounds}"


def compared_revisions(ctx: RunContext) -> tuple[str, ...]:
    """Folders of the supervised phase that the comparisons need; none for samples alone."""
    if ctx.config.preference.comparisons not in ("revision_vs_initial", "all"):
        return ()
    return (INITIALS, last_revisions(ctx))


def sample_stage(ctx: RunContext, engine: Engine) -> list[Stage]:
    """The samples that are compared; none when only revisions are."""
    if ctx.config.preference.comparisons == "revision_vs_initial":
        return []
    sample = ctx.config.preference.sample
    return [SampleStage(
        engine=engine, sampling=sample.sampling(), num_samples=sample.num_samples,
        seed=ctx.config.seed, run_id=ctx.run.run_id, folder=SAMPLES,
    )]


def judge_stages(ctx: RunContext, engine: Engine) -> list[Stage]:
    """Judge and pair."""
    config = ctx.config.preference
    with_samples = config.comparisons != "revision_vs_initial"
    with_revisions = bool(compared_revisions(ctx))
    judge = JudgeStage(
        engine=engine, constitution=ctx.constitution, template=ctx.templates.judge,
        judge=config.judge, comparisons=config.comparisons, seed=ctx.config.seed,
        run_id=ctx.run.run_id, samples=SAMPLES if with_samples else None,
        initials=INITIALS if with_revisions else None,
        revisions=last_revisions(ctx) if with_revisions else None,
    )
    texts = tuple(name for name in (judge.samples, judge.initials, judge.revisions) if name)
    return [judge, PairStage(pair=config.pair, run_id=ctx.run.run_id, responses=texts)]


def evaluation_sample(ctx: RunContext, engine: Engine, policy: str) -> Stage:
    """Responses of one policy to the held-out prompts."""
    sample = ctx.config.evaluation.sample
    return SampleStage(
        engine=engine, sampling=sample.sampling(), num_samples=sample.num_samples,
        seed=ctx.config.seed, run_id=ctx.run.run_id, folder=f"evaluation/sample-{policy}",
        prompts="heldout",
    )


def evaluation_judge(ctx: RunContext, engine: Engine, policy: str, other: str) -> Stage:
    """Comparisons of two policies, sample by sample: `first` is the policy's response."""
    return JudgeStage(
        engine=engine, constitution=ctx.constitution, template=ctx.templates.judge,
        judge=ctx.config.preference.judge, comparisons="evaluation", seed=ctx.config.seed,
        run_id=ctx.run.run_id, samples=f"evaluation/sample-{policy}",
        initials=f"evaluation/sample-{other}", folder=f"evaluation/judge-{policy}-vs-{other}",
        prompts="heldout",
    )
