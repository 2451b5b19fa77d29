"""`rlaif judge-eval --known-labels`, and a run whose `pair.max_error` rests on them."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.judge_eval import sources_of
from pipeline.judge_eval.request import Request
from pipeline.judge_eval.run import prepare_evaluation, run_evaluation
from pipeline.store import read_json, read_rows
from pipeline.store.shards import stage_manifests
from tests.cli.commands import Rlaif
from tests.judge_eval.builders import ENGINE, write_judge_recipe, write_noisy_pairs


def measure(rlaif: Rlaif, tmp_path: Path, recipe: Path, num_pairs: int = 60) -> Path:
    out = tmp_path / "known.json"
    pairs = write_noisy_pairs(tmp_path / "p.jsonl", num_pairs)
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e", "--known-labels", out)
    assert ended.code == 0, ended.err
    assert f"known labels: {out}" in ended.out
    return out


def test_file_holds_the_labels_of_the_better_responses(rlaif: Rlaif, tmp_path: Path) -> None:
    out = measure(rlaif, tmp_path, write_judge_recipe(tmp_path / "r"))
    known = json.loads(out.read_text())
    metrics = read_json(tmp_path / "outputs/judge-eval/e/metrics.json")
    assert isinstance(metrics, dict)
    right = sum(x["label"] > 0.5 for x in known["labels"]) / len(known["labels"])
    assert right == metrics["judges"][0]["accuracy"]["share"]
    assert len(known["judges"]) == 1 and known["measured_on"].startswith("p.jsonl sha256 ")


def bounded(recipe: Path, known: Path, **pair: Any) -> Path:
    """The recipe with a bound of the error."""
    value = yaml.safe_load(recipe.read_text())
    value["preference"] = {"pair": {"max_error": 0.2, "known_labels": str(known), **pair}}
    path = recipe.with_name("bounded.yaml")
    path.write_text(yaml.safe_dump(value))
    return path


def test_a_run_keeps_labels_above_the_threshold_and_says_why(
    rlaif: Rlaif, tmp_path: Path, known: Path
) -> None:
    """Everything the bound rests on is in the metrics, the card and the reports."""
    policy = {"type": "scripted", "script": "tests.judge_eval.judges:make_policy"}
    recipe = write_judge_recipe(tmp_path / "r", policy=policy, prompts=40)
    ended = rlaif("run", bounded(recipe, known), "--no-prefect", "--run-id", "one")
    assert ended.code == 0, ended.err
    run = tmp_path / "outputs/runs/one"
    assert rlaif("report", "one").code == 0
    metrics = read_json(run / "evaluation/metrics.json")
    assert isinstance(metrics, dict)
    bound = metrics["data"]["error_bound"]
    assert 0.5 < bound["least_label"] < 1 and bound["upper_bound"] <= 0.2
    left_out = metrics["data"]["reasons"]["label below the threshold of max_error"]
    assert left_out > 0 and metrics["data"]["kept"] > 0
    pairs = [row for m in stage_manifests(run, "preference/pairs") for row in read_rows(run, m)]
    for row in pairs:
        if row.status == "ok":
            assert row.soft_label >= bound["least_label"]
        elif "max_error" in row.reason:
            assert row.soft_label < bound["least_label"]
    for page in ("dataset/README.md", "report.html", "report.md"):
        text = (run / page).read_text()
        assert "With a confidence of 90 %, at most 20.0 % of the pairs are wrong" in text, page


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 labels of the honest judge."""
    folder = tmp_path_factory.mktemp("known")
    pairs = write_noisy_pairs(folder / "p.jsonl", 600)
    request = Request(
        recipe=write_judge_recipe(folder / "r"),
        sources=sources_of(pairs, None, None),
        known_labels=folder / "known.json",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLAIF_OUTPUTS", str(folder / "outputs"))
        asyncio.run(run_evaluation(prepare_evaluation(request)))
    return folder / "known.json"


@pytest.mark.parametrize(
    ("engine", "pair", "pattern"),
    [
        ({"name": "other"}, {}, "were made by another judge, template, calibration"),
        ({}, {"max_error": 0.005}, "needs about 575 known labels"),
        ({}, {"known_labels": "/nowhere/known.json"}, "do not exist; make it with"),
        ({}, {"known_labels": None}, "belong together"),
    ],
)
def test_labels_of_another_judge_and_too_few_are_one_line(
    rlaif: Rlaif,
    tmp_path: Path,
    known: Path,
    engine: dict[str, Any],
    pair: dict[str, Any],
    pattern: str,
) -> None:
    recipe = bounded(write_judge_recipe(tmp_path / "s", engine), known, **pair)
    for command in (["check", recipe], ["run", recipe, "--no-prefect", "--run-id", "one"]):
        ended = rlaif(*command)
        assert ended.code == 2 and len(ended.err.splitlines()) == 1, ended.err
        assert re.search(pattern, ended.err), ended.err
    assert not (tmp_path / "outputs/runs").exists()


def test_labels_of_a_panel_do_not_bound_one_of_its_judges(rlaif: Rlaif, tmp_path: Path) -> None:
    """The pooled label is another one, although the first judge is the same."""
    second = {"type": "scripted", "script": ENGINE, "args": {"sharpness": 0.2, "name": "second"}}
    recipe = write_judge_recipe(tmp_path / "r", panel=[second])
    known = measure(rlaif, tmp_path, recipe, 600)
    ended = rlaif("check", bounded(write_judge_recipe(tmp_path / "s"), known, max_error=0.4))
    assert ended.code == 2 and "come from 2 judges, but this recipe has 1" in ended.err


def test_measuring_with_a_bounded_recipe_is_refused(
    rlaif: Rlaif, tmp_path: Path, known: Path
) -> None:
    recipe = bounded(write_judge_recipe(tmp_path / "r"), known)
    ended = rlaif(
        *("judge-eval", known.with_name("p.jsonl"), "--recipe", recipe),
        *("--known-labels", tmp_path / "again.json"),
    )
    assert ended.code == 2 and "measure with a recipe that has no" in ended.err
