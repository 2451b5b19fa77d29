"""The table of stages alone names kinds of stages and knows the order of folders."""

import ast
import re
from pathlib import Path

import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.store.stage_names import (
    PHASES,
    STAGES,
    nth_folder,
    split_folder,
    stage_folder,
    stage_folders,
    stage_order,
    stage_title,
)

TABLE = PROJECT_ROOT / "pipeline" / "store" / "stage_names.py"
FOLDER = re.compile(rf"({'|'.join(PHASES)})/($|({'|'.join(STAGES)})([-*/]|$))")


def strings(path: Path) -> list[str]:
    """String constants of a module, docstrings left out."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    constants = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docs)
    return [node.value for node in constants if isinstance(node.value, str)]


def test_no_other_file_names_a_stage_folder() -> None:
    named = {
        f"{path.relative_to(PROJECT_ROOT)}: {text}"
        for folder in ("pipeline", "flows")
        for path in (PROJECT_ROOT / folder).rglob("*.py")
        if path != TABLE
        for text in strings(path)
        if FOLDER.match(text)
    }
    assert not named


def test_folders_are_in_the_order_of_a_run() -> None:
    ordered = [
        "prompts",
        "supervised/sample",
        "supervised/critique-1",
        "supervised/revise-1",
        "supervised/critique-2",
        "supervised/revise-2",
        "supervised/efficacy-1",
        "preference/sample",
        "preference/score",
        "preference/judge",
        "preference/judge-2",
        "preference/judge-10",
        "preference/pool",
        "preference/pair",
        "heldout",
        "evaluation/sample-initial",
        "evaluation/sample-tuned",
        "evaluation/judge-tuned-vs-initial",
    ]
    assert sorted(reversed(ordered), key=stage_order) == ordered


@pytest.mark.parametrize("kind", STAGES)
def test_every_kind_has_a_title_in_its_phases(kind: str) -> None:
    for phase, title in STAGES[kind].titles.items():
        folder = stage_folder(phase, kind, 2)
        assert split_folder(folder) == (phase, kind, "2")
        assert stage_title(folder) == title and phase in PHASES


def test_first_judge_has_no_number() -> None:
    assert [nth_folder("judge", n) for n in range(3)] == [
        "preference/judge",
        "preference/judge-2",
        "preference/judge-3",
    ]


def test_folders_of_a_run_are_found(tmp_path: Path) -> None:
    for folder in ("preference/judge-2", "preference/judge", "supervised/sample", "training/sft"):
        (tmp_path / folder).mkdir(parents=True)
        if not folder.startswith("training"):
            (tmp_path / folder / "shard-00000.json").touch()
    assert stage_folders(tmp_path) == [
        "supervised/sample",
        "preference/judge",
        "preference/judge-2",
    ]
    assert stage_folders(tmp_path, "preference", "judge") == [
        "preference/judge",
        "preference/judge-2",
    ]
    assert stage_folders(tmp_path, kind="sample") == ["supervised/sample"]
