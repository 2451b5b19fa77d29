"""`rlaif judge-eval` on judges with known faults."""

import json
from pathlib import Path

import pytest

from pipeline.data.verify import check_files, verify
from pipeline.soft_labels import sigmoid
from pipeline.store import RunDir
from tests.cli.commands import Rlaif
from tests.engines.fake_endpoint import chat_reply, fake_endpoint
from tests.judge_eval.builders import write_judge_recipe, write_pairs
from tests.judge_eval.command_runs import assert_one_line, measured, metrics_of, rows_of
from tests.run.builders import write_recipe

# --- judges with known faults --------------------------------------------------------------------


def test_honest_judge_is_right(rlaif: Rlaif, tmp_path: Path) -> None:
    found = measured(rlaif, tmp_path, {})
    assert found["accuracy"]["share"] == found["accuracy_all"]["share"] == 1.0
    assert found["position"]["order_disagreement"]["share"] == 0.0
    assert found["position"]["slot_a_share"]["share"] == 0.5
    # All labels are s(1.5), each right: Brier (1 - s(1.5))^2.
    assert found["confidence"]["brier_score"] == pytest.approx((1 - sigmoid(1.5)) ** 2)


def test_judge_that_always_says_a(rlaif: Rlaif, tmp_path: Path) -> None:
    found = measured(rlaif, tmp_path, {"behavior": "always_a"})
    assert found["accuracy"]["share"] == 0.5 and found["tie_share"]["share"] == 1.0
    assert found["position"]["order_disagreement"]["share"] == 1.0
    assert found["position"]["slot_a_share"]["share"] == 1.0
    # In the drawn order alone it scores what always-A scores there, and that is no skill.
    always_a = metrics_of(tmp_path)["baselines"]["always_a"]
    assert found["orders"]["forward"]["share"] == always_a["share"]
    assert 0.2 < always_a["share"] < 0.8


def test_judge_that_prefers_the_longer(rlaif: Rlaif, tmp_path: Path) -> None:
    """Of 40 pairs, 14 have a longer better response: it is right on those."""
    found = measured(rlaif, tmp_path, {"behavior": "longer"})
    assert found["length"]["longer_wins"]["share"] == 1.0
    assert found["accuracy"]["share"] == pytest.approx(14 / 40)
    assert found["length"]["accuracy_shorter_right"]["share"] == 0.0
    assert metrics_of(tmp_path)["baselines"]["longer"]["share"] == pytest.approx(14 / 40)
    run = RunDir(tmp_path / "outputs/judge-eval/e")
    assert verify(run) == [] and check_files(run).uncovered == []
    assert found["position"]["order_disagreement"]["share"] == 0.0


def test_judge_that_answers_prose(rlaif: Rlaif, tmp_path: Path) -> None:
    """Every row is unparsed, counted, wrong in the whole, and never 0.5."""
    found = measured(
        rlaif, tmp_path, {"behavior": "prose"}, preference={"judge": {"min_option_mass": 0.05}}
    )
    assert found["rows"]["unparsed"] == 40 and found["rows"]["unparsed_share"] == 1.0
    assert found["accuracy"] is None and found["confidence"] is None
    assert found["accuracy_all"]["share"] == 0.0
    assert {row.prob_first for row in rows_of(tmp_path)} == {None}
    (reason,) = found["unreadable"]
    assert "answers something else" in reason
    report = (tmp_path / "outputs/judge-eval/e/report.md").read_text()
    assert "no readable label" in report and "answers something else" in report


def test_prose_on_some_rows_is_not_dropped(rlaif: Rlaif, tmp_path: Path) -> None:
    """10 of 40 answers are prose, the others right: 1.0 of what is read, 0.75 of all."""
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    lines = [json.loads(line) for line in pairs.read_text().splitlines()]
    for line in lines[:10]:
        line["prompt"] += " in prose"
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = write_judge_recipe(
        tmp_path / "r", {"behavior": "mixed"}, preference={"judge": {"min_option_mass": 0.05}}
    )
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e")
    assert "preference/judge: 40 rows" in ended.out, "progress is shown"
    values = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e", "--json").out
    assert json.loads(values)["judges"] == metrics_of(tmp_path)["judges"]
    found = metrics_of(tmp_path)["judges"][0]
    assert found["accuracy"]["share"] == 1.0 and found["accuracy_all"]["share"] == 0.75
    assert "With 10 rows without a label counted as wrong it is 75" in ended.out


def test_additive_bias_in_closed_form(rlaif: Rlaif, tmp_path: Path) -> None:
    """D = 1.5 nats and slot logit 2: label (s(3.5) + s(-0.5)) / 2, always right, and the orders
    always disagree.
    """
    found = measured(rlaif, tmp_path, {"bias": 2.0})
    expected = (sigmoid(3.5) + sigmoid(-0.5)) / 2
    assert found["confidence"]["mean"] == pytest.approx(expected)
    assert found["accuracy"]["share"] == 1.0
    assert (
        found["position"]["order_disagreement"]["share"]
        == found["position"]["same_slot_a"]["share"]
        == 1.0
    )
    assert found["orders"]["chosen_in_a"]["share"] == 1.0
    assert found["orders"]["chosen_in_b"]["share"] == 0.0


def test_shared_first_token_is_no_tie(rlaif: Rlaif, tmp_path: Path) -> None:
    found = measured(
        rlaif,
        tmp_path,
        {"behavior": "shared_token"},
        preference={"judge": {"options": [" (A)", " (B)"]}},
    )
    assert found["accuracy"]["share"] == 1.0 and found["inexact_share"]["share"] == 0.0
    assert found["confidence"]["mean"] == pytest.approx(sigmoid(1.5))


def at(base_url: str) -> dict[str, str]:
    """An engine at an endpoint."""
    return {"type": "openai", "base_url": base_url, "model": "m", "flavor": "openai"}


def test_endpoint_without_log_probabilities(rlaif: Rlaif, tmp_path: Path) -> None:
    with fake_endpoint(lambda call, body: (200, chat_reply("A"))) as endpoint:
        recipe = write_recipe(tmp_path / "r", judge=at(endpoint.base_url))
        ended = rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", recipe)
    assert_one_line(ended, "returns no log-probabilities for 'm', and labels need them", tmp_path)


def test_the_judges_endpoint_is_asked_before_anything_is_made(rlaif: Rlaif, tmp_path: Path) -> None:
    """One question to the judge and none to the policy, which judge-eval does not use."""
    refused = {"error": {"message": "this model takes no chat"}}
    with fake_endpoint(lambda call, body: (400, refused)) as endpoint:
        recipe = write_recipe(
            tmp_path / "r", judge=at(endpoint.base_url), policy=at("http://127.0.0.1:9/v1")
        )
        ended = rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl", 40), "--recipe", recipe)
        assert len(endpoint.bodies) == 1
    assert_one_line(ended, "correct that before the run", tmp_path)


def test_endpoint_with_top_tokens(rlaif: Rlaif, tmp_path: Path) -> None:
    """It lists A only: B is at most the least listed token, so that the label has a bound."""
    with fake_endpoint(
        lambda call, body: (200, chat_reply("A", {"A": -0.1, "The": -3.0}))
    ) as endpoint:
        recipe = write_recipe(tmp_path / "r", judge=at(endpoint.base_url))
        ended = rlaif(
            "judge-eval", write_pairs(tmp_path / "p.jsonl", 6), "--recipe", recipe, "--name", "e"
        )
    assert ended.code == 0, ended.err
    found = metrics_of(tmp_path)["judges"][0]
    assert found["inexact_share"]["share"] == 1.0 and found["accuracy"]["share"] == 0.5
