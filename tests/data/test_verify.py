"""Every file of a finished run is covered: each flipped bit, lost file and stray file is found."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.data.verify import check_files, verify
from pipeline.errors import StoreError
from pipeline.ids import file_hash
from pipeline.report import write_report
from pipeline.run.nightly import take_run
from pipeline.run.start import find_run, start_run
from pipeline.store import RunDir, RunLock, write_json
from pipeline.store.inventory import INVENTORY, LOCK, read_inventory
from tests.cli.commands import Rlaif
from tests.run.builders import write_recipe

WEIGHTS = "training/sft/model/model.safetensors"
TICK_S = 0.05
"""More than a tick of the clock of a file system: what happens in one tick has one time."""


def take(run: RunDir) -> None:
    asyncio.run(take_run(RunDir(run.root)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with files of every room, among them weights larger than a piece of the hash."""
    folder = tmp_path_factory.mktemp("finished")
    run = start_run(
        write_recipe(folder, prompts=5, heldout=2), run_id="one", runs_root_folder=folder
    )
    (run.root / WEIGHTS).parent.mkdir(parents=True)
    (run.root / WEIGHTS).write_bytes(bytes(range(256)) * 8192)
    (run.root / "training/sft/train.log").write_text("step 1\n")
    take(run)
    return run.root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunDir:
    """A copy, which a test may damage."""
    shutil.copytree(finished, tmp_path / "one")
    return RunDir(tmp_path / "one")


def all_files(root: Path) -> Iterator[Path]:
    """Every file but the lock, the only one that verify calls not covered."""
    return (p for p in sorted(root.rglob("*")) if p.is_file() and p.name != LOCK)


def found(run: RunDir, name: str) -> bool:
    """Whether verify names the file in exactly one line of its own."""
    try:
        problems = verify(RunDir(run.root))
    except StoreError as error:
        return name in str(error)
    assert len(problems) == len(set(problems)) and not any("\n" in p for p in problems)
    return sum(problem.startswith(f"{name}: ") for problem in problems) == 1


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


def test_flipped_bit_in_each_file_is_found(run: RunDir) -> None:
    assert verify(run) == [] and check_files(run).uncovered == []
    names = {path.relative_to(run.root).as_posix(): path for path in all_files(run.root)}
    assert len(names) > 40 and {WEIGHTS, "dataset/README.md", "evaluation/metrics.json"} < {*names}
    for name, path in names.items():
        data = path.read_bytes()
        path.write_bytes(flipped(data, len(data) // 2))
        assert found(run, name) or (name == INVENTORY and verify(run)), name
        path.write_bytes(data)
    assert verify(run) == []


def test_each_lost_file_is_found(run: RunDir) -> None:
    for path in all_files(run.root):
        data = path.read_bytes()
        path.unlink()
        assert found(run, path.relative_to(run.root).as_posix()) or (
            path.name.startswith("shard-") and verify(run)
        ), path
        path.write_bytes(data)
    assert verify(run) == []


def test_flipped_bit_in_the_list_itself_is_found(run: RunDir) -> None:
    path = run.root / INVENTORY
    data = path.read_bytes()
    for at in range(0, len(data), 199):
        path.write_bytes(flipped(data, at))
        assert verify(run), at


def test_stray_file_is_named(run: RunDir) -> None:
    (run.root / "dataset/extra.parquet").write_bytes(b"x")
    (run.root / "evaluation/elsewhere").symlink_to("/etc")
    os.mkfifo(run.root / "pipe")
    assert verify(run) == [
        f"{name}: was not there when the run ended"
        for name in ("dataset/extra.parquet", "evaluation/elsewhere", "pipe")
    ]


def test_pipe_in_place_of_a_file_ends_no_command_in_waiting(run: RunDir) -> None:
    """A pipe without a writer never ends; each is named instead, and resuming replaces it."""
    names = [
        *(path.relative_to(run.root).as_posix() for path in run.root.glob("preference/pair/*")),
        *("report.md", "dataset/manifest.json", "dataset/preference.parquet", INVENTORY),
    ]
    for name in names:
        path = run.root / name
        data = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        assert any(name.removesuffix(".parquet") in problem for problem in verify(run)), name
        path.unlink()
        path.write_bytes(data)
    manifest = run.root / "preference/pair/shard-00000.json"
    manifest.unlink()
    os.mkfifo(manifest)
    take(run)
    assert manifest.is_file() and verify(run) == []


def test_link_in_place_of_a_file_is_not_followed(run: RunDir, tmp_path: Path) -> None:
    (run.root / "report.md").rename(tmp_path / "moved.md")
    (run.root / "report.md").symlink_to(tmp_path / "moved.md")
    assert verify(run) == ["report.md: is no longer a plain file"]


def test_command_says_what_is_covered(rlaif: Rlaif, run: RunDir, tmp_path: Path) -> None:
    covered = "note: not covered by a hash: .lock\n"
    whole = f"{covered}one: every file matches its hash\n"
    assert rlaif("verify", run.root) == (0, whole, "")
    renamed = run.root.rename(tmp_path / "archive")
    said = "note: the folder of run one is called archive now\n"
    assert rlaif("verify", renamed) == (0, said + whole, "")
    (renamed / "report.md").write_text("x")
    ended = rlaif("verify", renamed)
    assert ended.code == 1 and ended.out.endswith(f"{said}{covered}one: 1 problem\n")
    (renamed / INVENTORY).unlink()
    RunDir(renamed).update_info(status="started")
    ended = rlaif("verify", renamed)
    checked = check_files(RunDir(renamed))
    assert ended.code == 0 and ended.out.splitlines()[-1] == (
        f"one: {checked.num_covered} files match their hash, and {len(checked.uncovered)} are not "
        "covered by one, because the run has not ended; `rlaif resume one` continues it"
    )
    assert "not covered yet: supervised/sample/shard-00000.json, shard-00001.json\n" in ended.out
    (renamed / "recipe.yaml").write_text("x")
    ended = rlaif("verify", renamed)
    assert ended.code == 1 and f"one: 1 problem, and {len(checked.uncovered)} are" in ended.out


def killed(run: RunDir) -> RunDir:
    """The run as a kill after its training leaves it."""
    (run.root / INVENTORY).unlink()
    run.update_info(status="started")
    return run


def test_flipped_bit_in_each_file_of_a_killed_run_is_found(run: RunDir) -> None:
    """Or the file is one of those that verify names as not covered."""
    weights = run.root / WEIGHTS
    result = {"dataset_sha256": file_hash(run.dataset / "sft.parquet"), "method": "sft"}
    write_json(
        weights.parent.parent / "result.json",
        {"files": {weights.name: file_hash(weights)}} | result,
    )
    checked = check_files(killed(run))
    assert checked.problems == []
    covered = {path.relative_to(run.root).as_posix() for path in all_files(run.root)}
    covered -= {*checked.uncovered}
    assert len(covered) == checked.num_covered
    assert {WEIGHTS, "dataset/sft.parquet", "recipe.yaml"} < covered and "run.json" not in covered
    for name in sorted(covered):
        data = (run.root / name).read_bytes()
        (run.root / name).write_bytes(flipped(data, len(data) // 2))
        assert found(run, name), name
        (run.root / name).write_bytes(data)
    weights.unlink()
    assert verify(run) == [f"{WEIGHTS}: missing, although the training saved it"]


@pytest.mark.parametrize("files", [[], 7, {"model": 3}, {"../../../a": "0"}, {"/etc/passwd": "0"}])
def test_files_of_a_training_are_below_its_model(run: RunDir, files: Any) -> None:
    folder = run.training("sft")
    write_json(
        folder / "result.json",
        {"dataset_sha256": file_hash(run.dataset / "sft.parquet"), "files": files},
    )
    problems = verify(run)
    assert bool(files) == (
        "training/sft/result.json: names files that no training wrote" in problems
    )
    assert not any("passwd" in problem or "/a" in problem for problem in problems)


def test_killed_run_is_told_apart(run: RunDir) -> None:
    """Without its list the run has not ended: the files are named as not covered, not as lost."""
    killed(run)
    assert verify(run) == [] and {WEIGHTS, "report.html"} < {*check_files(run).uncovered}
    run.update_info(status="finished")
    assert verify(run)[0].startswith("files.json: missing, although the run has ended")


def test_resumed_run_lists_its_files_again(run: RunDir) -> None:
    (run.root / "preference/judge/shard-00001.json").unlink()
    take(run)
    assert verify(run) == [] and check_files(run).uncovered == []
    inventory = read_inventory(run.root)
    assert inventory is not None and inventory.open_since is None
    entry = inventory.files["report.html"]
    assert entry.size == run.report.stat().st_size and entry.sha256 == file_hash(run.report)


def test_killed_resume_is_told_apart(run: RunDir) -> None:
    with RunLock(run.root):
        run.metrics.write_text("{}")
        (run.root / "preference/new.json").write_text("{}")
    # As after a kill: nothing of this is an error, and the rest is still covered.
    assert verify(run) == []
    assert check_files(run).uncovered == ["evaluation/metrics.json", "preference/new.json"]
    (run.root / "environment.json").unlink()
    take(run)
    assert verify(run) == []


def test_earlier_damage_survives_a_resume_and_a_report(run: RunDir) -> None:
    """Work in the folder must not make a damaged file pass for whole."""
    weights = run.root / WEIGHTS
    weights.write_bytes(flipped(weights.read_bytes(), 2**20 + 5))
    time.sleep(TICK_S)
    write_report(run)
    take(run)
    take(run)
    assert verify(run) == [f"{WEIGHTS}: damaged or changed since the run ended"]
    weights.unlink()
    time.sleep(TICK_S)
    take(run)
    assert verify(run) == [f"{WEIGHTS}: missing"]


def test_report_written_again_is_covered(run: RunDir) -> None:
    run.report.write_text("damaged")
    assert found(run, "report.html")
    write_report(run)
    assert verify(run) == []
    run.report.write_text("damaged")
    assert found(run, "report.html")


def test_renamed_and_copied_runs_are_understood(run: RunDir, tmp_path: Path) -> None:
    rows = {path.relative_to(run.root): path.read_bytes() for path in run.root.rglob("*.parquet")}
    run.root.rename(tmp_path / "archive of May")
    shutil.copytree(tmp_path / "archive of May", tmp_path / "two")
    for name in ("archive of May", "two"):
        copy = RunDir(tmp_path / name)
        assert copy.run_id == "one" and verify(copy) == []
        take(copy)
        assert verify(copy) == []
        assert {path: (copy.root / path).read_bytes() for path in rows} == rows
    assert find_run("one", tmp_path).run_id == "one"


def test_id_in_a_strangers_folder_is_a_name(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"run_id": "../../elsewhere"})
    assert RunDir(tmp_path).run_id == tmp_path.name


def refit(run: RunDir, name: str, data: bytes) -> None:
    """Replace a shard, with a manifest that fits."""
    path = run.root / f"{name}.parquet"
    path.write_bytes(data)
    manifest = json.loads(path.with_suffix(".json").read_text())
    write_json(path.with_suffix(".json"), {**manifest, "sha256": file_hash(path)})


def test_unreadable_shard_with_a_fitted_hash_is_one_line(run: RunDir) -> None:
    name = "supervised/sample/shard-00000"
    whole = (run.root / f"{name}.parquet").read_bytes()
    table = pq.read_table(run.root / f"{name}.parquet")
    pq.write_table(table.drop_columns(["parent_ids"]), run.root.parent / "narrow.parquet")
    narrow = (run.root.parent / "narrow.parquet").read_bytes()
    for data in (whole[: len(whole) // 2], b"", whole[:200] + whole[300:], narrow):
        refit(run, name, data)
        lines = [p for p in verify(run) if p.startswith(f"{name}.parquet: has the hash of its")]
        assert len(lines) == 1 and "\n" not in lines[0]
