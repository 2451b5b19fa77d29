"""A judge of the evaluation: it decides the win rates, whoever labels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig, load_config
from pipeline.config.budget import ModelPrice, PricesConfig
from pipeline.config.engines import EngineConfig, ScriptedConfig
from pipeline.config.gate import GateConfig
from pipeline.config.recipe import SECOND_JUDGE, EvaluationConfig
from pipeline.config.training import DpoConfig
from pipeline.data.lineage import trace
from pipeline.errors import ConfigError
from pipeline.evaluation.results import DecidingJudge, Metrics
from pipeline.labeling.calibration import Calibration
from pipeline.report import write_report
from pipeline.run.context import RunContext, open_context
from pipeline.run.phases import evaluation_phase, preference_phase, supervised_phase
from pipeline.run.pilot import plan_recipe
from pipeline.run.start import CheckedRecipe, ask_endpoints, check_recipe, start_run
from pipeline.store import RunDir, read_json
from pipeline.store.shards import stage_manifests, stage_rows
from pipeline.store.spending import spending
from tests.engines.fake_endpoint import chat_reply, fake_endpoint
from tests.run.builders import write_recipe

MATCH = "evaluation/judge-tuned-vs-initial"
QUIET = {"audit": {"enabled": False}}


def engine(name: str, **args: object) -> ScriptedConfig:
    script = "tests.run.scripted_world:make_engine"
    return ScriptedConfig(type="scripted", script=script, args={"name": name, **args})


class Trained(RunContext):
    """A run whose tuned policy is another script."""

    def policy_engine(self, model: Path | None = None) -> EngineConfig:
        return engine("tuned", wordy=True) if model else super().policy_engine()


async def evaluated(run: RunDir, judge: ScriptedConfig | None) -> Metrics:
    """The evaluation of a labeled run, with a calibration of the judge that labels."""
    ctx = open_context(run)
    gate = GateConfig.model_validate({"win_rate": {"min_lower": 0.99}})
    evaluation = EvaluationConfig(judge=judge, gate=gate, bootstrap_draws=100)
    fitted = Calibration(kind="temperature", temperature=2.0, judge_fingerprint="another")
    labeling = replace(ctx.files.labeling, calibration=fitted if judge else None)
    changed = {
        "config": ctx.config.model_copy(update={"evaluation": evaluation}),
        "files": replace(ctx.files, labeling=labeling),
    }
    await evaluation_phase(Trained(**{**vars(ctx), **changed}))
    return Metrics.model_validate(read_json(run.metrics))


async def test_it_decides_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labeling judge likes what is polite, the other one what is long, as the tuned one is."""
    folders = {"initial": None, "tuned": Path("tuned")}
    monkeypatch.setattr("pipeline.run.phases.policies", lambda ctx: folders)
    judge = engine("labels").model_dump(mode="json")
    recipe = write_recipe(tmp_path / "in", judge=judge, preference=QUIET)
    run = start_run(recipe, runs_root_folder=tmp_path / "runs")
    ctx = open_context(run)
    await supervised_phase(ctx)
    await preference_phase(ctx)

    alone = await evaluated(run, None)
    assert alone.judge is None and "judge" not in (read_json(run.metrics) or {})
    assert {m.engine["name"] for m in stage_manifests(run.root, MATCH)} == {"labels"}

    second = await evaluated(run, engine("second", prefers="indeed"))
    manifests = stage_manifests(run.root, MATCH)
    assert {m.engine["name"] for m in manifests} == {"second"}
    fingerprint = manifests[0].engine["fingerprint"]
    assert second.judge == DecidingJudge(model="second", fingerprint=fingerprint, labeled=False)
    assert second.win_rates[0].win_rate != alone.win_rates[0].win_rate
    assert second.gate and "initial policy (judge second, which labeled nothing)" in str(
        second.gate.findings[0].text
    )
    text = write_report(run).with_suffix(".md").read_text()
    assert "The judge second, which labeled nothing, " in text
    page = run.report.read_text()
    assert "The judge is second, which labeled nothing. Detectable" in page

    price = PricesConfig(models={"second": ModelPrice(input=1e6)})
    spent = spending(run, price)
    assert spent[MATCH].token_money == spent["all"].token_money > 0
    row = next(row for row in stage_rows(run.root, MATCH) if row.status == "ok")
    assert trace(run, row.row_id).engine["name"] == "second"

    same = await evaluated(run, engine("labels"))
    assert same.judge and same.judge.labeled
    assert "which also labeled and favors its own labels" in same.judge.describe()


TRAINED: dict[str, Any] = {"policy": {"type": "vllm", "model": "models/pocket"}}


def test_it_is_checked_and_priced(tmp_path: Path) -> None:
    train: dict[str, Any] = {"preference": {"train": {"method": "dpo"}}, **TRAINED}
    with fake_endpoint(lambda number, body: (200, chat_reply("A", {"A": -0.2, "B": -1.8}))) as url:
        other = {"type": "openai", "base_url": url.base_url, "model": "m"}
        changes: dict[str, Any] = {
            "evaluation": {"judge": other},
            "prices": {"models": {"m": {"input": 1}}},
        }
        config = load_config(write_recipe(tmp_path, **train, **changes))
        assert [role for role, _ in config.engines] == ["policy", "judge", SECOND_JUDGE]
        assert len(ask_endpoints(config)) == 1 and url.bodies[0]["logprobs"]
        assert not ask_endpoints(config, judges_only=True)
    gone: dict[str, Any] = {
        "evaluation": {"judge": {"type": "vllm", "model": str(tmp_path / "gone")}}
    }
    with pytest.raises(ConfigError, match=r"gone"):
        check_recipe(write_recipe(tmp_path, **train, **gone), offline=True)
    with pytest.raises(ConfigError, match=r"evaluation.judge needs a trained policy"):
        load_config(write_recipe(tmp_path, **TRAINED, **gone))


async def test_a_plan_asks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = {"models": {"second": {"input": 1e6}}}
    recipe = write_recipe(tmp_path, prompts=4, preference=QUIET, prices=prices)

    def check(path: Path, **options: object) -> CheckedRecipe:
        """The checked recipe, as if its policy were trained."""
        checked = check_recipe(path)
        config = checked.config
        changed: RunConfig = config.model_copy(
            update={
                "evaluation": EvaluationConfig(judge=engine("second")),
                "preference": config.preference.model_copy(update={"train": DpoConfig()}),
            }
        )
        return replace(checked, config=changed)

    monkeypatch.setattr("pipeline.run.pilot.check_recipe", check)
    plan = await plan_recipe(recipe, num_prompts=2)
    (stage,) = (stage for stage in plan.stages if stage.stage == "evaluation/judge")
    assert stage.money and stage.money.value == plan.total.money.value > 0  # type: ignore[union-attr]
