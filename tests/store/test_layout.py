"""One process per run folder, and every path in one place."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import StoreError
from pipeline.store import RunDir, RunLock, new_run_id, write_json
from pipeline.store.layout import check_folder_name

HOLD = (
    "import sys, time; from pathlib import Path; from pipeline.store import RunLock\n"
    "with RunLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def hold_lock(root: Path) -> subprocess.Popen[str]:
    """Another process that works in the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_second_process_is_kept_out(tmp_path: Path) -> None:
    process = hold_lock(tmp_path)
    try:
        with pytest.raises(
            StoreError, match=f"in use by process {process.pid}; wait for it, or stop"
        ):
            RunLock(tmp_path).__enter__()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # The lock went with the process, although nothing could clean up.
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("name", ["night-2", "7b.base_x", "n" * 100])
def test_names_of_folders(name: str) -> None:
    assert check_folder_name(name, "--run-id") == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "..", "~", "/srv/x", "..\\x", "x/../y", ".git", "--out", "a b", "a\n", "a\0", "é",
     "\u202eb", "<b>", "n" * 101],
)  # fmt: skip
def test_paths_options_and_hidden_files_name_no_folder(name: str) -> None:
    with pytest.raises(StoreError, match=r"--run-id is '[ -~]*', but it names a folder: use at"):
        check_folder_name(name, "--run-id")


def test_lock_does_not_follow_a_link(tmp_path: Path) -> None:
    """A run folder from elsewhere may hold a link to a file of its reader."""
    other = tmp_path / "letter"
    other.write_text("dear")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(other)
    with (
        pytest.raises(StoreError, match=r"lock .* cannot be opened .* remove it"),
        RunLock(tmp_path / "run"),
    ):
        pass
    assert other.read_text() == "dear"


def test_lock_is_free_after_use(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLock(tmp_path):
            pass


def test_lock_removes_strays_of_the_dead(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process_id in (dead.pid, os.getpid()):
        (tmp_path / "prompts").mkdir(exist_ok=True)
        (tmp_path / "prompts" / f".shard-00000.json.{process_id}.tmp").write_text("half")
    with RunLock(tmp_path):
        (left,) = (tmp_path / "prompts").iterdir()
    assert str(os.getpid()) in left.name


def test_lock_is_not_taken_twice(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(StoreError, match="in use"):
        RunLock(tmp_path).__enter__()


def test_run_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds, minutes, days and years apart, the names sort as the times do."""
    times = [
        datetime(2026, 9, 30, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 10, 1, tzinfo=UTC),
        datetime(2026, 10, 1, 0, 0, 1, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    ]
    clock = iter(times)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            moment = next(clock)
            return cls.fromtimestamp(moment.timestamp(), tz)

    monkeypatch.setattr("pipeline.store.layout.datetime", Clock)
    ids = [new_run_id("demo") for _ in times]
    assert ids == sorted(ids) and ids[0].startswith("demo-20260930-235959-")


def test_run_ids_of_one_second_differ() -> None:
    assert len({new_run_id("demo") for _ in range(20)}) == 20


def test_folder_without_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is not a run .*`rlaif runs`"):
        RunDir(tmp_path).require()
    write_json(tmp_path / "run.json", {})
    assert RunDir(tmp_path).require().root == tmp_path


def test_info_is_updated_in_place(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.info() == {}
    run.update_info(status="started", seed=1)
    run.update_info(status="finished")
    assert run.info() == {"status": "finished", "seed": 1}


def test_paths_are_where_the_readme_says(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    assert run.run_id == "r"
    paths = (run.recipe, run.constitution, run.dataset, run.metrics, run.report)
    assert [str(path.relative_to(run.root)) for path in paths] == [
        "recipe.yaml",
        "constitution.yaml",
        "dataset",
        "evaluation/metrics.json",
        "report.html",
    ]
    assert run.training("sft") == run.root / "training/sft"
