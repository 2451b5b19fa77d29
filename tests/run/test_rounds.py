"""Rounds: new prompts in each, and an end when the policy gets no better."""

import asyncio
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipeline.config import RunConfig, load_config
from pipeline.config.training import DpoConfig, OrpoConfig
from pipeline.data.dataset import load_dataset
from pipeline.errors import ConfigError, StoreError
from pipeline.evaluation.decision import GateFinding, GateResult
from pipeline.run.context import fixed_reference, open_context
from pipeline.run.nightly import nightly_runs, take_run
from pipeline.run.phases import holds_reference, train_preference
from pipeline.run.rounds import next_round, rises, run_rounds
from pipeline.run.start import check_recipe, check_rounds, start_run
from pipeline.store import RunDir, write_json
from pipeline.training.job import TrainingJob
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


def gate(**values: float | None) -> GateResult:
    """A gate's findings; `__` in a name is the dot of its rule."""
    rules = [(name.replace("__", "."), value) for name, value in values.items()]
    findings = [
        GateFinding(rule=rule, holds=True, value=value, needed=0, text="") for rule, value in rules
    ]
    return GateResult(decision="promoted", policy="tuned", findings=tuple(findings))


@pytest.mark.parametrize(
    ("before", "last", "better"),
    [
        ({"checks_all__min_lower": 0.8}, {"checks_all__min_lower": 0.81}, True),
        ({"checks_all__min_lower": 0.8}, {"checks_all__min_lower": 0.8}, False),
        ({"good__min_lower": 0.8, "check a__min_lower": 0.5}, {"good__min_lower": 0.7}, False),
        ({"win_rate__min_lower": 0.9}, {"win_rate__min_lower": 0.51}, True),
        ({"win_rate__min_lower": 0.9}, {"win_rate__min_lower": 0.5}, False),
        ({"good__min_gain": 0.3}, {"good__min_gain": 0.01}, True),
        ({"good__min_gain": 0.3}, {"good__min_gain": -0.01, "max_empty": 0.0}, False),
        ({"good__min_gain_lower": 0.3}, {"good__min_gain_lower": 0.0}, False),
        ({"max_empty": 0.0, "alarms": 0.0}, {"max_empty": 0.0, "alarms": 0.0}, True),
        (None, {"good__min_lower": 0.1}, True),
    ],
)
def test_figures_that_rise(
    before: dict[str, float] | None, last: dict[str, float], better: bool
) -> None:
    gates = [gate(**each) for each in (before, last) if each is not None]
    assert rises(*gates) is better


def test_a_round_that_is_no_better_than_the_one_before_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gate promotes it all the same: the share is above what the recipe asks for."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    recipe = write_recipe(tmp_path)
    shares = {"one": 0.8, "two": 0.9, "three": 0.9}
    for (name, share), parent in zip(shares.items(), [None, "one", "two"], strict=True):
        run = start_run(recipe, run_id=f"small-{name}")
        before = parent and f"small-{parent}"
        run.update_info(series="small", parent=before, gate="promoted", status="finished")
        found = gate(good__min_lower=share).model_dump(mode="json")
        write_json(run.metrics, {"gate": found})
        plan = next_round(recipe, with_rounds(recipe, 9)) if name == "three" else None
    assert plan is not None and plan.run is None
    assert "round 3 (run small-three) was promoted, but no figure of its gate rose" in plan.message


def test_each_round_trains_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings at least: the second begins with what the first made, and its reference is that
    model too, or the model that the first began with.
    """
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    base = tmp_path / "base"
    base.mkdir()
    jobs: list[TrainingJob] = []

    async def launch(job: TrainingJob, **_: Any) -> Any:
        jobs.append(job)
        job.model_dir.mkdir(parents=True)
        return SimpleNamespace(model_dir=job.model_dir)

    monkeypatch.setattr("pipeline.run.phases.launch", launch)
    recipe = write_recipe(tmp_path)
    for reference in ("moving", "fixed"):
        train = {"method": "dpo", "reference": reference}
        local = {"policy": {"type": "vllm", "model": str(base)}, "supervised": {"enabled": False}}
        rounds = [start_run(recipe, run_id=f"{reference}-{i}") for i in range(3)]
        for i, run in enumerate(rounds):
            settings = yaml.safe_load(run.recipe.read_text()) | local
            run.recipe.write_text(yaml.safe_dump(settings | {"preference": {"train": train}}))
            run.update_info(policy_of=rounds[i - 1].run_id if i else None)
            asyncio.run(train_preference(open_context(run)))
    made = [job.model_dir for job in jobs]
    assert [job.model for job in jobs] == [base, *made[:2], base, *made[3:5]]
    assert [job.reference for job in jobs] == [None] * 4 + [base] * 2


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
