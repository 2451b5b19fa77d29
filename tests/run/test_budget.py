"""A budget stops a run, which is kept and continues with a larger one; no token counts twice."""

import asyncio
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config.budget import BudgetConfig, ModelPrice, PricesConfig
from pipeline.config.recipe import RunConfig
from pipeline.errors import BudgetSpentError, ConfigError
from pipeline.records import ResponseRow
from pipeline.report import headline_numbers
from pipeline.report.source import read_run
from pipeline.report.tables import stage_table
from pipeline.run.nightly import take_run
from pipeline.run.start import begin_run, change_budget, start_run
from pipeline.stages.meter import Meter
from pipeline.store import RunDir
from pipeline.store.shards import stage_rows
from pipeline.store.spending import spending, stop_clock, timed, worked_seconds
from pipeline.store.stage_names import PAIRS, stage_folders
from tests.cli.commands import Rlaif, rlaif
from tests.run.builders import CONFIG, write_recipe

__all__ = ["rlaif"]

PRICES = {"currency": "EUR", "hour": 0.5, "models": {"scripted": {"input": 2, "output": 10}}}
QUIET = {"audit": {"enabled": False}}


def take(run: RunDir) -> None:
    asyncio.run(take_run(run))


def test_price_of_tokens() -> None:
    """2 EUR for a million in, 10 for a million out: 500,000 and 40,000 cost 1 + 0.4."""
    assert ModelPrice(input=2, output=10).of(500_000, 40_000) == pytest.approx(1.4)


def test_meter_adds_tokens_and_hours() -> None:
    """300 + 200 tokens cost 300 * 2 / 1e6 + 200 * 10 / 1e6 = 0.0026; 2 hours cost 1; 3 EUR leave
    (3 - 1.0026) / 0.5 = 3.9948 hours.
    """
    prices = PricesConfig.model_validate(PRICES)
    meter = Meter(BudgetConfig(tokens=500, money=3), prices, seconds=lambda: 7200.0)
    meter.add(ResponseRow(row_id="a", num_prompt_tokens=300, num_tokens=199), "scripted")
    assert meter.problem() is None
    meter.add(ResponseRow(row_id="b", num_tokens=1), "scripted")
    assert meter.spent() == pytest.approx({"tokens": 500, "hours": 2, "money": 1.0026})
    assert meter.seconds_left() == pytest.approx(3.9948 * 3600)
    assert (meter.problem() or "").startswith("budget.tokens is spent: 500 tokens of 500 tokens; ")
    assert Meter(BudgetConfig(hours=2), seconds=lambda: 7200.0).seconds_left() == 0
    assert Meter(BudgetConfig(tokens=1)).seconds_left() is None


def test_stopped_run_continues_and_counts_no_token_twice(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prompts=8, preference=QUIET, prices=PRICES)
    whole = start_run(recipe, run_id="one", runs_root_folder=tmp_path / "whole")
    take(whole)
    costs = spending(whole, PricesConfig.model_validate(PRICES))
    assert costs["all"].token_money == pytest.approx(
        sum(stage.token_money for name, stage in costs.items() if name != "all")
    )
    assert costs["supervised/sample"].token_money > 0 and costs["all"].seconds > 0
    tokens = costs["all"].tokens
    budget = {"tokens": tokens // 3}
    recipe = write_recipe(tmp_path, prompts=8, preference=QUIET, prices=PRICES, budget=budget)
    run = start_run(recipe, run_id="one", runs_root_folder=tmp_path / "stopped")
    for _ in range(2):  # the second time nothing is paid for
        with pytest.raises(BudgetSpentError, match=r"budget\.tokens is spent: [\d,]+ tokens of "):
            take(run)
        assert 0 <= spending(run, None)["all"].tokens - tokens // 3 < 100
    change_budget(run, [f"budget.tokens={tokens * 2 // 3}"])
    with pytest.raises(BudgetSpentError):
        take(run)
    change_budget(run, [f"budget.tokens={tokens}"])
    take(run)
    take(run)  # a finished run needs no budget
    assert spending(run, None)["all"].tokens == tokens
    for folder in stage_folders(whole.root):
        assert list(stage_rows(whole.root, folder)) == list(stage_rows(run.root, folder)), folder
    shown = read_run(run)
    assert dict(headline_numbers(run))["Cost"].startswith("0.0")
    assert all(str(row["cost"]).endswith("EUR") for row in stage_table(shown).rows)
    assert f"tokens: {tokens}" in run.recipe.read_text() and run.info()["work"]["since"] is None


def test_killed_attempt_ends_with_its_last_file(tmp_path: Path) -> None:
    run = start_run(write_recipe(tmp_path, prompts=4), run_id="one", runs_root_folder=tmp_path)
    run.update_info(work={"seconds": 5.0, "since": 1_000_000.0})
    with timed(run):
        assert worked_seconds(run) == pytest.approx(5, abs=1)
    assert run.info()["work"]["since"] is None
    stop_clock(run)
    assert worked_seconds(run) == pytest.approx(5, abs=1)


def test_hours_stop_a_run_before_its_first_call(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prompts=4, budget={"hours": 1e-9})
    run = start_run(recipe, run_id="one", runs_root_folder=tmp_path / "runs")
    with pytest.raises(BudgetSpentError, match=r"hours is spent.*`rlaif resume one --set"):
        take(run)
    assert not list(stage_rows(run.root, PAIRS))


def test_only_the_budget_of_a_resumed_run_can_change(tmp_path: Path, rlaif: Rlaif) -> None:
    recipe = write_recipe(tmp_path, prompts=4, preference=QUIET, budget={"tokens": 50})
    assert rlaif("run", recipe, "--run-id", "one", "--no-prefect").code == 1
    ended = rlaif("resume", "one", "--set", "seed=3", "--no-prefect")
    assert ended.code == 2 and "except for its budget; leave out seed" in ended.err
    with pytest.raises(ConfigError, match="except for its budget"):
        begin_run("", "one", resume=True, overrides=["seed=1"])
    ended = rlaif("resume", "one", "--set", "budget.tokens=-1", "--no-prefect")
    assert ended.code == 2 and "budget.tokens" in ended.err
    assert rlaif("resume", "one", "--set", "budget.tokens=null", "--no-prefect").code == 0
    assert rlaif("verify", "one").code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"money": 3}}, "budget.money needs prices"),
        (
            {
                "policy": {"type": "openai", "base_url": "http://h/v1", "model": "m"},
                "prices": {"models": {"n": {"input": 1}}},
            },
            "prices.models names 'n', but no engine",
        ),
        ({"budget": {"hours": 0}}, "greater than 0"),
    ],
)
def test_wrong_budgets(change: dict[str, object], message: str) -> None:
    values = CONFIG.model_dump(mode="json", exclude_unset=True) | change
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate(values)
