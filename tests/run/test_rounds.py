"""Rounds: new prompts in each, and an end when the policy gets no better."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig, load_config
from pipeline.data.dataset import load_dataset
from pipeline.errors import ConfigError
from pipeline.run.nightly import nightly_runs, take_run
from pipeline.run.rounds import next_round, run_rounds
from pipeline.run.start import check_recipe, check_rounds
from pipeline.store import RunDir
from tests.run.builders import write_recipe

GATE = {"gate": {"max_empty": 0.5}}


def with_rounds(recipe: Path, rounds: int) -> RunConfig:
    """The settings that a recipe which trains would have; the scripted policy cannot be trained."""
    return load_config(recipe).model_copy(update={"rounds": rounds})


def test_each_round_has_new_prompts_until_the_policy_gets_no_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    # The policy that a round would promote is not there, as nothing was trained.
    monkeypatch.setattr("pipeline.run.nightly.promoted_model", lambda run: None)
    quiet = {"audit": {"enabled": False}}
    limits: dict[str, Any] = {"supervised": {"enabled": False}, "preference": quiet}
    recipe = write_recipe(tmp_path, prompts=10, evaluation={"enabled": False}, **limits)
    text = recipe.read_text().replace("prompts:\n", "prompts:\n  limit: 3\n")
    recipe.write_text(text)
    decisions = iter(["promoted", "promoted", "candidate"])
    said: list[str] = []

    def take(run: RunDir) -> None:
        run.update_info(policy_of=None)
        asyncio.run(take_run(run))
        run.update_info(gate=next(decisions))

    run_rounds(recipe, with_rounds(recipe, 2), take, said.append)
    assert [line.partition(":")[0] for line in said[:2]] == ["round 1 of 2", "round 2 of 2"]
    assert said[2].startswith("all 2 rounds are done")
    run_rounds(recipe, with_rounds(recipe, 9), take, said.append)
    assert "round 3 (run small-nightly" in said[-1] and "made no better policy" in said[-1]
    rounds = nightly_runs("small")
    assert len(rounds) == 3 and next_round(recipe, with_rounds(recipe, 9)).run is None
    versions = [load_dataset(run) for run in rounds]
    assert [v.version for v in versions if v] == [1, 2, 3]
    assert [run.info()["parent"] for run in rounds] == [None, *(r.run_id for r in rounds[:2])]


def test_rounds_without_new_prompts_are_one_line(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prompts=10)
    config = load_config(recipe)

    def check(rounds: int, limit: int | None) -> None:
        prompts = config.prompts.model_copy(update={"limit": limit})
        check_rounds(config.model_copy(update={"rounds": rounds, "prompts": prompts}), 10)

    check(1, None)
    check(3, 4)
    with pytest.raises(ConfigError, match=r"rounds: 3 .* have 10 and prompts.limit is 5; set .* 3"):
        check(3, 5)
    with pytest.raises(ConfigError, match=r"without prompts.limit the first takes all; set"):
        check(2, None)
    with pytest.raises(ConfigError, match=r"prompts.limit is 1; add prompts, or lower `rounds`"):
        check(11, 1)


def test_rounds_need_a_gate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rounds need evaluation.gate"):
        check_recipe(write_recipe(tmp_path, rounds=2))
