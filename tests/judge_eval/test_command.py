"""`rlaif judge-eval`: judges with known faults, resuming, calibrating, and mistakes in one line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.store import read_rows
from pipeline.store.shards import stage_manifests
from pipeline.verdicts import sigmoid
from tests.commands import Ended, Rlaif, rlaif
from tests.engines.fake_endpoint import chat_reply, fake_endpoint
from tests.judge_eval.builders import (
    change_recipe, write_judge_recipe, write_noisy_pairs, write_pairs,
)


def measured(rlaif: Rlaif, tmp_path: Path, judge: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The only judge's figures on 40 pairs."""
    recipe = write_judge_recipe(tmp_path / "r", judge, **changes)
    ended = rlaif("judge-eval", write_pairs(tmp_path / "pairs.jsonl"), "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    return metrics_of(tmp_path)["judges"][0]


def metrics_of(tmp_path: Path, name: str = "e") -> dict[str, Any]:
    """metrics.json of an evaluation."""
    return json.loads((tmp_path / "outputs/judge-eval" / name / "metrics.json").read_text())


def rows_of(tmp_path: Path, folder: str = "preference/judge", name: str = "e") -> list[Any]:
    """All rows of a stage."""
    root = tmp_path / "outputs/judge-eval" / name
    return [row for m in stage_manifests(root, folder) for row in read_rows(root, m)]


def assert_one_line(ended: Ended, pattern: str, tmp_path: Path) -> None:
    """Exit code 2, one line that matches, and nothing written."""
    assert ended.code == 2, ended
    assert len(ended.err.splitlines()) == 1 and ended.err.startswith("rlaif: "), ended.err
    assert re.search(pattern, ended.err), ended.err
    left = [p for p in (tmp_path / "outputs").rglob("*") if p.is_file()]
    assert not left, f"something was written: {left}"


# --- judges with known faults --------------------------------------------------------------------


def test_honest_judge_is_right(rlaif: Rlaif, tmp_path: Path) -> None:
    found = measured(rlaif, tmp_path, {})
    assert found["accuracy"]["share"] == found["accuracy_all"]["share"] == 1.0
    assert found["position"]["flip_rate"]["share"] == 0.0
    assert found["position"]["slot_a_share"]["share"] == 0.5
    # All labels are s(1.5), each right: Brier (1 - s(1.5))^2.
    assert found["confidence"]["brier_score"] == pytest.approx((1 - sigmoid(1.5)) ** 2)


def test_judge_that_always_says_a(rlaif: Rlaif, tmp_path: Path) -> None:
    found = measured(rlaif, tmp_path, {"behavior": "always_a"})
    assert found["accuracy"]["share"] == 0.5 and found["tie_share"]["share"] == 1.0
    assert found["position"]["flip_rate"]["share"] == 1.0
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
    assert found["position"]["flip_rate"]["share"] == 0.0


def test_judge_that_answers_prose(rlaif: Rlaif, tmp_path: Path) -> None:
    """Every row is unparsed, counted, wrong in the whole, and never 0.5."""
    found = measured(rlaif, tmp_path, {"behavior": "prose"},
                     preference={"judge": {"min_option_mass": 0.05}})
    assert found["rows"]["unparsed"] == 40 and found["rows"]["unparsed_share"] == 1.0
    assert found["accuracy"] is None and found["confidence"] is None
    assert found["accuracy_all"]["share"] == 0.0
    assert {row.soft_label for row in rows_of(tmp_path)} == {None}
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
    recipe = write_judge_recipe(tmp_path / "r", {"behavior": "mixed"},
                                preference={"judge": {"min_option_mass": 0.05}})
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e")
    found = metrics_of(tmp_path)["judges"][0]
    assert found["accuracy"]["share"] == 1.0 and found["accuracy_all"]["share"] == 0.75
    assert "With 10 rows without a label counted as wrong it is 75" in ended.out


def test_additive_bias_in_closed_form(rlaif: Rlaif, tmp_path: Path) -> None:
    """d = 1.5 nats and slot logit 2: label (s(3.5) + s(-0.5)) / 2, always right, always flipping."""
    found = measured(rlaif, tmp_path, {"bias": 2.0})
    expected = (sigmoid(3.5) + sigmoid(-0.5)) / 2
    assert found["confidence"]["mean"] == pytest.approx(expected)
    assert found["accuracy"]["share"] == 1.0
    assert found["position"]["flip_rate"]["share"] == found["position"]["same_slot_a"]["share"] == 1.0
    assert found["orders"]["chosen_in_a"]["share"] == 1.0
    assert found["orders"]["chosen_in_b"]["share"] == 0.0


def test_shared_first_token_is_no_tie(rlaif: Rlaif, tmp_path: Path) -> None:
    found = measured(rlaif, tmp_path, {"behavior": "shared_token"},
                     preference={"judge": {"options": [" (A)", " (B)"]}})
    assert found["accuracy"]["share"] == 1.0 and found["inexact_share"]["share"] == 0.0
    assert found["confidence"]["mean"] == pytest.approx(sigmoid(1.5))


def test_endpoint_without_log_probabilities(rlaif: Rlaif, tmp_path: Path) -> None:
    with fake_endpoint(lambda call, body: (200, chat_reply("A"))) as endpoint:
        recipe = write_judge_recipe(tmp_path / "r")
        value = yaml.safe_load(recipe.read_text())
        value["judge"] = {"type": "openai", "base_url": endpoint.base_url, "model": "m", "flavor": "openai"}
        recipe.write_text(yaml.safe_dump(value))
        ended = rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", recipe)
    assert_one_line(ended, "returns no log-probabilities for 'm', and labels need them", tmp_path)


def test_endpoint_with_top_tokens(rlaif: Rlaif, tmp_path: Path) -> None:
    """It lists A only: B is at most the least listed token, so that the label has a bound."""
    with fake_endpoint(lambda call, body: (200, chat_reply("A", {"A": -0.1, "The": -3.0}))) as endpoint:
        recipe = write_judge_recipe(tmp_path / "r")
        value = yaml.safe_load(recipe.read_text())
        value["judge"] = {"type": "openai", "base_url": endpoint.base_url, "model": "m", "flavor": "openai"}
        recipe.write_text(yaml.safe_dump(value))
        ended = rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl", 6), "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    found = metrics_of(tmp_path)["judges"][0]
    assert found["inexact_share"]["share"] == 1.0 and found["accuracy"]["share"] == 0.5


def test_recipe_says_how_to_ask(rlaif: Rlaif, tmp_path: Path) -> None:
    """Exemplars, and a rationale whose verdict is clamped to [0.4, 0.6] in each call."""
    shots = {"exemplars": "prompts/exemplars/general.yaml", "num_exemplars": 2}
    found = measured(rlaif, tmp_path, {}, constitution="constitutions/open_assistant.yaml",
                     preference={"judge": {"chain_of_thought": {}, **shots}})
    assert found["accuracy"]["share"] == 1.0
    assert found["confidence"]["mean"] == pytest.approx(0.6)
    assert {len(row.rationales) for row in rows_of(tmp_path)} == {2}
    plain = write_judge_recipe(tmp_path / "s")
    assert rlaif("judge-eval", tmp_path / "pairs.jsonl", "--recipe", plain, "--name", "p").code == 0
    assert metrics_of(tmp_path, "p")["judges"][0]["method_hash"] != found["method_hash"]


# --- label files ---------------------------------------------------------------------------------


def test_transcripts_of_people(rlaif: Rlaif, tmp_path: Path) -> None:
    """A judge that counts words is as good as the rule that does, even ones included."""
    recipe = write_judge_recipe(tmp_path / "r", {"behavior": "longer"})
    ended = rlaif("judge-eval", "tests/labels/data/hh_rlhf_excerpt.jsonl.gz", "--type", "hh-rlhf",
                  "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    found = metrics_of(tmp_path)
    assert found["judges"][0]["accuracy"]["share"] == found["baselines"]["longer"]["share"]
    (source,) = found["sources"]
    assert source["num_ok"] == found["num_rows"] and source["num_dropped"] == sum(source["reasons"].values())


def test_option_file(rlaif: Rlaif, tmp_path: Path) -> None:
    """Several pairs of one context; the slot of the file is a tag, and decides nothing here."""
    lines = [{
        "prompt": "p", "corrects": [[" (A)", " (B)"][n % 2]], "incorrects": [[" (B)", " (A)"][n % 2]],
        "text_correct": f"\n\nHuman: q {n // 3}\n\nAssistant: good {n} 2.0",
        "text_incorrect": f"\n\nHuman: q {n // 3}\n\nAssistant: bad {n} 0.5",
    } for n in range(12)]
    path = tmp_path / "hhh.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = write_judge_recipe(tmp_path / "r")
    ended = rlaif("judge-eval", path, "--type", "hhh", "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    found = metrics_of(tmp_path)
    assert (found["num_rows"], found["num_prompts"]) == (12, 4)
    assert [g["id"] for g in found["judges"][0]["by_tag"]] == ["slot(A)", "slot(B)"]
    assert found["judges"][0]["accuracy"]["share"] == 1.0


# --- several principles, panels ------------------------------------------------------------------


def test_panel_has_figures_for_each_judge_and_the_pool(rlaif: Rlaif, tmp_path: Path) -> None:
    scripts = [{"type": "scripted", "script": "tests.judge_eval.judges:make_engine",
                "args": {"behavior": "longer", "name": "long"}}]
    recipe = write_judge_recipe(tmp_path / "r", {"name": "good", "sharpness": 4.0}, panel=scripts)
    ended = rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    judges = metrics_of(tmp_path)["judges"]
    assert [j["name"] for j in judges] == ["judge", "judge 2", "pooled"]
    # The sure honest judge (6 nats) outweighs the one that counts words (3 nats).
    assert [j["accuracy"]["share"] for j in judges] == pytest.approx([1.0, 14 / 40, 1.0])
    assert len({j["fingerprint"] for j in judges}) == 3


def test_several_principles_are_pooled(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_judge_recipe(tmp_path / "r", preference={"judge": {"num_principles": 2}})
    rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", recipe, "--name", "e")
    judges = metrics_of(tmp_path)["judges"]
    assert [(j["name"], j["rows"]["expected"]) for j in judges] == [("judge", 80), ("pooled", 40)]
    assert [g["id"] for g in judges[0]["by_principle"]] == ["p-0", "p-1", "p-2"]


def test_tags_of_a_source_list_are_told_apart(rlaif: Rlaif, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", tags=("short", "long", "odd"))
    sources = tmp_path / "labels.yaml"
    columns = {"chosen": "chosen", "rejected": "rejected", "tags": "tags"}
    sources.write_text(yaml.safe_dump(
        {"sources": [{"type": "pairs", "name": "mine", "path": str(pairs), "columns": columns}]}))
    recipe = write_judge_recipe(tmp_path / "r", {"behavior": "longer"})
    ended = rlaif("judge-eval", "--sources", sources, "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    by_tag = {g["id"]: g["accuracy"]["share"] for g in metrics_of(tmp_path)["judges"][0]["by_tag"]}
    assert by_tag == {"short": 1.0, "long": 0.0, "odd": 0.0}


# --- folders: resuming, names --------------------------------------------------------------------


def test_same_command_pays_once(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_judge_recipe(tmp_path / "r", execution={"shard_size": 4})
    command = ("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", recipe)
    assert rlaif(*command).code == 0
    (root,) = (tmp_path / "outputs/judge-eval").iterdir()
    assert re.fullmatch(r"small-p-[0-9a-f]{8}", root.name)
    shards = sorted((root / "preference/judge").glob("*.json"))
    before = [path.stat().st_mtime_ns for path in shards]
    # A lost shard is what a killed evaluation has not written: only that one is asked anew.
    shards[3].unlink()
    ended = rlaif(*command)
    assert ended.code == 0 and len(list((tmp_path / "outputs/judge-eval").iterdir())) == 1
    after = [path.stat().st_mtime_ns for path in shards]
    assert [a == b for a, b in zip(before, after, strict=True)].count(False) == 1
    assert rlaif("verify", root).code == 0


def test_row_is_traced_to_its_texts(rlaif: Rlaif, tmp_path: Path) -> None:
    measured(rlaif, tmp_path, {})
    row = rows_of(tmp_path)[0]
    ended = rlaif("trace", row.row_id, "--run", tmp_path / "outputs/judge-eval/e")
    assert ended.code == 0, ended.err
    for part in ("judgment", "response", "prompt", row.principle_id, "labeled/first"):
        assert part in ended.out, part


@pytest.mark.parametrize("command", ["resume", "report"])
def test_evaluation_is_no_run(rlaif: Rlaif, tmp_path: Path, command: str) -> None:
    measured(rlaif, tmp_path, {})
    page = (tmp_path / "outputs/judge-eval/e/report.html").read_text()
    ended = rlaif(command, tmp_path / "outputs/judge-eval/e")
    assert ended.code == 2 and "is an evaluation of a judge and no run" in ended.err
    assert (tmp_path / "outputs/judge-eval/e/report.html").read_text() == page


def test_other_inputs_need_another_name(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe, pairs = write_judge_recipe(tmp_path / "r"), write_pairs(tmp_path / "p.jsonl")
    assert rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e").code == 0
    for change in (["--seed", "5"], ["--limit", "10"]):
        ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e", *change)
        assert ended.code == 2 and "another recipe, label file, limit or seed" in ended.err
    assert rlaif("judge-eval", pairs, "--recipe", recipe, "--limit", "10", "--seed", "5").code == 0


def test_page_is_one_file_and_escaped(rlaif: Rlaif, tmp_path: Path) -> None:
    pairs = tmp_path / "<script>x.jsonl"
    write_pairs(pairs)
    recipe = write_judge_recipe(tmp_path / "r")
    assert rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e").code == 0
    page = (tmp_path / "outputs/judge-eval/e/report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;x.jsonl" in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page) and "<svg" in page
    markdown = (tmp_path / "outputs/judge-eval/e/report.md").read_text()
    for title in ("Accuracy", "Position", "Length", "Confidence", "By principle", "Label files"):
        assert f"## {title}" in markdown and title in page


# --- calibration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_calibration_from_labels_to_labels(rlaif: Rlaif, tmp_path: Path, kind: str) -> None:
    """Fit, name it in a recipe, label with it: the raw label stays, and the map is the file's."""
    recipe, out = write_judge_recipe(tmp_path / "r", {"sharpness": 3.0}), tmp_path / "c.json"
    pairs = write_noisy_pairs(tmp_path / "p.jsonl", 600)
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "raw", "--calibrate", out,
                  "--calibration-kind", kind)
    assert ended.code == 0, ended.err
    fitted = metrics_of(tmp_path, "raw")["calibration"]
    for figure in ("brier_score", "log_loss", "ece"):
        assert fitted["after"][figure] < fitted["before"][figure]
    written = json.loads(out.read_text())
    assert written["num_rows"] + fitted["before"]["n"] == 600
    assert re.match(r"p.jsonl sha256 [0-9a-f]{64}", written["fitted_on"])
    if kind == "temperature":
        assert written["temperature"] == pytest.approx(3.0, rel=0.25)
    calibrated = change_recipe(recipe, calibration=str(out))
    assert rlaif("judge-eval", pairs, "--recipe", calibrated, "--name", "e").code == 0
    raw = {r.first_id: r.soft_label for r in rows_of(tmp_path, name="raw")}
    found = rows_of(tmp_path)
    assert len(found) == 600 and all(r.calibration_hash for r in found)
    for row in found:
        assert row.raw_label == raw[row.first_id]
        if kind == "temperature":
            odds = written["temperature"]
            p, q = row.raw_label, row.soft_label
            assert q / (1 - q) == pytest.approx((p / (1 - p)) ** (1 / odds), rel=1e-6)
    judge = metrics_of(tmp_path)["judges"][0]
    assert judge["raw_confidence"]["ece"] > judge["confidence"]["ece"]


@pytest.mark.parametrize(("engine", "preference", "pattern"), [
    ({"name": "other"}, {}, "was fitted for judge"),
    ({}, {"ending": "Answer:"}, "was fitted for labeling method"),
])
def test_calibration_of_another_judge_or_method_is_refused(
    rlaif: Rlaif, tmp_path: Path, engine: dict[str, Any], preference: dict[str, Any], pattern: str,
) -> None:
    out = tmp_path / "c.json"
    pairs = write_noisy_pairs(tmp_path / "p.jsonl", 200)
    recipe = write_judge_recipe(tmp_path / "r", {"sharpness": 3.0})
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "raw", "--calibrate", out)
    assert ended.code == 0, ended.err
    other = change_recipe(
        write_judge_recipe(tmp_path / "s", {"sharpness": 3.0, **engine}), calibration=str(out), **preference)
    ended = rlaif("judge-eval", pairs, "--recipe", other, "--name", "e")
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert re.search(pattern, ended.err) and "rlaif judge-eval --calibrate" in ended.err
    assert not (tmp_path / "outputs/judge-eval/e").exists()
    for command in (["run", other, "--no-prefect", "--run-id", "one"], ["check", other]):
        ended = rlaif(*command)
        assert ended.code == 2 and len(ended.err.splitlines()) == 1 and re.search(pattern, ended.err)
    assert not (tmp_path / "outputs/runs").exists()


def test_refused_fit_keeps_the_report(rlaif: Rlaif, tmp_path: Path) -> None:
    """A judge that is always right supports no temperature; its figures are still worth having."""
    recipe, out = write_judge_recipe(tmp_path / "r"), tmp_path / "c.json"
    pairs = write_pairs(tmp_path / "p.jsonl", 100)
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e", "--calibrate", out)
    assert ended.code == 2 and "was right, however sure" in ended.err
    assert len(ended.err.splitlines()) == 1 and not out.exists()
    assert metrics_of(tmp_path)["judges"][0]["accuracy"]["share"] == 1.0


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "arguments", "pattern"), [
    ({}, ["--type", "hhrlhf"], "--type is 'hhrlhf', but it is one of pairs, hh-rlhf, hhh"),
    ({}, ["--type", "hh-rlhf"], r"p.jsonl, line 1.*whole|line 1.*transcript"),
    ({}, ["--sources", "x.yaml"], "FILE and --sources are both given"),
    ({}, ["--name", "../x"], "--name is '../x'"),
    ({}, ["--calibrate", "{tmp}"], "is no file in a folder that exists"),
    ({}, ["--calibrate", "{tmp}/c.json", "--limit", "20"], "needs 20 rows in each half"),
    ({}, ["--calibrate", "{tmp}/c.json", "--calibration-kind", "platt"], "--calibration-kind is 'platt'"),
    ({"preference": {"judge": {"calibration": "c.json"}}}, ["--calibrate", "{tmp}/c.json"],
     "calibrated already, and a calibration is fitted on raw ones"),
    ({"panel": [{"type": "scripted", "script": "tests.judge_eval.judges:make_engine"}]},
     ["--calibrate", "{tmp}/c.json"], "a panel of 2 judges, and a calibration belongs to one"),
    ({"preference": {"labeler": "score"}}, [], "labeler of .* is 'score', but this command measures"),
    ({"preference": {"judge": {"calibration": "none.json"}}}, [], "none.json does not exist"),
    ({"constitution": "none.yaml"}, [], "none.yaml does not exist"),
])
def test_mistake_is_one_line(
    rlaif: Rlaif, tmp_path: Path, changes: dict[str, Any], arguments: list[str], pattern: str
) -> None:
    recipe = write_judge_recipe(tmp_path / "r", **changes)
    given = [a.replace("{tmp}", str(tmp_path)) for a in arguments]
    ended = rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", recipe, *given)
    assert_one_line(ended, pattern, tmp_path)
    assert not (tmp_path / "c.json").exists()


def test_missing_files_are_named(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_judge_recipe(tmp_path / "r")
    assert_one_line(rlaif("judge-eval", "--recipe", recipe), "none is given; name FILE", tmp_path)
    assert_one_line(rlaif("judge-eval", tmp_path / "x.jsonl", "--recipe", recipe),
                    "label file .*x.jsonl does not exist", tmp_path)
    assert_one_line(rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", "x.yaml"),
                    "x.yaml", tmp_path)
