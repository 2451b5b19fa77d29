"""`rlaif judge-eval`: calibrating, and mistakes in one line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import Rlaif
from tests.judge_eval.builders import (
    change_recipe,
    write_judge_recipe,
    write_noisy_pairs,
    write_pairs,
)
from tests.judge_eval.command_runs import assert_one_line, measured, metrics_of, rows_of


@pytest.mark.parametrize("command", ["resume", "report"])
def test_evaluation_is_no_run(rlaif: Rlaif, tmp_path: Path, command: str) -> None:
    measured(rlaif, tmp_path, {})
    page = (tmp_path / "outputs/judge-eval/e/report.html").read_text()
    ended = rlaif(command, tmp_path / "outputs/judge-eval/e")
    assert ended.code == 2 and "is the evaluation of a judge, not a run" in ended.err
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
    ended = rlaif(
        "judge-eval",
        pairs,
        "--recipe",
        recipe,
        "--name",
        "raw",
        "--calibrate",
        out,
        "--calibration-kind",
        kind,
    )
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
    raw = {r.first_id: r.prob_first for r in rows_of(tmp_path, name="raw")}
    found = rows_of(tmp_path)
    assert len(found) == 600 and all(r.calibration_hash for r in found)
    for row in found:
        assert row.raw_label == raw[row.first_id]
        if kind == "temperature":
            odds = written["temperature"]
            p, q = row.raw_label, row.prob_first
            assert q / (1 - q) == pytest.approx((p / (1 - p)) ** (1 / odds), rel=1e-6)
    judge = metrics_of(tmp_path)["judges"][0]
    assert judge["raw_confidence"]["ece"] > judge["confidence"]["ece"]


@pytest.mark.parametrize(
    ("engine", "preference", "pattern"),
    [
        ({"name": "other"}, {}, "was fitted for judge"),
        ({}, {"ending": "Answer:"}, "was fitted for labeling method"),
    ],
)
def test_calibration_of_another_judge_or_method_is_refused(
    rlaif: Rlaif, tmp_path: Path, engine: dict[str, Any], preference: dict[str, Any], pattern: str
) -> None:
    out = tmp_path / "c.json"
    pairs = write_noisy_pairs(tmp_path / "p.jsonl", 200)
    recipe = write_judge_recipe(tmp_path / "r", {"sharpness": 3.0})
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "raw", "--calibrate", out)
    assert ended.code == 0, ended.err
    other = change_recipe(
        write_judge_recipe(tmp_path / "s", {"sharpness": 3.0, **engine}),
        calibration=str(out),
        **preference,
    )
    ended = rlaif("judge-eval", pairs, "--recipe", other, "--name", "e")
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert re.search(pattern, ended.err) and "rlaif judge-eval --calibrate" in ended.err
    assert not (tmp_path / "outputs/judge-eval/e").exists()
    for command in (["run", other, "--no-prefect", "--run-id", "one"], ["check", other]):
        ended = rlaif(*command)
        assert (
            ended.code == 2 and len(ended.err.splitlines()) == 1 and re.search(pattern, ended.err)
        )
    assert not (tmp_path / "outputs/runs").exists()


def test_refused_fit_keeps_the_report(rlaif: Rlaif, tmp_path: Path) -> None:
    """A judge that is always right supports no temperature; its figures are still worth having."""
    recipe, out = write_judge_recipe(tmp_path / "r"), tmp_path / "c.json"
    pairs = write_pairs(tmp_path / "p.jsonl", 100)
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e", "--calibrate", out)
    assert ended.code == 2 and "was right at every confidence" in ended.err
    assert len(ended.err.splitlines()) == 1 and not out.exists()
    assert metrics_of(tmp_path)["judges"][0]["accuracy"]["share"] == 1.0


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "arguments", "pattern"),
    [
        ({}, ["--type", "hhrlhf"], "--type is 'hhrlhf', but it is one of pairs, openai, "),
        ({}, ["--type", "hh-rlhf"], r"p.jsonl, line 1.*whole|line 1.*transcript"),
        ({}, ["--sources", "x.yaml"], "FILE and --sources are both given"),
        ({}, ["--name", "../x"], "--name is '../x'"),
        ({}, ["--calibrate", "{tmp}"], "is a folder, or its folder does not exist"),
        ({}, ["--calibrate", "{tmp}/p.jsonl"], "p.jsonl would overwrite another file of this"),
        ({}, ["--known-labels", "{tmp}/r/../p.jsonl"], "would overwrite another file of this"),
        # Whatever is there and is no calibration: the constitution, the recipe.
        ({}, ["--calibrate", "{tmp}/r/constitution.yaml"], "would overwrite another file"),
        ({}, ["--known-labels", "{recipe}"], "would overwrite another file"),
        (
            {},
            ["--calibrate", "{tmp}/c.json", "--known-labels", "{tmp}/c.json"],
            "--known-labels .*c.json would overwrite another file of this command",
        ),
        ({}, ["--calibrate", "{tmp}/c.json", "--limit", "20"], "needs 20 rows in each half"),
        (
            {},
            ["--calibrate", "{tmp}/c.json", "--calibration-kind", "platt"],
            "--calibration-kind is 'platt'",
        ),
        (
            {"preference": {"judge": {"calibration": "c.json"}}},
            ["--calibrate", "{tmp}/c.json"],
            "names a calibration already, but a calibration is fitted on raw labels",
        ),
        (
            {"panel": [{"type": "scripted", "script": "tests.judge_eval.judges:make_engine"}]},
            ["--calibrate", "{tmp}/c.json"],
            "a panel of 2 judges, but a calibration belongs to one judge",
        ),
        (
            {
                "preference": {
                    "labeler": "assumed",
                    "comparisons": "revision_vs_initial",
                    "assumed": {"label_accuracy": 0.8},
                }
            },
            [],
            "labeler of .* is 'assumed', but this command measures a model that labels",
        ),
        (
            {"preference": {"labeler": "score"}},
            ["--calibrate", "{tmp}/c.json", "--calibration-kind", "isotonic"],
            "labeler 'score' gives scores, whose scale a temperature corrects",
        ),
        ({"preference": {"judge": {"calibration": "none.json"}}}, [], "none.json does not exist"),
        ({"constitution": "none.yaml"}, [], "none.yaml does not exist"),
    ],
)
def test_mistake_is_one_line(
    rlaif: Rlaif, tmp_path: Path, changes: dict[str, Any], arguments: list[str], pattern: str
) -> None:
    recipe = write_judge_recipe(tmp_path / "r", **changes)
    places = {"{tmp}": str(tmp_path), "{recipe}": str(recipe)}
    given = [places.get(a, a.replace("{tmp}", str(tmp_path))) for a in arguments]
    kept = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*.yaml")}
    pairs = write_pairs(tmp_path / "p.jsonl")
    before = pairs.read_bytes()
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, *given)
    assert_one_line(ended, pattern, tmp_path)
    assert pairs.read_bytes() == before
    assert kept == {path: path.read_bytes() for path in kept}
    assert not (tmp_path / "c.json").exists()


def test_missing_files_are_named(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_judge_recipe(tmp_path / "r")
    assert_one_line(
        rlaif("judge-eval", "--recipe", recipe), "no labels are given; name a FILE", tmp_path
    )
    assert_one_line(
        rlaif("judge-eval", tmp_path / "x.jsonl", "--recipe", recipe),
        "label file .*x.jsonl does not exist",
        tmp_path,
    )
    assert_one_line(
        rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", "x.yaml"),
        "x.yaml",
        tmp_path,
    )
