"""The command `plan`: what a recipe will take, from a pilot of a few prompts."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.cli.run import complete
from pipeline.cli.tables import console, number_table
from pipeline.cli.terminal import print_json, say
from pipeline.errors import ConfigError
from pipeline.run.forecast import Range
from pipeline.run.pilot import Plan, StagePlan, plan_recipe
from pipeline.run.plan_trainings import TrainingPlan


def make_plan(recipe: Path, overrides: Sequence[str], num_prompts: int) -> Plan:
    """Run the pilot. Raises UserError as `plan_recipe`, or for fewer than two prompts."""
    if num_prompts < 2:
        raise ConfigError(f"--prompts is {num_prompts}, but intervals need 2 or more")
    return complete(plan_recipe(recipe, overrides, num_prompts), lambda: "stopped; nothing is kept")


def print_plan(plan: Plan, as_json: bool = False) -> None:
    """Print the plan as a table, a line for each stage."""
    if as_json:
        print_json(asdict(plan))
        return
    head = ["stage", "rows", "tokens", "hours", *([plan.currency] if plan.currency else [])]
    rows = [_cells(stage) for stage in (*plan.stages, plan.total)]
    console().print(number_table(head, rows))
    say(
        f"{_spelled(plan.prompts, 0)} prompts give {_spelled(plan.pairs, 0)} pairs, by a pilot of "
        f"{plan.pilot_prompts} prompts ({plan.pilot_tokens:,} tokens)"
    )
    for training in plan.trainings:
        say(_training_line(training))
    for note in plan.notes:
        say(f"note: {note}")


def _training_line(plan: TrainingPlan) -> str:
    hours = (
        f"{_spelled(plan.hours, 2)} hours at the pace of run {plan.like}"
        if plan.hours
        else "hours unknown, since no run of this recipe has trained like that here"
    )
    steps, rows = (_spelled(value, 0) for value in (plan.steps, plan.rows))
    return f"{plan.name}, not in the sums: {steps} steps over {rows} rows, {hours}"


def _cells(stage: StagePlan) -> list[str]:
    money = [_spelled(stage.money, 2)] if stage.money else []
    return [
        stage.stage,
        f"{stage.rows:,.0f}",
        _spelled(stage.tokens, 0),
        _spelled(stage.hours, 2),
        *money,
    ]


def _spelled(value: Range, digits: int) -> str:
    middle, low, high = (f"{v:,.{digits}f}" for v in (value.value, value.low, value.high))
    return middle if low == high else f"{middle} ({low} to {high})"
