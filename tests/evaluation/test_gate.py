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
from pipeline.evaluation.decision import GateResult, ReviewMetrics
from pipeline.evaluation.gate import awaited, check_gate, decide, unprobed_trainings
from pipeline.evaluation.results import Metrics, PolicyMetrics, WinRate
from pipeline.report.headline import headline, headline_numbers
from pipeline.report.source import read_run
from pipeline.run.context import open_context
from pipeline.run.nightly import last_promoted
from pipeline.run.phases import evaluation_phase, supervised_chain
from pipeline.run.start import check_recipe, review_folder, start_run
from pipeline.stats import Estimate
from pipeline.store import read_json, write_json
from pipeline.training.job import Alarm
from tests.report.synthetic import finished_run
from tests.review.builders import answer_for, labeled_run, open_review
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


def test_alarms_that_could_not_be_decided_count() -> None:
    """A failed probe has no alarm of length_drift: neither that name nor `true` may hold then."""
    lost = ("sft", Alarm(name="unmeasured", value=0, limit=16, message="was not probed (lost)"))
    for alarms, decision in (
        (True, "candidate"),
        (["length_drift"], "candidate"),
        (["loss_spike"], "promoted"),
        (False, "promoted"),
    ):
        result = decided({"alarms": alarms}, metrics(), lost)
        assert result.decision == decision
        assert ("was not probed (lost)" in result.describe()) == (decision == "candidate")
    place = "preference.train.alarms.probe_prompts"
    old = decide(GateConfig(), metrics(), "one", [place])
    assert old.decision == "candidate" and f"unmeasured ({place} is 0)" in old.describe()


@pytest.mark.parametrize(
    ("alarms", "refused"),
    [(True, True), (["divergence"], True), (["loss_spike"], False), (False, False)],
)
def test_alarms_without_probes_are_refused(tmp_path: Path, alarms: Any, refused: bool) -> None:
    """Before anything is paid for, whatever else the recipe lacks."""
    train = {"method": "dpo", "alarms": {"probe_prompts": 0}}
    changes = {"preference": {"train": train}, "evaluation": {"gate": {"alarms": alarms}}}
    config = load_config(write_recipe(tmp_path, **{**TRAINED, **changes}))
    unprobed = unprobed_trainings(config)
    assert unprobed == ["preference.train.alarms.probe_prompts"]
    if not refused:
        check_gate(config.evaluation.gate, make_constitution(), None, unprobed=unprobed)
        return
    with pytest.raises(ConfigError, match=r"preference.train.alarms.probe_prompts is 0; raise it"):
        check_gate(config.evaluation.gate, make_constitution(), None, unprobed=unprobed)


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


def test_a_gate_waits_for_people() -> None:
    """The policy is promoted once 20 pairs are reviewed and the agreement is surely above 0.7."""
    rules: dict[str, Any] = {"review": {"min_pairs": 20, "min_agreement_lower": 0.7}}

    def after(pairs: int, low: float | None = None, of: int = 40, **more: Any) -> Metrics:
        agreement = None if low is None else Estimate(0.9, low, 1.0, 12)
        review = ReviewMetrics(pairs=pairs, of=of, agreement=agreement)
        found = metrics(**more).model_copy(update={"review": review})
        gate = decide(GateConfig.model_validate(rules), found, "one")
        return found.model_copy(update={"gate": gate})

    said = "7 reviewed pairs of 20; run `rlaif review one`, then `rlaif resume one`"
    waits = after(7, 0.9)
    assert waits.gate and waits.gate.describe() == f"Candidate, not promoted: {said}."
    assert awaited(waits) == said
    for found, decision, missed in (
        (after(20, 0.7), "promoted", ""),
        (after(20, 0.69), "candidate", "agreement of people with the judge is 0.69, needed"),
        (after(20), "candidate", "agreement of people with the judge was not measured"),
        (after(0, of=19), "candidate", "pairs that people can label is 19, needed at least 20"),
    ):
        assert found.gate and found.gate.decision == decision and missed in found.gate.describe()
        assert awaited(found) == ""  # more of the same labels would not help
    rules |= {"max_truncated": 0.0}
    assert awaited(after(7)) and not awaited(after(7, truncated_share=0.5))
    rules["review"] = {"min_pairs": 200}
    assert "`rlaif review one --pairs 200`" in awaited(after(7, of=500))
    assert awaited(Metrics()) == ""


def test_a_win_by_length_alone_is_none() -> None:
    found = metrics()
    (rate,) = found.win_rates
    even = rate.model_copy(update={"length_controlled": Estimate(0.5, 0.4, 0.6, 30)})
    rules = {"win_rate": {"min_lower": 0.5, "length_controlled": True}}
    result = decided(rules, found.model_copy(update={"win_rates": [even]}))
    assert result.decision == "candidate" and "at equal lengths is 0.4" in result.describe()
    assert "was not measured" in decided(rules, found).describe()


@pytest.mark.parametrize(("unparsed", "left_out", "holds"), [(20, 10, True), (20, 11, False)])
def test_a_win_rate_of_the_few_readable_verdicts_is_none(
    unparsed: int, left_out: int, holds: bool
) -> None:
    """30 comparisons have a label; more than 30 others have none."""
    match = wins(0.9).model_copy(update={"unparsed": unparsed, "left_out": left_out})
    found = metrics().model_copy(update={"win_rates": [match]})
    result = decided({"win_rate": {"min_lower": 0.5}}, found)
    assert result.decision == ("promoted" if holds else "candidate")
    lost = r"\(31 of 61 comparisons have no label\) was not measured"
    assert holds or re.search(lost, result.describe())


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
        (
            {
                "supervised": {"train": {"method": "sft"}},
                "preference": {"enabled": False},
                "evaluation": {"gate": {"review": {"min_pairs": 9}}},
            },
            "gate.review waits for labels of pairs, but preference.enabled is false",
        ),
        ({"evaluation": {"gate": {"review": {"min_pairs": 0}}}}, "greater than or equal to 1"),
    ],
    ids=["untrained", "unmeasured", "no condition", "beyond", "unknown", "no pairs", "none"],
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


async def test_the_decision_is_made_again_with_the_labels_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy is made up, as a scripted one is not trained."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path))
    monkeypatch.setattr("pipeline.run.phases.collect_metrics", lambda *_: metrics())
    promoted: list[Metrics] = []
    monkeypatch.setattr("pipeline.run.phases.write_promoted", lambda _, m: promoted.append(m))
    run = labeled_run(start_run(write_recipe(tmp_path / "in"), run_id="one").root, 6)
    ctx = open_context(run)
    gate = GateConfig.model_validate({"review": {"min_pairs": 2}})
    evaluation = ctx.config.evaluation.model_copy(update={"gate": gate, "enabled": False})
    ctx = replace(ctx, config=ctx.config.model_copy(update={"evaluation": evaluation}))
    await evaluation_phase(ctx)
    said = "0 reviewed pairs of 2; run `rlaif review one`, then `rlaif resume one`"
    assert run.info()["gate"] == "candidate" and not promoted
    assert awaited(Metrics.model_validate(read_json(run.metrics))) == said
    review, _ = open_review(run, review_folder(run), limit=3)
    assert answer_for(review, "Ada", "better", 2) == 2
    await evaluation_phase(ctx)
    assert run.info()["gate"] == "promoted" and promoted[0].review
    assert promoted[0].review.pairs == 2
