"""`rlaif judge-eval` under a constitution with checks: the judge is asked, never a program."""

from pathlib import Path

import yaml

from tests.cli.commands import Rlaif
from tests.judge_eval.builders import write_judge_recipe, write_pairs
from tests.judge_eval.command_runs import assert_one_line, metrics_of, rows_of
from tests.run.builders import CONSTITUTION


def with_checks(tmp_path: Path, number: int) -> Path:
    """A recipe whose constitution has a check for the first principles."""
    recipe = write_judge_recipe(tmp_path / "r", {})
    check = {"name": "words", "max": 3}
    principles = [
        {**principle, "check": check} if n < number else principle
        for n, principle in enumerate(CONSTITUTION["principles"])
    ]
    path = tmp_path / "r" / "constitution.yaml"
    path.write_text(yaml.safe_dump({**CONSTITUTION, "principles": principles}))
    return recipe


def test_only_judged_principles_are_asked(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = with_checks(tmp_path, 2)
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    assert {(row.principle_id, row.method) for row in rows_of(tmp_path)} == {("p-2", "judge")}
    (judge,) = metrics_of(tmp_path)["judges"]
    assert judge["accuracy"]["share"] == 1.0 and judge["accuracy"]["n"] == 40


def test_constitution_of_checks_alone_is_refused(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = with_checks(tmp_path, 3)
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    ended = rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e")
    assert_one_line(ended, "a program decides every principle of .*constitution.yaml", tmp_path)
