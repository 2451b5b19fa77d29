"""`rlaif judge-eval` under a constitution with checks: the judge is asked, never a program."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from pipeline.judge_eval.items import UNDECIDED
from tests.cli.commands import Rlaif
from tests.judge_eval.builders import write_judge_recipe, write_pairs
from tests.judge_eval.command_runs import assert_one_line, metrics_of, rows_of
from tests.run.builders import CONSTITUTION


def with_checks(tmp_path: Path, number: int, **changes: Any) -> Path:
    """A recipe whose constitution has a check for the first principles."""
    recipe = write_judge_recipe(tmp_path / "r", {}, **changes)
    check = {"name": "words", "max": 3}
    principles = [
        {**principle, "check": check} if n < number else principle
        for n, principle in enumerate(CONSTITUTION["principles"])
    ]
    path = tmp_path / "r" / "constitution.yaml"
    path.write_text(yaml.safe_dump({**CONSTITUTION, "principles": principles}))
    return recipe


def tagged(path: Path, count: int, *principles: str) -> Path:
    """A source list of pairs that were labeled under these principles in turn."""
    pairs = write_pairs(path / "pairs.jsonl", count, tags=[f"principle:{p}" for p in principles])
    columns = {"chosen": "chosen", "rejected": "rejected", "tags": "tags"}
    source = {"type": "pairs", "name": "people", "path": str(pairs), "columns": columns}
    (path / "sources.yaml").write_text(yaml.safe_dump({"sources": [source]}))
    return path / "sources.yaml"


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


def test_labels_of_people_keep_their_principle(rlaif: Rlaif, tmp_path: Path) -> None:
    """Ten labels each: under a check, under a judged principle, pooled over two, and under one of
    another constitution. The judge is asked under the second and the third alone.
    """
    sources, recipe = tagged(tmp_path, 40, "p-0", "p-2", "p-1+p-2", "p-9"), with_checks(tmp_path, 1)
    ended = rlaif("judge-eval", "--sources", sources, "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    assert Counter(row.principle_id for row in rows_of(tmp_path)) == {"p-1": 10, "p-2": 20}
    metrics = metrics_of(tmp_path)
    assert metrics["sources"][0]["reasons"] == {UNDECIDED: 20} and metrics["num_rows"] == 20
    pooled = metrics["judges"][-1]
    assert (pooled["name"], pooled["accuracy"]["n"]) == ("pooled", 20)
    assert {g["id"]: g["expected"] for g in pooled["by_principle"]} == {"p-1+p-2": 10, "p-2": 10}


def test_labels_under_checks_alone_are_refused(rlaif: Rlaif, tmp_path: Path) -> None:
    sources, recipe = tagged(tmp_path, 4, "p-0"), with_checks(tmp_path, 1)
    ended = rlaif("judge-eval", "--sources", sources, "--recipe", recipe, "--name", "e")
    assert_one_line(ended, "all labels were given under principles that constitution", tmp_path)


def rated(tmp_path: Path, checks: int, principles: str) -> Path:
    """A recipe whose model rates each response."""
    recipe = with_checks(
        tmp_path, checks, preference={"labeler": "score", "score": {"principles": principles}}
    )
    value = yaml.safe_load(recipe.read_text())
    value["judge"] = {"type": "scripted", "script": "tests.run.scripted_world:make_engine"}
    recipe.write_text(yaml.safe_dump(value))
    return recipe


def test_ratings_keep_the_principle_of_a_label(rlaif: Rlaif, tmp_path: Path) -> None:
    sources, recipe = tagged(tmp_path, 20, "p-1", "p-1+p-2"), rated(tmp_path, 1, "all")
    ended = rlaif("judge-eval", "--sources", sources, "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    parts = Counter(row.parts for row in rows_of(tmp_path, "preference/score"))
    assert parts == {("p-1",): 20, ("p-1", "p-2"): 20}


def test_ratings_of_checks_are_left_out(rlaif: Rlaif, tmp_path: Path) -> None:
    """A check is right by definition: its decisions would flatter the model that rates."""
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    recipe = rated(tmp_path, 2, "drawn")
    assert rlaif("judge-eval", pairs, "--recipe", recipe, "--name", "e").code == 0
    assert {row.parts for row in rows_of(tmp_path, "preference/score")} == {("p-2",)}
