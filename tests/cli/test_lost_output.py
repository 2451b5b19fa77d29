"""A run is not its output: a full disk, a reader that has gone and closed streams end nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.data.verify import verify
from pipeline.store import RunDir
from tests.run.builders import write_recipe

LOST = (
    "standard output cannot be written (No space left on device), so the rest of it is not shown; "
    "the command continues"
)
REDIRECTED = {
    "full disk": (">/dev/full", [LOST]),
    "full disk for both": (">/dev/full 2>&1", []),
    "reader gone": ("| true", []),
    "closed": (">&-", []),
    "all closed": ("<&- >&- 2>&-", []),
}


def shell(folder: Path, command: str, redirected: str) -> tuple[int, list[str]]:
    """Exit code of `rlaif COMMAND`, and what it says on stderr."""
    program = f'"$0" -m pipeline.cli {command} {redirected}'
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", program, sys.executable],
        cwd=PROJECT_ROOT,
        env=os.environ | {"RLAIF_OUTPUTS": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    return ended.returncode, ended.stderr.splitlines()


@pytest.mark.parametrize("name", REDIRECTED)
def test_run_needs_no_output(tmp_path: Path, name: str) -> None:
    recipe = write_recipe(tmp_path, prompts=4, heldout=2)
    redirected, said = REDIRECTED[name]
    ended = shell(tmp_path, f"run {recipe} --no-prefect --run-id one", redirected)
    assert ended == (0, said)
    run = RunDir(tmp_path / "runs/one")
    assert run.info()["status"] == "finished" and verify(run) == []
    # No file has taken the place of a closed stream.
    assert (run.root / ".lock").read_text().isdecimal()


def test_table_for_a_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/run.json").write_text("{}")
    assert shell(tmp_path, "runs", ">/dev/full") == (0, [LOST])


def test_letter_that_the_locale_lacks_is_an_escape(tmp_path: Path) -> None:
    """A table writes to the stream itself, which is ASCII in the locale C."""
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/run.json").write_text('{"constitution": {"name": "k\u00e4se"}}')
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "runs"],
        cwd=PROJECT_ROOT,
        env=os.environ | {"RLAIF_OUTPUTS": str(tmp_path)} | locale,
        capture_output=True,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert rb"k\xe4se" in ended.stdout


def test_working_directory_that_is_gone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    program = 'cd "$1" && rmdir "$1" && PYTHONPATH="$2" "$0" -m pipeline.cli runs'
    command = ["bash", "-c", program, sys.executable, str(tmp_path / "gone"), str(PROJECT_ROOT)]
    ended = subprocess.run(command, capture_output=True, text=True)
    line = "rlaif: the working directory no longer exists; change into one that does\n"
    assert (ended.returncode, ended.stderr, ended.stdout) == (2, line, "")
