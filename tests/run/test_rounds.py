"""Rounds: new prompts in each, and an end when the policy gets no better."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig, load_config
from pipeline.config.training import DpoConfig, OrpoConfig
from pipeline.data.dataset import load_dataset
from pipeline.errors import ConfigError, StoreError
from pipeline.run.context import fixed_reference
from pipeline.run.nightly import nightly_runs, take_run
from pipeline.run.phases import holds_reference
from pipeline.run.rounds import next_round, run_rounds
from pipeline.run.start import check_recipe, check_rounds, start_run
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


def test_a_fixed_reference_is_the_start_of_the_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without SFT that is the recipe's policy, with it what the first round's SFT made."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    local = {"type": "vllm", "model": str(tmp_path / "base")}
    (tmp_path / "base").mkdir()
    recipe = write_recipe(tmp_path)
    rounds = [start_run(recipe, run_id=name) for name in ("one", "two", "three")]
    for before, run in itertools.pairwise(rounds):
        run.update_info(policy_of=before.run_id)
    write_recipe(tmp_path, policy=local, supervised={"enabled": False})
    rounds[0].recipe.write_text(recipe.read_text())
    assert [fixed_reference(run) for run in rounds] == [None, *[tmp_path / "base"] * 2]
    write_recipe(tmp_path, policy=local, supervised={"train": {}})
    rounds[0].recipe.write_text(recipe.read_text())
    with pytest.raises(StoreError, match=r"run three trains .* against .*/one/training/sft/model"):
        fixed_reference(rounds[2])
    model = rounds[0].training("sft") / "model"
    model.mkdir(parents=True)
    assert fixed_reference(rounds[2]) == model
    assert holds_reference(DpoConfig(reference="fixed"))
    assert not holds_reference(DpoConfig()) and not holds_reference(OrpoConfig())


def test_rounds_need_a_gate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rounds need evaluation.gate"):
        check_recipe(write_recipe(tmp_path, rounds=2))
