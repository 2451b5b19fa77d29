"""Lengths, endings and the oracle's shares, counted by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.constitution import Constitution
from pipeline.evaluation import policy_measures
from pipeline.evaluation.policy_measures import measure_policies, policy_names
from pipeline.stats import Estimate, wilson
from pipeline.store import RunDir
from tests.evaluation.builders import WordOracle, known, make_run, prompt, response
from tests.run.builders import write_rows
from tests.stages.builders import make_constitution

PLAIN = make_constitution()
"""Principles without a check."""
PROMPTS = {"p1": "do evil", "p2": "do evil twice", "p3": "boil an egg", "p4": "bake bread"}


def write_policy(run: RunDir, name: str, texts: dict[str, str], **fields: Any) -> None:
    rows = [response(f"{name}-{p}", p, text, **fields) for p, text in texts.items()]
    write_rows(run, f"evaluation/sample-{name}", rows)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = make_run(tmp_path / "run")
    write_rows(run, "heldout", [prompt(name, text) for name, text in PROMPTS.items()])
    return run


def measured(run: RunDir, name: str = "initial") -> dict[str, Estimate]:
    policies, _ = measure_policies(run.root, WordOracle(), PLAIN, draws=100, seed=0)
    shares = known(policies[name].oracle).by_name()
    return {measure: share for measure, share in shares.items() if share is not None}


def test_shares_are_counted_by_prompt_class(run: RunDir) -> None:
    """Misdeeds: one harmful, one declined with help; harmless: one helped, one declined."""
    write_policy(run, "initial", {"p1": "harm", "p2": "no but help", "p3": "help", "p4": "no"})
    oracle = measured(run)
    assert {name: entry.share for name, entry in oracle.items()} == {
        "harmless": 0.5,
        "good": 0.5,
        "good_on_harmless": 0.5,
        "good_on_misdeed": 0.5,
        "refused_harmless": 0.5,
        "outside_world": 0.0,
    }
    assert oracle["harmless"].n == 2
    assert (oracle["good"].low, oracle["good"].high) == pytest.approx(wilson(2, 4))


def test_garbled_text_is_not_harmless(run: RunDir) -> None:
    write_policy(run, "initial", {"p1": "???", "p2": "no", "p3": "??? help", "p4": "help"})
    oracle = measured(run)
    assert oracle["harmless"].share == 0.5
    assert oracle["good"].share == 0.25
    assert oracle["outside_world"].share == 0.5
    assert oracle["refused_harmless"].share == 0.0


def test_unknown_prompt_counts_for_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_rows(run, "heldout", [prompt("p1", "???"), prompt("p2", "bake")])
    write_policy(run, "initial", {"p1": "help", "p2": "help"})
    assert measured(run)["good"] == Estimate(1.0, wilson(1, 1)[0], 1.0, 1)


def test_failed_responses_are_left_out(run: RunDir) -> None:
    rows = [
        response("a", "p1", "two words"),
        response("b", "p2", "", status="failed", reason="gone"),
        response("c", "p3", "one two three four", finish_reason="length"),
        response("d", "p4", " "),
    ]
    write_rows(run, "evaluation/sample-initial", rows)
    policies, _ = measure_policies(run.root, None, PLAIN, draws=100, seed=0)
    entry = policies["initial"]
    assert (entry.num_responses, entry.num_prompts, entry.oracle) == (3, 3, None)
    assert (entry.mean_words, entry.mean_tokens) == (2.0, 2.0)
    assert (entry.truncated_share, entry.empty_share) == pytest.approx((1 / 3, 1 / 3))


def test_changes_are_paired_by_prompt(run: RunDir) -> None:
    write_policy(run, "initial", {"p1": "harm", "p2": "harm", "p3": "no", "p4": "help"})
    write_policy(run, "tuned", {"p1": "no", "p2": "no", "p3": "help me", "p4": "help me"})
    _, changes = measure_policies(run.root, WordOracle(), PLAIN, draws=100, seed=0)
    harmless = known(changes["tuned"]["harmless"])
    assert (harmless.share, harmless.high, harmless.n) == (1.0, 1.0, 2)
    assert known(changes["tuned"]["good"]).share == 0.25
    assert known(changes["tuned"]["words"]).share == 0.5


def test_several_shards_add_up(run: RunDir) -> None:
    write_rows(run, "heldout", [prompt("p5", "evil")], shard_index=1)
    write_policy(run, "initial", {"p1": "no", "p2": "no", "p3": "help", "p4": "help"})
    write_rows(run, "evaluation/sample-initial", [response("e", "p5", "harm")], shard_index=1)
    assert measured(run)["harmless"].share == pytest.approx(2 / 3)


def test_policies_come_in_training_order(run: RunDir) -> None:
    for name in ("tuned", "other", "initial", "sl_cai"):
        write_policy(run, name, {"p1": "no"})
    assert policy_names(run.root) == ["initial", "sl_cai", "tuned", "other"]


def test_run_without_evaluation_has_no_policies(tmp_path: Path) -> None:
    assert measure_policies(make_run(tmp_path / "run").root, None, PLAIN, draws=100, seed=0) == (
        {},
        {},
    )


def test_checks_are_counted_exactly(run: RunDir) -> None:
    """At most 2 words: 3 of 4, then 4 of 4. No question mark asked: 1 of 4, then 2 of 4. Both: 1 of
    4, then 2 of 4, so a change of 0.25. The check that raises decides nothing.
    """
    checks: dict[str, dict[str, Any]] = {
        "short": {"name": "words", "max": 2},
        "ask": {"name": "question"},
        "odd": {"name": "function", "factory": "tests.checks.own_checks:raises"},
    }
    requests = {f"{kind}_request": "r" for kind in ("critique", "revision", "comparison")}
    principles = [{"id": name, "check": check, **requests} for name, check in checks.items()]
    decided = Constitution.model_validate({"name": "t", "principles": principles[:2]})
    write_policy(run, "initial", {"p1": "a b c", "p2": "a b?", "p3": "a", "p4": "a"})
    write_policy(run, "tuned", {"p1": "a b", "p2": "a b?", "p3": "a?", "p4": "a"})
    policies, changes = measure_policies(run.root, None, decided, draws=100, seed=0)
    before, after = policies["initial"], policies["tuned"]
    shares = {name: known(share).share for name, share in before.checks.items()}
    assert shares == {"short": 0.75, "ask": 0.25}
    assert (known(before.checks_all).share, known(after.checks_all).share) == (0.25, 0.5)
    assert (known(before.checks_all).low, known(before.checks_all).high) == wilson(1, 4)
    assert known(changes["tuned"]["checks_all"]).share == 0.25
    assert known(changes["tuned"]["check ask"]).share == 0.25
    with_odd = Constitution.model_validate({"name": "t", "principles": principles})
    policies, _ = measure_policies(run.root, None, with_odd, draws=100, seed=0)
    assert policies["initial"].checks["odd"] is None
    assert known(policies["initial"].checks_all).n == 3
    assert policies["initial"].checks["short"] == before.checks["short"]
    policies, _ = measure_policies(run.root, None, PLAIN, draws=100, seed=0)
    assert (policies["initial"].checks_all, policies["initial"].checks) == (None, {})


def test_refusals_are_counted_by_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an oracle what it reads as declined; without one, short texts with a refusal's words. Of
    many tags the most frequent ones and those that a gate names.
    """
    run = make_run(tmp_path / "run")
    tags = {"p1": ("misdeed",), "p3": ("harmless",), "p4": ("harmless", "look_alike")}
    rows = [replace(prompt(name, PROMPTS[name]), tags=tags[name]) for name in tags]
    write_rows(run, "heldout", rows)
    write_policy(run, "initial", {"p1": "no", "p3": "help", "p4": "no"})
    write_policy(run, "tuned", {"p1": "Sorry, I cannot.", "p3": "Sorry!", "p4": "With pleasure."})

    def shares(name: str, oracle: WordOracle | None) -> dict[str, float]:
        policies, _ = measure_policies(run.root, oracle, PLAIN, draws=100, seed=0)
        return {tag: known(share).share for tag, share in policies[name].refused.items()}

    assert shares("initial", WordOracle()) == {"harmless": 0.5, "look_alike": 1.0, "misdeed": 1.0}
    assert shares("tuned", None) == {"harmless": 0.5, "look_alike": 0.0, "misdeed": 1.0}
    monkeypatch.setattr(policy_measures, "MOST_TAGS", 1)
    assert shares("tuned", None) == {"harmless": 0.5}
    policies, _ = measure_policies(run.root, None, PLAIN, draws=9, seed=0, tags=["look_alike"])
    assert known(policies["tuned"].refused["look_alike"]).share == 0.0
