"""A file is whole or not there, whatever happens while it is written."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import StoreError
from pipeline.store.files import (
    atomic_write,
    atomic_write_all,
    read_json,
    remove_strays,
    write_json,
    write_text,
)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def fill_disk(monkeypatch: pytest.MonkeyPatch, *, after: int = 0) -> None:
    """From the `after`-th flush on, the disk is full."""
    real, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    write_text(path, "old")
    write_text(path, "new ü")
    assert path.read_text("utf-8") == "new ü"
    assert files_in(path.parent) == {"file.txt"}


def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    fill_disk(monkeypatch)
    with pytest.raises(
        StoreError, match=r"no space left .* free some disk space, then `rlaif resume`"
    ):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert files_in(tmp_path) == {"file.txt"}


def test_full_disk_during_the_write(tmp_path: Path) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="no space left"):
        atomic_write(tmp_path / "file", write)
    assert files_in(tmp_path) == set()


def test_pair_of_files_appears_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writer(text: bytes) -> Any:
        return lambda stream: stream.write(text)

    one, two = tmp_path / "one", tmp_path / "two"
    atomic_write_all([(one, writer(b"1")), (two, writer(b"2"))])
    fill_disk(monkeypatch, after=1)
    with pytest.raises(StoreError, match=r"no space left while writing .*two"):
        atomic_write_all([(one, writer(b"new")), (two, writer(b"new"))])
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"2")
    assert files_in(tmp_path) == {"one", "two"}


def test_fault_of_the_writer_passes_through(tmp_path: Path) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        atomic_write(tmp_path / "file", write)
    assert files_in(tmp_path) == set()


def test_unwritable_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot write .*; check the folder's permissions"):
        write_text(tmp_path / "file" / "inner", "x")


def test_damaged_json_reads_as_none(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert read_json(path) is None
    path.write_text('{"half": ')
    assert read_json(path) is None
    path.write_bytes(b"\xff\xfe")
    assert read_json(path) is None
    write_json(path, {"ü": [1]})
    assert read_json(path) == {"ü": [1]}
    assert "ü" in path.read_text("utf-8")


def test_kill_leaves_old_or_new(tmp_path: Path) -> None:
    """A writer in a loop is killed; the file is one of its versions, and strays can be removed."""
    path = tmp_path / "file.txt"
    code = (
        "import sys; from pathlib import Path; from pipeline.store.files import write_text\n"
        f"path = Path({str(path)!r}); n = 0\n"
        "while True:\n"
        "    write_text(path, str(n) * 50_000); n = (n + 1) % 10\n"
        "    if n == 3: print('going', flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=PROJECT_ROOT
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    text = path.read_text()
    assert len(text) == 50_000 and len(set(text)) == 1
    remove_strays(tmp_path)
    assert files_in(tmp_path) == {"file.txt"}
