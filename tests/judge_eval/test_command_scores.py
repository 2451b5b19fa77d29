"""`rlaif judge-eval` of labelers that score one response at a time."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.commands import Rlaif
from tests.judge_eval.builders import ENGINE, write_judge_recipe, write_noisy_pairs, write_pairs
from tests.judge_eval.command_runs import metrics_of, rows_of


def reward_recipe(folder: Path, *, scale: float = 1.0, pair: Any = None, **args: Any) -> Path:
    """A recipe with a scripted reward model: the reward is the number at the end of a text."""
    engine = {"type": "scripted", "script": ENGINE, "args": args}
    preference = {
        "labeler": "reward_model",
        "reward_model": {"engine": engine, "scale": scale},
        **({"pair": pair} if pair else {}),
    }
    return write_judge_recipe(folder, preference=preference)


def test_reward_model_is_measured_like_a_judge(rlaif: Rlaif, tmp_path: Path) -> None:
    """The better response is 1.5 ahead: P = 1 / (1 + e^-1.5) = 0.817574 for each pair."""
    pairs = write_pairs(tmp_path / "p.jsonl")
    ended = rlaif("judge-eval", pairs, "--recipe", reward_recipe(tmp_path / "r"), "--name", "e")
    assert ended.code == 0, ended.err
    (judge,) = metrics_of(tmp_path)["judges"]
    assert judge["accuracy"]["share"] == 1 and judge["accuracy"]["n"] == 40
    assert judge["confidence"]["mean"] == pytest.approx(0.817574, abs=1e-6)
    assert judge["position"]["order_disagreement"] is None and judge["by_principle"] == []
    assert "Position" not in ended.out and len(rows_of(tmp_path, "preference/score")) == 80


def test_wrong_reward_model_is_found_out(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = reward_recipe(tmp_path / "r", sharpness=-1.0)
    pairs = write_pairs(tmp_path / "p.jsonl")
    assert rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e").code == 0
    assert metrics_of(tmp_path)["judges"][0]["accuracy"]["share"] == 0


def test_calibration_of_scores_is_a_scale(rlaif: Rlaif, tmp_path: Path) -> None:
    """Labels follow sigmoid of the difference; a model 4 times as sure needs a scale of about 4."""
    pairs, out = write_noisy_pairs(tmp_path / "p.jsonl", 600), tmp_path / "c.json"
    recipe = reward_recipe(tmp_path / "r", sharpness=4.0)
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e", "--calibrate", out)
    assert ended.code == 0, ended.err
    fitted = metrics_of(tmp_path)["calibration"]
    assert fitted["scale"] == pytest.approx(4.0, rel=0.3)
    assert fitted["scale"] == json.loads(out.read_text())["temperature"]
    assert f"set the labeler's `scale` to {fitted['scale']:.4g}" in ended.out


def test_known_labels_bound_a_run_with_that_reward_model_alone(
    rlaif: Rlaif, tmp_path: Path
) -> None:
    pairs, out = write_noisy_pairs(tmp_path / "p.jsonl", 600), tmp_path / "known.json"
    recipe = reward_recipe(tmp_path / "r")
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e", "--known-labels", out)
    assert ended.code == 0, ended.err
    pair = {"max_error": 0.2, "known_labels": str(out)}
    assert rlaif("check", reward_recipe(tmp_path / "same", pair=pair)).code == 0
    for changes in ({"scale": 2.0}, {"name": "another"}):
        other = rlaif("check", reward_recipe(tmp_path / "other", pair=pair, **changes))
        assert other.code == 2 and "known labels" in other.err


def test_tuning_needs_a_judge(rlaif: Rlaif, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl")
    ended = rlaif("judge-tune", reward_recipe(tmp_path / "r"), pairs)
    assert ended.code == 2 and "is 'reward_model', which has one way of asking" in ended.err


def test_ratings_are_measured_too(rlaif: Rlaif, tmp_path: Path) -> None:
    """The scripted model of runs rates the polite response 8 and others 3."""
    lines = [
        {"prompt": f"q {i}?", "chosen": f"polite {i}", "rejected": f"blunt {i}"} for i in range(8)
    ]
    pairs = tmp_path / "p.jsonl"
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = write_judge_recipe(tmp_path / "r", preference={"labeler": "score"})
    value = yaml.safe_load(recipe.read_text())
    value["judge"] = {"type": "scripted", "script": "tests.run.scripted_world:make_engine"}
    recipe.write_text(yaml.safe_dump(value))
    assert rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e").code == 0
    (judge,) = metrics_of(tmp_path)["judges"]
    assert judge["accuracy"]["share"] == 1
    assert {group["id"] for group in judge["by_principle"]} <= {"p-0", "p-1", "p-2"}
