"""Whole files or nothing: written aside, flushed to the disk, renamed into place.

A kill at any instruction leaves the old file, or the new one, and perhaps a stray `.tmp` that the
next start removes. A full disk becomes one clear StoreError and leaves the old file.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

from pipeline.errors import StoreError
from pipeline.store.disk import disk_error
from pipeline.store.remote import mirror_of


def atomic_write(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Call `write` with a binary stream; the file appears under `path` only when it is complete.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    atomic_write_all([(path, write)])


def atomic_write_all(files: Sequence[tuple[Path, Callable[[BinaryIO], None]]]) -> None:
    """Write several files of one folder: all are complete before the first appears.

    A full disk leaves every old file; a kill between two renames leaves the first new and the
    rest old, so the file that vouches for the others comes last.
    """
    asides = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path, _ in files]
    folder = files[0][0].parent
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for aside, (path, write) in zip(asides, files, strict=True):  # noqa: B007 (used below)
            with aside.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
        for aside, (path, _) in zip(asides, files, strict=True):
            os.replace(aside, path)
        sync_folder(folder)
        if (store := mirror_of(folder)) is not None:
            store.send([path for path, _ in files])
    except BaseException as error:
        for aside in asides:
            with contextlib.suppress(OSError):
                aside.unlink()
        if isinstance(error, OSError):
            raise disk_error(error, path) from error
        raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    atomic_write(path, lambda stream: _write_all(stream, text.encode("utf-8")))


def copy_file(source: Path, path: Path) -> None:
    """Copy a file's bytes, whole or not at all. Raises OSError when it cannot be read."""
    with source.open("rb") as original:
        atomic_write(path, lambda stream: shutil.copyfileobj(original, stream))


def link_file(source: Path, target: Path) -> None:
    """Link a file of a run, or copy it where links cannot be. Such files are replaced and never
    changed, so that a link stays what it was. Raises OSError when it cannot be read.
    """
    try:
        os.link(source, target)
    except OSError:
        copy_file(source, target)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


@overload
def read_json(path: Path) -> dict[str, Any] | None: ...
@overload
def read_json(path: Path, kind: type[list[Any]]) -> list[Any] | None: ...
def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON object, or list; None when the file is missing, damaged or of another kind.

    Raises:
        StoreError: the file is there and cannot be read now, which is not its damage.
    """
    if path.exists() and not path.is_file():
        return None  # A folder, or a device that never ends.
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise StoreError(f"cannot read {path} ({error.strerror}); check its permissions") from None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


def remove_strays(folder: Path) -> int:
    """Remove the temporary files of killed writers, and of no living one; returns how many."""
    strays = [
        path
        for path in folder.rglob(".*.tmp")
        if path.is_file() and not _is_alive(path.name.split(".")[-2])
    ]
    for stray in strays:
        stray.unlink(missing_ok=True)
    return len(strays)


def _is_alive(process_id: str) -> bool:
    try:
        os.kill(int(process_id), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _write_all(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
