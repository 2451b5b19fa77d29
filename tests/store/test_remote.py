"""Runs in an object store, on a real server of s3 on loopback: equal to runs on a disk."""

import asyncio
import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kill_storm import s3_server
from pipeline.data.verify import verify
from pipeline.errors import StoreError
from pipeline.run.nightly import nightly_runs, take_run
from pipeline.run.start import check_recipe, find_run, runs_root, start_run
from pipeline.store import RunDir, RunLock, remote
from pipeline.store.remote import Mirror
from tests.run.builders import write_recipe

NUM_SHARD_STAGES = 2 * 5 + 4
"""Two shards: sample, critique, revise, judge and pair, and the held-out one's."""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of a server with an empty bucket called `runs`."""
    with s3_server() as address:
        yield address


@pytest.fixture
def outputs(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of its own in RLAIF_OUTPUTS, and credentials."""
    import fsspec

    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"b-{tmp_path.name.lower().replace('_', '-')}"[:60].rstrip("-")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(f"s3://{bucket}")
    monkeypatch.setenv("RLAIF_OUTPUTS", f"s3://{bucket}/team")
    other_machine(tmp_path / "first", monkeypatch)
    return f"s3://{bucket}/team"


def other_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the working copy is empty, as on another machine."""
    monkeypatch.setattr(remote, "PROJECT_ROOT", folder)
    monkeypatch.setattr(remote, "_MIRRORS", {})


def store() -> Mirror:
    """The store in use."""
    mirror = remote.mirror_of(runs_root())
    assert mirror is not None
    return mirror


def files(root: Path) -> dict[str, bytes]:
    """The shards and data sets of a run."""
    paths = [*root.rglob("shard-*.parquet"), *root.rglob("dataset/*.parquet")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_run_in_a_store_equals_one_on_disk(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what another machine sees of it: all commands work there, and nothing is made again."""
    recipe = write_recipe(tmp_path / "recipe", prompts=8)
    on_disk = start_run(recipe, run_id="one", runs_root_folder=tmp_path / "disk")
    asyncio.run(take_run(on_disk))
    run = start_run(recipe, run_id="one")
    before = store().calls
    asyncio.run(take_run(run))
    num_manifests = len([*run.root.rglob("shard-*.json")])
    assert (store().calls - before) / num_manifests <= 8
    assert files(run.root) == files(on_disk.root) and not verify(run)

    other_machine(tmp_path / "second", monkeypatch)
    assert [path.name for path in runs_root().glob("*/run.json")] == ["run.json"]
    assert nightly_runs("small") == []
    there = find_run("one")
    assert there.root != run.root and files(there.root) == files(on_disk.root)
    assert not verify(there) and there.report.read_bytes() == run.report.read_bytes()
    # Half of the labels are lost: only they are made again.
    mirror = store()
    path = there.root / "preference/judge/shard-00001.json"
    mirror.remove(path)
    path.unlink()
    asyncio.run(take_run(there))
    assert files(there.root) == files(on_disk.root) and not verify(there)


def test_damage_in_the_store_is_found(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(write_recipe(tmp_path / "recipe", prompts=4), run_id="one")
    mirror = store()
    mirror._fs.pipe_file(
        f"{outputs.removeprefix('s3://')}/runs/one/constitution.yaml", b"name: x\n"
    )
    assert not verify(run)
    other_machine(tmp_path / "second", monkeypatch)
    assert verify(find_run("one")) == ["constitution.yaml: changed since the run began"]


def test_killed_process_sends_what_it_could_not(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(write_recipe(tmp_path / "recipe", prompts=4), run_id="one")
    unsent = run.root / "supervised/sample/shard-00000.parquet"
    unsent.parent.mkdir(parents=True)
    unsent.write_bytes(b"rows")
    other_machine(tmp_path / "first", monkeypatch)  # the same machine, another process
    find_run("one")
    other_machine(tmp_path / "second", monkeypatch)
    there = find_run("one").root
    assert (there / "supervised/sample/shard-00000.parquet").read_bytes() == b"rows"


def test_emptied_store_empties_no_copy(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may also be another store: the same URL, and another AWS_ENDPOINT_URL."""
    run = start_run(write_recipe(tmp_path / "recipe", prompts=4), run_id="one")
    before = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    store()._fs.rm(f"{outputs.removeprefix('s3://')}/runs/one", recursive=True)
    other_machine(tmp_path / "first", monkeypatch)  # the same machine, another process
    with pytest.raises(StoreError, match="has nothing of run one, which it once had"):
        find_run("one")
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == before


def test_store_whose_marks_are_no_hashes(tmp_path: Path) -> None:
    """As with keys of KMS, or gs://: what is unchanged is neither sent nor fetched once more, and
    what a killed process could not send is not replaced by what it had sent before.
    """
    url, run = f"memory://{tmp_path.name}/runs", tmp_path / "here/runs/one"
    run.mkdir(parents=True)
    info, shard = run / "run.json", run / "shard-00000.parquet"
    killed = Mirror(url, run.parent)
    for path, text in ((shard, "rows"), (info, "1")):
        path.write_text(text)
        killed.send([path])
    info.write_text("newer")
    resumed = Mirror(url, run.parent)
    resumed.pull(run)
    stored = f"{resumed._base}/one/run.json"
    assert resumed._fs.cat_file(stored) == b"newer" and info.read_text() == "newer"
    assert resumed.calls == 3  # the list, the file and its mark
    resumed.pull(run, again=True)
    assert resumed.calls == 4
    # What another machine has sent since is fetched, unless a process here works in the run.
    resumed._fs.pipe_file(stored, b"elsewhere")
    with RunLock(run):
        reader = Mirror(url, run.parent)
        reader.pull_heads()
        reader.pull(run, again=True)  # as a worker on this machine does when it starts
        assert info.read_text() == "newer"
    resumed.pull(run, again=True)
    assert info.read_text() == "elsewhere"


def test_log_of_the_marks_is_read_in_both_shapes(tmp_path: Path) -> None:
    """One line of an older version, then lines of two processes, one of them cut."""
    log = tmp_path / "index.json"
    log.write_text('{"one/a": ["m", 1, 2], "one/b": ["n", 3, 4]}')
    url = f"memory://{tmp_path.name}/runs"
    first, second = (Mirror(url, tmp_path / "runs") for _ in range(2))
    first._enter("one/a", None)
    log.write_text(f'{log.read_text()}\n["one/c", ["o", 5')
    second._enter("one/d", ["p", 6, 7])
    marks = {"one/b": ["n", 3, 4], "one/d": ["p", 6, 7]}
    assert Mirror(url, tmp_path / "runs")._index == marks
    first._save()
    assert first._index == marks and len(log.read_text().splitlines()) == 1


def test_full_disk_of_the_working_copy_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log of the marks, in a download, and where a file is fetched whole."""
    url, run = f"memory://{tmp_path.name}/runs", tmp_path / "here/runs/one"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    Mirror(url, run.parent).push(run)
    there = Mirror(url, tmp_path / "there/runs")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for target, name in ((os, "replace"), (there._fs, "get_file")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, full)
            with pytest.raises(StoreError, match=r"no space left while writing .*there/runs"):
                there.fetch(there.root / "one/run.json")
            if target is os:
                with pytest.raises(StoreError, match=r"no space left while writing .*index\.json"):
                    there._save()


def test_driver_of_another_machine_is_named(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(write_recipe(tmp_path / "recipe", prompts=4), run_id="one")
    with RunLock(run.root):
        holder = re.escape(f"in use by process {os.getpid()} on {socket.gethostname()}; ")
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        other_machine(tmp_path / "second", monkeypatch)
        there = find_run("one")
        with pytest.raises(StoreError, match=holder), RunLock(there.root):
            pass
        monkeypatch.undo()
    assert isinstance(run, RunDir)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://no-such-bucket/x", "check that the bucket exists"),
        ("nowhere://x", "cannot be used"),
        ("s3:/bucket/x", "has two slashes and a name"),
        ("s3://", "has two slashes and a name"),
        ("reference://x", "needs more than an address"),
        ("dir://x", "needs more than an address"),
        ("$AWS_ENDPOINT_URL/x", "does not answer .ClientResponseError"),
    ],
)
def test_store_that_does_not_work(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    """One line, before anything is paid for."""
    monkeypatch.setenv("RLAIF_OUTPUTS", os.path.expandvars(url))
    with pytest.raises(StoreError, match=message):
        check_recipe(write_recipe(tmp_path / "recipe"))


def test_store_without_credentials(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StoreError, match="credentials"):
        check_recipe(write_recipe(tmp_path / "recipe"))
