"""Whole runs under a constitution of which a program decides one half and the judge the other."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.inspect import origin_tree
from pipeline.config import load_config
from pipeline.data.lineage import trace
from pipeline.data.verify import verify
from pipeline.errors import AuditError, ConfigError
from pipeline.impact.measure import num_calls
from pipeline.records import RARE, ScoreRow
from pipeline.report.audit import figure_tables
from pipeline.report.source import read_run
from pipeline.run.context import open_context
from pipeline.run.phases import run_all
from pipeline.run.start import check_recipe, start_run
from pipeline.store import RunDir
from tests.run.builders import CONSTITUTION, stored_json, write_recipe
from tests.run.test_labelers import rows

AUDIT = {"max_identical": None, "max_order_disagreement": None, "slot_share": None}
CHECKS = [{"name": "words", "max": 4}, {"name": "no_emoji"}]


async def checked_run(folder: Path, checks: list[Any], prefers: str, **changes: Any) -> RunDir:
    """A polite sample has 5 words and a rude one 4; the judge prefers what it is told."""
    script = "tests.run.scripted_world:make_engine"
    policy = {"type": "scripted", "script": script, "args": {"prefers": prefers, "wordy": True}}
    recipe = write_recipe(folder / "in", prompts=40, policy=policy, **changes)
    principles = [
        {**principle, **({"check": check} if check else {})}
        for principle, check in zip(CONSTITUTION["principles"], [*checks, None, None], strict=False)
    ]
    path = folder / "in" / "constitution.yaml"
    path.write_text(yaml.safe_dump({**CONSTITUTION, "principles": principles}))
    run = start_run(recipe, run_id="r1", runs_root_folder=folder / "out" / "runs")
    await run_all(open_context(run))
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose judge decides as the checks do."""
    folder = tmp_path_factory.mktemp("checked")
    return asyncio.run(checked_run(folder, CHECKS, "rude", preference={"audit": AUDIT}))


def test_audit_holds_the_judge_against_checks(whole: RunDir) -> None:
    run = whole
    figures = stored_json(run.root / "preference/audit.json")["judges"][0]["figures"]
    assert figures["p-0"]["checked"]["share"] == 1.0
    assert 0.7 < figures["p-0"]["checked"]["low"] < 1.0 and figures["p-0"]["checked"]["n"] >= 20
    # No response has an emoji, so that no comparison has a side that holds this check alone.
    assert "checked" not in figures["p-1"]
    (_, table) = figure_tables(read_run(run).audit)
    assert [row["principle"] for row in table.rows] == ["all with a check", "p-0"]
    canaries = rows(run, "preference/canary")
    asked = {row["principle_id"] for row in canaries if row["canary"] != "checked"}
    assert asked == {"p-2"}
    labels = rows(run, "preference/judge")
    assert {(row["principle_id"], row["method"]) for row in labels if row["status"] == "ok"} == {
        ("p-0", "check"),
        ("p-1", "check"),
        ("p-2", "judge"),
    }
    assert verify(run) == []
    card = (run.dataset / "README.md").read_text(encoding="utf-8")
    assert "A program decides 2 of the 3 principles" in card


async def test_judge_that_contradicts_checks_blocks_the_export(tmp_path: Path) -> None:
    """It prefers the polite samples, all of which are too long."""
    preference = {"audit": {"min_checked": 0.7, **AUDIT}}
    with pytest.raises(AuditError, match=r"checked of preference.judge is 0\.000"):
        await checked_run(tmp_path, CHECKS, "polite", preference=preference)


async def test_constitution_of_checks_alone_asks_no_judge(tmp_path: Path) -> None:
    checks = [*CHECKS, {"name": "starts_with", "texts": ["a rude"]}]
    run = await checked_run(tmp_path, checks, "rude", preference={"audit": AUDIT})
    assert {row["method"] for row in rows(run, "preference/judge") if row["status"] == "ok"} == {
        "check"
    }
    assert {row["canary"] for row in rows(run, "preference/canary")} == {"checked"}
    pair = next(row for row in rows(run, "preference/pair") if row["status"] == "ok")
    assert pair["chosen"].startswith("a rude")
    judgment = trace(run, pair["row_id"]).parents[0]
    assert judgment.kind == "judgment" and judgment.engine == {}
    lines = [str(node.label) for node in origin_tree(judgment).children]
    assert any("method" in line and "check" in line for line in lines)
    assert (
        any("rationales" in line and "5 words" in line for line in lines)
        or pair["principle_id"] == "p-2"
    )


def test_metrics_and_report_have_every_check(whole: RunDir) -> None:
    run = whole
    policy = stored_json(run.metrics)["policies"]["initial"]
    assert policy["checks"]["p-1"]["share"] == 1.0
    assert policy["checks_all"] == policy["checks"]["p-0"]
    (revisions,) = stored_json(run.metrics)["revisions"]
    # Every revision under the limit of 4 words has 6 and more.
    assert revisions["faults"]["unmet"] > 0 and revisions["missed_check"]["share"] > 0.5
    report = (run.root / "report.md").read_text(encoding="utf-8")
    assert "replies that hold it" in report and "left out by a check" in report
    assert "all of them" in run.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("principles", ["drawn", "all"])
async def test_scores_follow_checks(tmp_path: Path, principles: str) -> None:
    """The best rating for what holds: the short sample wins under p-0, whatever the rater likes."""
    preference = {"labeler": "score", "score": {"principles": principles}}
    run = await checked_run(tmp_path, CHECKS[:1], "polite", preference=preference)
    values = {
        (part, value)
        for row in rows(run, "preference/score")
        for part, value in zip(row["parts"], row["values"] or (), strict=True)
        if part == "p-0"
    }
    assert values == {("p-0", 1.0), ("p-0", 10.0)}
    calls = {
        "+".join(row["parts"]): num_calls(
            ScoreRow.from_dict(dict.fromkeys(RARE) | row), load_config(run.recipe)
        )
        for row in rows(run, "preference/score")
        if row["status"] == "ok"
    }
    drawn = {"p-0": 0, "p-1": 1, "p-2": 1}
    assert calls == (drawn if principles == "drawn" else {"p-0+p-1+p-2": 3})


async def test_panels_and_several_principles_average_checks(tmp_path: Path) -> None:
    """Of three checks one decides: the mean of 1, 0.5 and 0.5 is 2/3, for each judge alike."""
    script = "tests.run.scripted_world:make_engine"
    rude = {"type": "scripted", "script": script, "args": {"prefers": "rude", "wordy": True}}
    checks = [*CHECKS, {"name": "no_lists"}]
    preference = {"judge": {"num_principles": 3}}
    run = await checked_run(tmp_path, checks, "polite", preference=preference, panel=[rude])
    pooled = [row for row in rows(run, "preference/pool") if row["status"] == "ok"]
    assert {round(row["prob_first"], 3) for row in pooled} == {0.333, 0.5, 0.667}
    assert {(row["num_verdicts"], row["model_fingerprint"]) for row in pooled} == {(6, "")}
    assert [row for row in rows(run, "preference/pair") if row["status"] == "ok"]
    assert verify(run) == []


def test_check_says_how_many_checks_there_are(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, preference={"labeler": "follow_up"})
    principles = [{**p, "check": CHECKS[0]} for p in CONSTITUTION["principles"]]
    path = tmp_path / "constitution.yaml"
    path.write_text(yaml.safe_dump({**CONSTITUTION, "principles": principles}))
    facts = dict(check_recipe(recipe).facts)
    assert facts["constitution"] == (
        "tests, 3 principles, 3 of them decided by a check; the labeler 'follow_up' uses no "
        "principle, so no check makes a label"
    )


def test_check_names_the_templates_without_a_place_for_reasons(tmp_path: Path) -> None:
    judge = {"judge": "prompts/judge_pocket.jinja"}
    silent, showing = (
        write_recipe(tmp_path / name, templates=templates)
        for name, templates in (("silent", judge), ("showing", {}))
    )
    for recipe, reason, shown in (
        (silent, "", "tests, 3 principles"),
        (showing, "It matters.", "tests, 3 principles"),
        (
            silent,
            "It matters.",
            "tests, 3 principles; no place for its rationales in the template of judge",
        ),
    ):
        first, *others = CONSTITUTION["principles"]
        body = {**CONSTITUTION, "principles": [{**first, "rationale": reason}, *others]}
        recipe.with_name("constitution.yaml").write_text(yaml.safe_dump(body))
        assert dict(check_recipe(recipe).facts)["constitution"] == shown


def test_labeler_that_resolves_no_conflict_is_one_line(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, preference={"labeler": "score"})
    first, second, *others = CONSTITUTION["principles"]
    ranked = [{**first, "conflicts": [second["id"]], "priority": 1}, second, *others]
    path = recipe.with_name("constitution.yaml")
    path.write_text(yaml.safe_dump({**CONSTITUTION, "principles": ranked}))
    with pytest.raises(ConfigError, match=r"labeler 'score' does not resolve; set .* to 'judge'"):
        check_recipe(recipe)
