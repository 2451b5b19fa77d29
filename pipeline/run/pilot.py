"""A pilot: a few prompts through all stages of a recipe, and what the whole run will take by that.

In:  a recipe
Out: Plan: rows, tokens, hours and money of each stage, with 95 % intervals

The prompt is the unit: a stage's total over N prompts follows from its values for the n prompts of
the pilot. Hours assume the pilot's pace; an engine that batches is faster with more prompts.

Does not: train (`plan_trainings.py` counts steps), or see the responses of trained policies, which
may be longer.
"""

import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.config.budget import ModelPrice, PricesConfig
from pipeline.config.engines import EngineConfig
from pipeline.config.overrides import override
from pipeline.config.yaml_file import parse_model
from pipeline.data.export import sft_folders
from pipeline.data.heldout import check_prompts
from pipeline.engines.base import Engine
from pipeline.errors import BudgetSpentError, UserError
from pipeline.labeling.judge_stage import JudgeStage
from pipeline.progress import current_progress
from pipeline.records import ModelRow
from pipeline.run.context import RunContext, open_context, resolved_engine
from pipeline.run.forecast import Range, forecast_sum
from pipeline.run.passes import heldout_shards, run_pass
from pipeline.run.phases import preference_chain, supervised_chain
from pipeline.run.plan import compared_texts, evaluation_samples, second_judge
from pipeline.run.plan_trainings import TrainingPlan, plan_training
from pipeline.run.start import CheckedRecipe, check_recipe, start_run, work_in
from pipeline.run.target import first_draw
from pipeline.stages.base import Stage
from pipeline.store import RunDir
from pipeline.store.shards import Manifest, stage_manifests, stage_rows
from pipeline.store.spending import spending
from pipeline.store.stage_names import (
    CANARY,
    EVALUATION,
    JUDGE,
    LABELS,
    PAIRS,
    PREFERENCE,
    PROMPTS,
    SUPERVISED,
    split_folder,
    stage_folder,
    stage_folders,
)

PROMPTS_OF_PILOT = 8
OF_POLICIES = stage_folder(EVALUATION, JUDGE)
"""Comparisons of policies."""


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take."""

    stage: str
    rows: float
    """Texts, labels or comparisons; a comparison that is asked in both orders is one row."""
    tokens: Range
    hours: Range
    money: Range | None
    """None without prices."""


@dataclass(frozen=True)
class Plan:
    """What a whole run will take."""

    recipe: str
    pilot_prompts: int
    pilot_tokens: int
    prompts: Range
    """Training prompts; uncertain where a number of pairs is ordered."""
    pairs: Range
    """Pairs that are kept of these prompts."""
    currency: str | None
    stages: list[StagePlan]
    total: StagePlan
    """The sums; their intervals add up, as if all stages were long or short together."""
    trainings: list[TrainingPlan]
    """Not in the sums."""
    notes: list[str]
    """What is not in the figures, or will not fit."""


async def plan_recipe(
    recipe: Path, overrides: Sequence[str] = (), num_prompts: int = PROMPTS_OF_PILOT
) -> Plan:
    """Run the pilot in a folder that is removed at the end, and scale it up.

    Args:
        num_prompts: prompts of the pilot; 2 or more give intervals.

    Raises:
        UserError: see `check_recipe`; or the budget ends before the pilot.
    """
    checked = check_recipe(recipe, overrides=overrides)
    with tempfile.TemporaryDirectory(prefix="rlaif-plan-") as folder:
        pilot = _pilot_of(checked, num_prompts)
        run = start_run(pilot, run_id="pilot", runs_root_folder=Path(folder))
        with work_in(run):
            ctx = open_context(run, current_progress())
            try:
                await _take(ctx, checked.config.evaluation.judge)
            except BudgetSpentError as error:
                spent = str(error).partition(";")[0]
                raise UserError(
                    f"the budget ends before the pilot of {num_prompts} prompts ({spent}); raise "
                    "it, or lower --prompts"
                ) from None
        return _scaled(checked.config, str(recipe), run)


def _pilot_of(checked: CheckedRecipe, num_prompts: int) -> CheckedRecipe:
    changes = [
        f"prompts.limit={num_prompts}",
        f"prompts.heldout_limit={num_prompts}",
        "prompts.target_pairs=null",
        "supervised.train=null",
        "preference.train=null",
        "evaluation.gate=null",
        "evaluation.judge=null",
        "preference.audit.min_rows=1",
        f"execution.shard_size={num_prompts}",
    ]
    text = override(checked.text, changes, "the recipe")
    return replace(checked, config=parse_model(text, RunConfig, "the pilot"), text=text)


async def _take(ctx: RunContext, second: EngineConfig | None) -> None:
    await supervised_chain(ctx)
    labeled = await preference_chain(ctx)
    if second is not None and ctx.config.preference.enabled:
        await run_pass(ctx, resolved_engine(second), labeled, [_second_verdicts])
    if ctx.config.evaluation.enabled and ctx.config.prompts.heldout:
        sample = partial(evaluation_samples, policy="initial")
        await run_pass(ctx, ctx.policy_engine(), heldout_shards(ctx), [sample])


def _second_verdicts(ctx: RunContext, engine: Engine) -> list[Stage]:
    """The labeled comparisons, asked of the judge of the evaluation: the pilot has one policy."""
    judge = second_judge(ctx, engine)
    return [JudgeStage(judge, compared_texts(ctx), ctx.run.run_id, OF_POLICIES)]


def _scaled(config: RunConfig, recipe: str, run: RunDir) -> Plan:
    prompts = config.prompts
    counts = check_prompts(prompts.train, prompts.heldout)
    available = min(counts.train, prompts.limit or counts.train)
    num_heldout = min(counts.heldout, prompts.heldout_limit or counts.heldout)
    pilot = [row.row_id for row in stage_rows(run.root, PROMPTS)]
    kept = dict.fromkeys(pilot, 0.0)
    for row in stage_rows(run.root, PAIRS):
        kept[row.prompt_id] += row.status == "ok"
    number, notes = prompts_needed(prompts.target_pairs, list(kept.values()), available)
    policies = 1 + sum(
        section.enabled and section.train is not None and section.train.trains_policy
        for section in (config.supervised, config.preference)
    )
    revised = config.preference.comparisons in ("revision_vs_initial", "all")
    first = number.value if revised else min(available, first_draw(config) or available)
    units = {SUPERVISED: first, PREFERENCE: number.value, EVALUATION: num_heldout * policies}
    stages, forecast = [], partial(_forecast, config, run)
    for folder in stage_folders(run.root):
        phase, kind, _ = split_folder(folder)
        if folder == OF_POLICIES:
            continue
        if kind == CANARY:
            shards = math.ceil(number.value / config.execution.shard_size)
            audit = config.preference.audit
            times = shards * audit.canaries_in_shard(shards) / audit.canaries_per_shard
            num_rows = len(list(stage_rows(run.root, folder)))
            stages.append(forecast(folder, folder, times * num_rows, by_row=True))
        else:
            stages.append(forecast(folder, folder, units.get(phase, 0)))
    if config.evaluation.enabled and num_heldout and policies > 1:
        compared = math.comb(policies, 2) * num_heldout * config.evaluation.sample.num_samples
        like = OF_POLICIES if stage_manifests(run.root, OF_POLICIES) else LABELS
        plan = forecast(OF_POLICIES, like, compared, by_row=True)
        if plan.tokens.value:
            stages.append(plan)
        else:  # scores and rewards are not comparisons, of which the judge makes these
            notes.append(f"{OF_POLICIES} is not in these figures: no stage like it ran")
    stages = [stage for stage in stages if stage.tokens.value]
    if config.supervised.enabled and config.supervised.train and config.preference.enabled:
        notes.append(
            "the pilot's samples are those of the initial policy; after SFT they are often more "
            "alike, and give fewer pairs and steps than these figures say"
        )
    total = _total(stages)
    for name, limit in config.budget.limits.items():
        needed: Range | None = getattr(total, name)
        if needed and needed.high > limit:
            word = "is too little" if needed.low > limit else "may be too little"
            notes.append(f"budget.{name} of {limit:,} {word}")
    return Plan(
        recipe=recipe,
        pilot_prompts=len(pilot),
        pilot_tokens=spending(run, None)["all"].tokens,
        prompts=number,
        pairs=forecast_sum(list(kept.values()), number.value),
        currency=config.prices.currency if config.prices else None,
        stages=stages,
        total=total,
        trainings=_trainings(config, run, kept, first, number),
        notes=notes,
    )


def _trainings(
    config: RunConfig, run: RunDir, kept: dict[str, float], first: float, number: Range
) -> list[TrainingPlan]:
    """The trainings, from the pilot's texts and pairs of each prompt.

    Args:
        kept: pairs by prompt.
        first: prompts of the supervised phase.
        number: prompts of the preference phase.
    """
    plans = []
    if config.supervised.enabled and (sft := config.supervised.train):
        texts = dict.fromkeys(kept, 0.0)
        for folder in sft_folders(config):
            for row in stage_rows(run.root, folder):
                texts[row.prompt_id] += row.status == "ok"
        rows = forecast_sum(list(texts.values()), first)
        plans.append(plan_training(config, "sft", sft, rows, Range(first, first, first)))
    if config.preference.enabled and (train := config.preference.train):
        pairs = forecast_sum(list(kept.values()), number.value)
        prompts = forecast_sum([float(n > 0) for n in kept.values()], number.value)
        plans.append(plan_training(config, "preference", train, pairs, prompts))
    return plans


def prompts_needed(
    target: int | None, kept: Sequence[float], available: int
) -> tuple[Range, list[str]]:
    """Prompts that a run will draw, and a note where they will not, or may not, do.

    Args:
        target: pairs that are ordered; None for a run over all prompts.
        kept: pairs that each prompt of the pilot gave.
    """
    if target is None:
        return Range(available, available, available), []
    share = forecast_sum(kept, len(kept)).times(1 / len(kept))
    value, low, high = (
        target / pairs if pairs else math.inf for pairs in (share.value, share.high, share.low)
    )
    needed = Range(
        *(min(math.ceil(n) if n < math.inf else n, available) for n in (value, low, high))
    )
    if high <= available:
        return needed, []
    word = "will not" if low > available else "may not"
    return needed, [f"{available:,} prompts {word} give {target:,} pairs; add prompts"]


def _forecast(
    config: RunConfig, run: RunDir, name: str, folder: str, units: float, *, by_row: bool = False
) -> StagePlan:
    """What the stage `name` takes for this number of prompts, or rows, by those of `folder`."""
    manifests = stage_manifests(run.root, folder)
    model = manifests[0].engine.get("name", "") if manifests else ""
    prices = config.prices or PricesConfig()
    price = prices.models.get(model, ModelPrice())
    groups: dict[str, list[ModelRow]] = defaultdict(list)
    for row in stage_rows(run.root, folder):
        if isinstance(row, ModelRow):
            groups[row.row_id if by_row else row.prompt_id].append(row)
    rows = [len(group) for group in groups.values()]
    read = [sum(row.num_prompt_tokens for row in group) for group in groups.values()]
    written = [sum(row.num_tokens for row in group) for group in groups.values()]
    tokens = forecast_sum([i + o for i, o in zip(read, written, strict=True)], units)
    paid = sum(read) + sum(written)
    share = stage_seconds(manifests) / 3600 / paid if paid else 0.0
    hours = tokens.times(share)
    money = None
    if config.prices:
        each = forecast_sum([price.of(i, o) for i, o in zip(read, written, strict=True)], units)
        money = each + hours.times(prices.hour)
    num_rows = units * sum(rows) / len(rows) if rows else 0
    return StagePlan(name, round(num_rows), tokens, hours, money)


def stage_seconds(manifests: Iterable[Manifest]) -> float:
    """Seconds of the shards of a stage; the pilot takes one shard at a time."""
    return sum(manifest.counts.seconds for manifest in manifests)


def _total(stages: Sequence[StagePlan]) -> StagePlan:
    nothing = Range(0.0, 0.0, 0.0)
    money = [stage.money for stage in stages if stage.money]
    return StagePlan(
        "all",
        sum(stage.rows for stage in stages),
        sum((stage.tokens for stage in stages), nothing),
        sum((stage.hours for stage in stages), nothing),
        sum(money, nothing) if money else None,
    )
