"""What a resumed run says of its own past: its environments, and files that were edited."""

import asyncio
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, StoreError
from pipeline.report.source import read_run
from pipeline.report.tables import lineage_table
from pipeline.run import environment
from pipeline.run.nightly import take_run
from pipeline.run.start import check_recipe, start_run
from pipeline.store import RunDir, write_json
from tests.run.builders import stored_json, write_recipe

COMMITS = [{"commit": "1" * 40, "changed": False}, {"commit": "2" * 40, "changed": True}]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return start_run(write_recipe(tmp_path, prompts=4), run_id="one", runs_root_folder=tmp_path)


def take(run: RunDir) -> None:
    asyncio.run(take_run(run))


def test_each_environment_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a run that is resumed after an update are of two commits."""
    monkeypatch.setattr(environment, "code_revision", lambda: COMMITS[0])
    run = start_run(write_recipe(tmp_path, prompts=4), run_id="one", runs_root_folder=tmp_path)
    take(run)
    first = stored_json(run.root / "environment.json")
    assert first["code"] == COMMITS[0] and "later" not in first
    for code in (COMMITS[1], COMMITS[1], COMMITS[0]):
        monkeypatch.setattr(environment, "code_revision", lambda code=code: code)
        take(run)
    recorded = stored_json(run.root / "environment.json")
    later = recorded.pop("later")
    assert recorded == first
    assert [each["code"] for each in later] == [COMMITS[1], COMMITS[0]]
    shown = [str(cell) for row in lineage_table(read_run(run)).rows for cell in row.values()]
    assert f"{'2' * 40} · with local changes" in shown and shown.count("code of a resume") == 2


def test_edited_copy_whose_original_is_gone_is_refused(run: RunDir, tmp_path: Path) -> None:
    run.constitution.write_text(run.constitution.read_text() + "# mine\n")
    for name in ("recipe.yaml", "constitution.yaml"):
        (tmp_path / name).write_text("other: 1\n")
    with pytest.raises(StoreError, match="back from a copy of yours, or start a new run with the"):
        take(run)


def test_file_that_is_gone_after_the_check_is_named(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "in")
    checked = check_recipe(recipe)
    recipe.with_name("constitution.yaml").unlink()
    with pytest.raises(ConfigError, match=r"constitution.yaml does not exist; it was there when"):
        start_run(checked, run_id="one", runs_root_folder=tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("odd", [[], {"later": 7}, {"later": ["x"], "code": 3}])
def test_odd_environment_is_no_bug(run: RunDir, odd: Any) -> None:
    write_json(run.root / "environment.json", odd)
    take(run)
    assert read_run(run).environment and lineage_table(read_run(run)).rows


@pytest.mark.parametrize("name", ["recipe.yaml", "constitution.yaml", "templates/judge.jinja"])
def test_edited_copy_is_refused(run: RunDir, name: str) -> None:
    """Not remade without a word: the rows would be paid for once more."""
    take(run)
    path = run.root / name
    before = {p: p.read_bytes() for p in run.root.rglob("*") if p.is_file()}
    path.write_text(path.read_text().replace("e", "e ", 1))
    with pytest.raises(StoreError, match=rf"{name} was changed since run one began") as refused:
        take(run)
    assert "start a new run with the changed one: `rlaif run" in str(refused.value)
    # The command in the message puts the first version back.
    (command,) = re.findall(r"put the first one back \(`(cp [^`]+)`\)", str(refused.value))
    subprocess.run(shlex.split(command), check=True)
    assert {p: p.read_bytes() for p in run.root.rglob("*") if p.is_file()} == before
    take(run)
