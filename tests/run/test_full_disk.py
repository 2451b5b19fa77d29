"""A disk that is full at any point of a run: one line, nothing half-written, and it can go on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.paths import PROJECT_ROOT
from tests.run.builders import write_recipe

NAMESPACE = ["unshare", "-rm"]


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    test = [*NAMESPACE, "mount", "-t", "tmpfs", "disk", "/mnt"]
    return subprocess.run(test, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="this machine allows no mounts in a user namespace")
def test_run_survives_a_full_disk_at_any_point(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prompts=5, heldout=2)
    (tmp_path / "disk").mkdir()
    command = [sys.executable, "-m", "tests.run.full_disk", str(recipe), str(tmp_path / "disk")]
    ended = subprocess.run(
        [*NAMESPACE, *command, "64"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    *results, last = json.loads(ended.stdout.splitlines()[-1])
    assert len(results) > 3 and last["code"] == 0
    for result in results:
        for code, text in ([result["code"], result["text"]], result["resumed_while_full"]):
            assert code in (0, 2), text
            assert code == 0 or (text.startswith("rlaif: ") and text.count("\n") == 1), text
        assert "No space left" in result["text"] or "no space left" in result["text"]
        assert result["strays"] == [] and result["end"] == [0, ""]
        assert result["problems"] == [] and result["pairs"] == last["pairs"]
