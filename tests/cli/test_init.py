"""`rlaif init`: what it makes runs as it is."""

from pathlib import Path

import pytest

from pipeline.cli.init import examples
from tests.cli.commands import Rlaif


@pytest.mark.parametrize("like", examples())
def test_every_example_is_checked(rlaif: Rlaif, tmp_path: Path, like: str) -> None:
    folder = tmp_path / "my first: 'policy'"
    ended = rlaif("init", folder, "--like", like)
    assert (ended.code, ended.err) == (0, "")
    ended = rlaif("check", folder / "recipe.yaml")
    assert ended.code == 0 and "my-first-policy: Begun with" in ended.out, ended.err
    assert {path.name for path in folder.iterdir()} == {
        "recipe.yaml",
        "constitution.yaml",
        "prompts.jsonl",
        "heldout.jsonl",
    }


def test_it_runs_to_a_report(rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rlaif("init", "voice").code == 0
    ended = rlaif("run", "voice/recipe.yaml", "--no-prefect", "--run-id", "r")
    assert ended.code == 0, ended.err
    assert (tmp_path / "outputs/runs/r/report.html").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_nothing_is_overwritten(rlaif: Rlaif, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "there"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    ended = rlaif("init", target)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "exists already" in ended.err


def test_unknown_example_names_the_others(rlaif: Rlaif, tmp_path: Path) -> None:
    ended = rlaif("init", tmp_path / "new", "--like", "../general")
    assert (ended.code, "support_tone" in ended.err) == (2, True)
    assert not (tmp_path / "new").exists()
