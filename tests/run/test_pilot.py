"""A plan: what a run takes by a pilot, against what it then took."""

import math
from pathlib import Path

import pytest
import yaml

from pipeline.run.forecast import forecast_sum
from pipeline.run.nightly import take_run
from pipeline.run.pilot import plan_recipe, prompts_needed
from pipeline.run.start import start_run
from pipeline.store.spending import spending
from tests.cli.commands import Rlaif, rlaif
from tests.run.builders import write_recipe

__all__ = ["rlaif"]

PRICES = {"hour": 1, "models": {"scripted": {"input": 2, "output": 10}}}
TWO_SAMPLES = {"audit": {"enabled": False}, "sample": {"num_samples": 2}}


def test_forecast_of_a_sum() -> None:
    """10 and 14 have mean 12 and deviation 2.828; t[1] is 12.706: 100 of them are 1200, half-width
    12.706 * 2.828 * 100 * sqrt(0.5 + 0.01) = 2566, and at least 0.
    """
    total = forecast_sum([10, 14], 100)
    assert total.value == 1200 and total.low == 0
    assert total.high - 1200 == pytest.approx(2566, abs=1)
    assert forecast_sum([5, 5, 5], 10).low == forecast_sum([5, 5, 5], 10).high == 50
    assert forecast_sum([], 10).value == forecast_sum([3], 0).high == 0
    assert forecast_sum([3], 2).high == math.inf


def test_prompts_for_ordered_pairs() -> None:
    """One pair in two prompts: 50 pairs need 100, if there are as many."""
    needed, notes = prompts_needed(50, [1, 0] * 50, 1000)
    assert needed.value == 100 and needed.low < 100 < needed.high and not notes
    assert prompts_needed(50, [1, 0] * 50, 60)[1] == [
        "60 prompts will not give 50 pairs; add prompts"
    ]
    assert prompts_needed(50, [0, 0], 60)[0].value == 60
    assert prompts_needed(None, [0, 0], 60)[0].high == 60


async def test_plan_is_what_the_run_then_takes(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prompts=24, heldout=5, preference=TWO_SAMPLES, prices=PRICES)
    plan = await plan_recipe(recipe)
    run = start_run(recipe, run_id="one", runs_root_folder=tmp_path / "runs")
    await take_run(run)
    spent = spending(run, None)
    for stage in plan.stages:
        assert stage.tokens.low <= spent[stage.stage].tokens <= stage.tokens.high * 1.01, stage
    assert plan.total.tokens.value == pytest.approx(spent["all"].tokens, rel=0.05)
    assert plan.pilot_prompts == 8 and plan.total.money and plan.total.money.value > 0


def test_command(tmp_path: Path, rlaif: Rlaif) -> None:
    recipe = write_recipe(tmp_path, prompts=12, preference=TWO_SAMPLES)
    values = yaml.safe_load(recipe.read_text())
    values["prompts"]["target_pairs"] = 400
    values["budget"] = {"tokens": 900}
    recipe.write_text(yaml.safe_dump(values))
    ended = rlaif("plan", recipe, "--prompts", 3)
    assert ended.code == 0 and "supervised/sample" in ended.out
    assert "note: 12 prompts" in ended.out and "note: budget.tokens of 900" in ended.out
    ended = rlaif("plan", recipe, "--prompts", 3, "--set", "budget.tokens=5")
    assert ended.code == 2 and "the budget ends before the pilot of 3 prompts (" in ended.err
    assert rlaif("plan", recipe, "--prompts", 1).code == 2
    assert not (tmp_path / "outputs/runs").exists()
