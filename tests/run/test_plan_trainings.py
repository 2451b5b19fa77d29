"""Rows, steps and hours of trainings that a plan forecasts, by hand."""

import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.plan import print_plan
from pipeline.config import load_config
from pipeline.config.training import DpoConfig, KtoConfig, RftConfig, RlooConfig, SftConfig
from pipeline.run.forecast import Range
from pipeline.run.pilot import Plan, StagePlan
from pipeline.run.plan_trainings import num_steps, plan_training, rows_of_pass
from pipeline.store import write_json
from tests.run.builders import write_recipe

TRAIN = {"method": "dpo", "batch_size": 16, "epochs": 3}


def exactly(number: float) -> Range:
    return Range(number, number, number)


def test_steps_of_a_training() -> None:
    """114 pairs in batches of 16 are 8 steps, three times. 10 rows in batches of 4 are 3, of which
    two make a step: 2. Half a pass over 5 steps ends in the third.
    """
    assert num_steps(DpoConfig(batch_size=16, epochs=3), 114) == 24
    assert num_steps(SftConfig(batch_size=4, gradient_accumulation=2), 10) == 2
    assert num_steps(SftConfig(batch_size=2, epochs=0.5), 10) == 3
    assert num_steps(SftConfig(max_steps=7), 10) == 7
    assert num_steps(SftConfig(), 0) == 0 and num_steps(SftConfig(), math.inf) == math.inf


def test_rows_of_a_pass() -> None:
    """30 pairs of 10 prompts: 60 single replies, 10 best ones, 4 replies to each prompt."""
    pairs, prompts = exactly(30), exactly(10)
    assert rows_of_pass(DpoConfig(), pairs, prompts).value == 30
    assert rows_of_pass(DpoConfig(max_rows=20), pairs, prompts).high == 20
    assert rows_of_pass(KtoConfig(), pairs, prompts).value == 60
    assert rows_of_pass(RftConfig(), pairs, prompts).value == 10
    assert rows_of_pass(RlooConfig(num_samples=4), pairs, prompts).value == 40


def test_hours_by_the_pace_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """10 steps in 30 s, and 60 s around them: 24 steps take 60 + 72 s, 0.0367 hours."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    recipe = write_recipe(
        tmp_path, policy={"type": "vllm", "model": "models/pocket"}, preference={"train": TRAIN}
    )
    config = load_config(recipe)
    train = config.preference.train
    assert train is not None
    run = tmp_path / "outputs/runs/before"
    result: dict[str, Any] = {
        "method": "dpo",
        **dict.fromkeys(["job_hash", "dataset_sha256", "model_hash", "trained_hash"], ""),
        "model_dir": str(run),
        "num_steps": 10,
        "train_s": 30.0,
        "total_s": 90.0,
        "final_loss": 0.1,
        "rows": {"read": 1, "used": 1},
        "device": "cpu",
    }

    def plan() -> tuple[Range | None, str]:
        made = plan_training(config, "preference", train, exactly(114), exactly(10))
        nothing = StagePlan("all", 0, exactly(0), exactly(0), None)
        figures: Any = ("r", 8, 9, exactly(1), exactly(1), None, [], nothing, [made], [])
        print_plan(Plan(*figures))
        return made.hours, capsys.readouterr().out

    hours, shown = plan()
    assert hours is None
    assert "training/preference, not in the sums: 24 steps over 114 rows, hours unknown" in shown
    (run / "training/preference").mkdir(parents=True)
    write_json(run / "run.json", {"run_id": "before"})
    (run / "recipe.yaml").write_text(recipe.read_text())
    write_json(run / "training/preference/result.json", result)
    hours, shown = plan()
    assert hours and hours.value == pytest.approx(132 / 3600)
    assert "24 steps over 114 rows, 0.04 hours at the pace of run before" in shown
    (run / "recipe.yaml").write_text(recipe.read_text().replace("batch_size: 16", "batch_size: 4"))
    assert plan()[0] is None
