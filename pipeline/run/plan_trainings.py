"""What the trainings of a recipe will take: rows and steps, and hours where a run tells the pace.

In:  a recipe, and forecasts of its rows by a pilot, which trains nothing
Out: TrainingPlan for each training

Does not: know which rows are too long, rows of label sources and of earlier nights, sequences that
hold several rows, or how many devices take part.
"""

import math
from dataclasses import dataclass, replace

from pydantic import ValidationError

from pipeline.config import RunConfig, load_config
from pipeline.config.training import (
    KtoConfig,
    OnlineSection,
    RewardModelTrainingConfig,
    RftConfig,
    TrainingConfig,
    TrainingSection,
)
from pipeline.errors import UserError
from pipeline.run.forecast import Range
from pipeline.run.start import runs_root
from pipeline.store import RunDir, read_json
from pipeline.training.job import TrainingResult

PACE_FIELDS = {"method", "batch_size", "gradient_accumulation", "max_length", "lora", "compile"}
"""Settings of a training that its seconds per step depend on most."""


@dataclass(frozen=True)
class TrainingPlan:
    """What one training will take."""

    name: str
    """`training/sft` or `training/preference`."""
    rows: Range
    """Rows, pairs or replies of one pass."""
    steps: Range
    hours: Range | None
    """None where no run tells the pace."""
    like: str
    """The run that tells it; empty without one."""


def plan_training(
    config: RunConfig, name: str, section: TrainingConfig, rows: Range, prompts: Range
) -> TrainingPlan:
    """The plan of one training.

    Args:
        rows: texts of the SFT set, or pairs that are kept.
        prompts: prompts that these rows belong to.
    """
    rows = rows_of_pass(section, rows, prompts)
    steps = Range(*(num_steps(section, n) for n in (rows.value, rows.low, rows.high)))
    plan = TrainingPlan(f"training/{name}", rows, steps, None, "")
    earlier = earlier_training(config, name, section)
    if earlier is None or not earlier[1].num_steps:
        return plan
    run, result = earlier
    step_s, around_s = result.train_s / result.num_steps, result.total_s - result.train_s
    seconds = (around_s + n * step_s for n in (steps.value, steps.low, steps.high))
    return replace(plan, hours=Range(*(s / 3600 for s in seconds)), like=run.run_id)


def rows_of_pass(section: TrainingSection, rows: Range, prompts: Range) -> Range:
    """What one pass of a method goes over, from texts or pairs, before any is left out as unusable:
    two replies of each pair, the best reply of each prompt, or what it samples to each.
    """
    match section:
        case KtoConfig():
            rows = rows.times(2)
        case RftConfig():
            rows = prompts
        case OnlineSection():
            rows = prompts.times(section.num_samples)
        case RewardModelTrainingConfig():
            rows = rows.times(1 - section.heldout_share)
    most = section.max_rows or math.inf
    return Range(*(min(n, most) for n in (rows.value, rows.low, rows.high)))


def num_steps(section: TrainingSection, rows: float) -> float:
    """Optimizer steps over that many rows on one device, as TRL counts them: each pass ends with a
    smaller batch, and a smaller step. Infinite for endlessly many rows.
    """
    if section.max_steps is not None:
        return section.max_steps
    if not rows or rows == math.inf:
        return rows
    updates = section.updates if isinstance(section, OnlineSection) else 1
    batches = math.ceil(round(rows) / section.batch_size)
    return math.ceil(section.epochs * updates * math.ceil(batches / section.gradient_accumulation))


def earlier_training(
    config: RunConfig, name: str, section: TrainingSection
) -> tuple[RunDir, TrainingResult] | None:
    """The latest training of a run of this recipe's name from the same model, whose steps take as
    long; None where there is none.
    """
    paths = runs_root().glob(f"*/training/{name}/result.json")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        run = RunDir(path.parents[2])
        try:
            other = load_config(run.recipe)
            result = TrainingResult.model_validate(read_json(path) or {})
        except (UserError, ValidationError):
            continue
        phase = other.supervised if name == "sft" else other.preference
        alike = phase.train is not None and _pace(phase.train) == _pace(section)
        if alike and (other.name, other.policy) == (config.name, config.policy):
            return run, result
    return None


def _pace(section: TrainingSection) -> dict[str, object]:
    return section.model_dump(include=PACE_FIELDS)
