"""`--from-checks`: a judge on comparisons of a run's own texts whose truth a check knows."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.checks import run_check
from pipeline.config.factories import recipe_factory
from pipeline.engines import ScriptedEngine
from pipeline.errors import DataError
from pipeline.judge_eval.checked import checked_comparisons
from pipeline.run.nightly import take_run
from pipeline.run.start import start_run
from pipeline.store import RunDir
from pipeline.types import Messages
from tests.cli.commands import Rlaif
from tests.judge_eval.command_runs import assert_one_line, metrics_of, rows_of
from tests.run.builders import CONSTITUTION, write_recipe
from tests.stages.builders import log_sigmoid, slots

SHORT = {"name": "words", "max": 4}


@recipe_factory
def make_engine() -> ScriptedEngine:
    """Writes 3 to 6 words, and prefers the shorter text where it is asked about politeness 0.
    Asked for digits it writes prose.
    """

    def reply(messages: Messages, seed: int) -> str:
        return " ".join(["word"] * (3 + seed % 4)) + f" {seed}"

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        if options[0] == "1":
            return [log_sigmoid(-9.0)] * 2
        a, b = (len(text.split()) for text in slots(messages))
        value = float(b - a) if "polite, 0" in str(messages) else 0.0
        return [log_sigmoid(value), log_sigmoid(-value)]

    return ScriptedEngine(reply, scores, name="tests")


def recipe(folder: Path, *checks: Any, **changes: Any) -> Path:
    """The first principles have these checks."""
    script = "tests.judge_eval.test_checked:make_engine"
    path = write_recipe(
        folder, prompts=60, policy={"type": "scripted", "script": script}, **changes
    )
    principles = [
        {**principle, **({"check": check} if check else {})}
        for principle, check in zip(CONSTITUTION["principles"], [*checks, None, None], strict=False)
    ]
    text = yaml.safe_dump({"name": "t", "principles": principles[:3]})
    (folder / "constitution.yaml").write_text(text)
    return path


def made(path: Path, folder: Path) -> RunDir:
    """The run of a recipe."""
    run = start_run(path, run_id="one", runs_root_folder=folder)
    asyncio.run(take_run(run))
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run in which one of three checks tells texts apart."""
    folder = tmp_path_factory.mktemp("checked")
    checks = (SHORT, {"name": "no_emoji"}, {"name": "no_lists"})
    return made(recipe(folder / "r", *checks), folder / "runs")


def test_one_comparison_for_each_prompt_and_check(whole: RunDir) -> None:
    found = checked_comparisons(whole)
    rows = found.imported.rows
    assert len({row.prompt_id for row in rows}) == len(rows) == found.imported.record.num_ok > 10
    for row in rows:
        check = found.principles[row.row_id].check
        assert check and row.principle_id == "p-0"
        assert run_check(check, row.chosen).passes and not run_check(check, row.rejected).passes
    assert checked_comparisons(whole) == found


def test_judge_is_asked_under_the_principle_of_the_check(
    rlaif: Rlaif, tmp_path: Path, whole: RunDir
) -> None:
    """It sees what the check sees, so it is always right, also in a recipe without checks."""
    other = recipe(tmp_path / "other")
    known = tmp_path / "known.json"
    ended = rlaif(
        "judge-eval", "--recipe", other, "--from-checks", whole.root, "--name", "e",
        "--known-labels", known,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    (judge,) = metrics_of(tmp_path)["judges"]
    assert judge["accuracy_all"]["share"] == 1.0 and judge["accuracy_all"]["n"] > 10
    labels = rows_of(tmp_path)
    assert {(row.principle_id, row.method) for row in labels} == {("p-0", "judge")}
    assert all(row.model_fingerprint and row.prob_forward is not None for row in labels)
    stored = json.loads(known.read_text())
    assert len(stored["labels"]) == len(labels) and all(x["label"] > 0.5 for x in stored["labels"])
    # The same command continues, and asks nothing again.
    again = rlaif("judge-eval", "--recipe", other, "--from-checks", whole.root, "--name", "e")
    assert again.code == 0 and rows_of(tmp_path) == labels


def test_ways_of_asking_are_tried_on_them(rlaif: Rlaif, whole: RunDir) -> None:
    """Every principle of the recipe has a check, so no pair of people would fit it."""
    ended = rlaif("judge-tune", whole.recipe, "--from-checks", whole.root)
    assert ended.code == 0, ended.err
    assert "half that chooses: as in the recipe." in ended.out and "100" in ended.out


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (("pairs.jsonl", "--from-checks", "one"), "--from-checks and pairs.jsonl are both given"),
        (("--type", "hhh", "--from-checks", "one"), "--from-checks and hhh are both given"),
        (("--from-checks", "nowhere"), "nowhere"),
        ((), "no labels are given; name a FILE"),
    ],
    ids=["file", "type", "no run", "nothing"],
)
def test_labels_come_from_one_place(
    rlaif: Rlaif, tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    path = write_recipe(tmp_path / "r")
    for command in (("judge-eval", "--recipe", path), ("judge-tune", path)):
        assert_one_line(rlaif(*command, *arguments), problem, tmp_path)


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ([], "no principle of run one has a check"),
        ([{"name": "no_emoji"}], "has no texts of which one holds"),
    ],
)
def test_run_whose_texts_no_check_tells_apart(
    tmp_path: Path, whole: RunDir, checks: list[Any], message: str
) -> None:
    other = recipe(tmp_path / "r", *checks).with_name("constitution.yaml")
    shutil.copytree(whole.root, tmp_path / "one")
    run = RunDir(tmp_path / "one")
    shutil.copyfile(other, run.constitution)
    with pytest.raises(DataError, match=message):
        checked_comparisons(run)
