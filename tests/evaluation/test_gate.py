"""The gate: what promotes a policy, and what keeps it a candidate."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.config import load_config
from pipeline.config.engines import VllmConfig
from pipeline.config.gate import GateConfig
from pipeline.errors import ConfigError, StoreError
from pipeline.evaluation.gate import check_gate, decide
from pipeline.evaluation.results import GateResult, Metrics, PolicyMetrics, WinRate
from pipeline.report.headline import headline, headline_numbers
from pipeline.report.source import read_run
from pipeline.run.context import open_context
from pipeline.run.nightly import last_promoted
from pipeline.run.phases import evaluation_phase, supervised_chain
from pipeline.run.start import check_recipe, start_run
from pipeline.stats import Estimate
from pipeline.store import read_json, write_json
from pipeline.training.job import Alarm
from tests.report.synthetic import finished_run
from tests.run.builders import CONSTITUTION, write_recipe
from tests.stages.builders import make_constitution

DRIFT = Alarm(name="length_drift", value=3.0, limit=2.0, message="replies went from 50 to 150")


def policy(checks_all: float | None = None, words: float = 50.0, **values: Any) -> PolicyMetrics:
    share = None if checks_all is None else Estimate(checks_all, checks_all - 0.1, 1.0, 30)
    known: dict[str, Any] = {"truncated_share": 0.0, "empty_share": 0.0, **values}
    return PolicyMetrics(
        model="m",
        fingerprint="f",
        num_responses=30,
        num_prompts=10,
        mean_tokens=None,
        mean_words=words,
        oracle=None,
        checks_all=share,
        checks={"short": share},
        **known,
    )


def wins(low: float | None) -> WinRate:
    counts = {name: 0 for name in ("identical", "unparsed", "left_out")}
    means = dict.fromkeys(
        ("tie_share", "prob_preferred", "position_consistency", "mean_position_gap")
    )
    return WinRate(
        policy="tuned",
        against="initial",
        win_rate=low,
        low=low,
        high=1.0,
        num_comparisons=30,
        num_prompts=10,
        by_principle={},
        **counts,
        **means,
    )


def metrics(low: float | None = 0.55, **tuned: Any) -> Metrics:
    """From 40 % to 60 % of the replies hold all checks, at least 5 points more."""
    return Metrics(
        policies={"initial": policy(0.4), "sl_cai": policy(0.1), "tuned": policy(0.6, **tuned)},
        changes={"tuned": {"checks_all": Estimate(0.2, 0.05, 0.35, 30)}},
        win_rates=[wins(low)],
    )


def decided(rules: dict[str, Any], found: Metrics, *alarms: tuple[str, Alarm]) -> GateResult:
    raised = {job: (alarm,) for job, alarm in alarms}
    return decide(GateConfig.model_validate(rules), found.model_copy(update={"alarms": raised}))


@pytest.mark.parametrize(
    "rules, missed",
    [
        ({}, None),
        ({"win_rate": {"min_lower": 0.55}}, None),
        ({"win_rate": {"min_lower": 0.56}}, r"win rate .* is 0.55, needed at least 0.56"),
        ({"checks_all": {"min_gain": 0.2, "min_lower": 0.5, "min_gain_lower": 0.05}}, None),
        ({"checks_all": {"min_gain": 0.25}}, "gain of replies that hold every check is 0.2"),
        ({"checks_all": {"min_gain_lower": 0.1}}, "lower end of the gain of .* is 0.05"),
        ({"checks": {"short": {"min_lower": 0.6}}}, "replies that hold short is 0.5"),
        ({"checks": {"short": {"min_gain": 0.0}}}, "hold short was not measured"),
        ({"harmless": {"min_lower": 0.1}}, "harmless replies to misdeeds was not measured"),
        ({"max_truncated": 0.0, "max_empty": 0.0, "max_length_ratio": 1.0}, None),
    ],
)  # fmt: skip
def test_every_rule_has_to_hold(rules: dict[str, Any], missed: str | None) -> None:
    result = decided(rules, metrics())
    assert result.policy == "tuned"
    assert result.decision == ("candidate" if missed else "promoted")
    assert ("Candidate, not promoted: " if missed else "Promoted: all") in result.describe()
    assert not missed or re.search(missed, result.describe())


def test_tripwires_and_alarms_keep_a_candidate() -> None:
    """Words from 50 to 20: a factor of 2.5, as from 20 to 50."""
    rules = {"max_truncated": 0.1, "max_empty": 0.0, "max_length_ratio": 2.0}
    result = decided(rules, metrics(words=20.0, truncated_share=0.2), ("preference", DRIFT))
    assert [(f.rule, f.holds) for f in result.findings] == [
        ("max_truncated", False),
        ("max_empty", True),
        ("max_length_ratio", False),
        ("alarms", False),
    ]
    assert result.findings[2].value == pytest.approx(2.5)
    assert "preference: length_drift (replies went from 50 to 150)" in result.describe()
    assert decided({"alarms": False}, metrics(), ("sft", DRIFT)).decision == "promoted"


def test_a_gate_may_name_the_alarms_that_count() -> None:
    others = decided({"alarms": ["divergence", "loss_spike"]}, metrics(), ("sft", DRIFT))
    assert others.decision == "promoted"
    assert others.findings[0].text == "no training raised an alarm of divergence or loss_spike"
    named = decided({"alarms": ["length_drift"]}, metrics(), ("sft", DRIFT))
    assert named.decision == "candidate" and named.findings[0].value == 1
    with pytest.raises(ValidationError, match=r"Input should be 'chosen_falls'"):
        GateConfig.model_validate({"alarms": ["length"]})


def test_refusals_of_a_tag_keep_a_candidate() -> None:
    refused = {"look_alike": Estimate(0.2, 0.1, 0.3, 30)}
    for most, decision in ((0.2, "promoted"), (0.19, "candidate")):
        result = decided({"max_refused": {"look_alike": most}}, metrics(refused=refused))
        assert result.decision == decision
    missing = decided({"max_refused": {"harmless": 1.0}}, metrics(refused=refused))
    assert "share of refused harmless prompts was not measured" in missing.describe()
    gate = GateConfig.model_validate({"max_refused": {"lookalike": 0.1}})
    with pytest.raises(ConfigError, match=r"tag 'lookalike', but .* have harmless, look_alike;"):
        check_gate(gate, make_constitution(), None, frozenset({"harmless", "look_alike"}))


def test_a_win_by_length_alone_is_none() -> None:
    found = metrics()
    (rate,) = found.win_rates
    even = rate.model_copy(update={"length_controlled": Estimate(0.5, 0.4, 0.6, 30)})
    rules = {"win_rate": {"min_lower": 0.5, "length_controlled": True}}
    result = decided(rules, found.model_copy(update={"win_rates": [even]}))
    assert result.decision == "candidate" and "at equal lengths is 0.4" in result.describe()
    assert "was not measured" in decided(rules, found).describe()


def test_a_figure_that_is_missing_holds_no_rule() -> None:
    result = decided({"win_rate": {"min_lower": 0.0}, "max_empty": 1.0}, Metrics())
    assert result.decision == "candidate" and result.policy == ""
    assert [finding.value for finding in result.findings] == [None, None, 0.0]
    assert decided({"win_rate": {"min_lower": 0.0}}, metrics(low=None)).decision == "candidate"
    assert decided({}, Metrics()).describe() == (
        "Candidate, not promoted: no policy was evaluated."
    )


TRAINED: dict[str, Any] = {
    "policy": {"type": "vllm", "model": "models/pocket/weights"},
    "preference": {"train": {"method": "dpo"}},
}


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"preference": {}}, "a trained policy, but the recipe trains none"),
        ({"evaluation": {"enabled": False}}, "the evaluation, but evaluation.enabled is false"),
        ({"evaluation": {"gate": {"checks_all": {}}}}, "the rule has no condition"),
        ({"evaluation": {"gate": {"win_rate": {"min_lower": 1.5}}}}, "less than or equal to 1"),
        ({"evaluation": {"gate": {"kl": 3}}}, "'evaluation.gate.kl' is not a known key"),
    ],
    ids=["untrained", "unmeasured", "no condition", "beyond", "unknown"],
)
def test_recipe_without_the_figures_is_one_line(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    recipe = write_recipe(tmp_path, **TRAINED)
    values = yaml.safe_load(recipe.read_text())
    for key, value in changes.items():
        values[key] = value
    values["evaluation"] = {"gate": {}, **values.get("evaluation", {})}
    recipe.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=problem) as error:
        load_config(recipe)
    assert "\n" not in str(error.value)


CHECKED = {"id": "short", "check": {"name": "words", "max": 60}}


@pytest.mark.parametrize(
    "gate, principles, problem",
    [
        ({"checks_all": {"min_gain": 0.1}}, [], "gate.checks_all needs principles with a check"),
        ({"checks": {"p-0": {"min_gain": 0}}}, [CHECKED], "names 'p-0', but .* are short"),
        ({"harmless": {"min_lower": 0.9}}, [], "gate.harmless is read by an oracle"),
    ],
)
def test_rule_on_what_is_not_measured_is_one_line_before_the_run(
    tmp_path: Path, gate: dict[str, Any], principles: list[dict[str, Any]], problem: str
) -> None:
    recipe = write_recipe(tmp_path, evaluation={"gate": gate}, **TRAINED)
    first = CONSTITUTION["principles"][0]
    body = {"name": "tests", "principles": [first, *({**first, **p} for p in principles)]}
    (tmp_path / "constitution.yaml").write_text(yaml.safe_dump(body))
    with pytest.raises(ConfigError, match=problem):
        check_recipe(recipe, offline=True)


def test_the_decision_opens_report_and_last_lines(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    stored = Metrics.model_validate(read_json(run.metrics))
    gate = decided({"win_rate": {"min_lower": 0.99}}, stored)
    write_json(run.metrics, stored.model_copy(update={"gate": gate}).model_dump(mode="json"))
    data = read_run(run)
    assert headline(data).detail.startswith("Candidate, not promoted: lower end of the win rate")
    assert dict(headline_numbers(data))["Gate"] == gate.describe()


def test_a_night_begins_with_the_promoted_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    recipe = write_recipe(tmp_path)
    runs = [start_run(recipe, run_id=name) for name in ("one", "two", "three")]
    runs[0].update_info(gate="promoted")
    runs[1].update_info(gate="candidate")
    with pytest.raises(StoreError, match=r"run one promoted its policy, but .* is gone"):
        last_promoted(runs)
    model = runs[0].training("sft") / "model"
    model.mkdir(parents=True)
    promoted = last_promoted(runs)
    assert promoted and promoted.run_id == "one" and last_promoted(runs[1:]) is None
    runs[2].update_info(policy_of="one")
    local = VllmConfig(type="vllm", model="models/pocket/weights")
    for run, folder in ((runs[2], model), (runs[1], None)):
        ctx = open_context(run)
        ctx = replace(ctx, config=ctx.config.model_copy(update={"policy": local}))
        engine = ctx.policy_engine()
        assert isinstance(engine, VllmConfig)
        assert (engine.model == str(model)) == (folder is not None)
        assert ctx.label_engines()[0] != engine or folder is None


async def test_the_evaluation_records_the_decision(tmp_path: Path) -> None:
    """Nothing was trained here, so nothing is promoted; a recipe cannot ask for that."""
    run = start_run(write_recipe(tmp_path / "in"), runs_root_folder=tmp_path / "runs")
    ctx = open_context(run)
    gate = GateConfig.model_validate({"max_empty": 0.5})
    evaluation = ctx.config.evaluation.model_copy(update={"gate": gate})
    ctx = replace(ctx, config=ctx.config.model_copy(update={"evaluation": evaluation}))
    result = {"alarms": [DRIFT.model_dump(mode="json")]}
    write_json(run.training("sft") / "result.json", result)
    await supervised_chain(ctx)
    await evaluation_phase(ctx)
    stored = Metrics.model_validate(read_json(run.metrics)).gate
    assert stored and stored.decision == "candidate" == run.info()["gate"]
    assert [(f.rule, f.holds) for f in stored.findings] == [("max_empty", False), ("alarms", False)]
    assert "sft: length_drift" in stored.describe()
