"""files.json: size and hash of every file of a run that no manifest covers.

In:  a run folder
Out: files.json at its top, the last file that a run writes

While a process works in the folder, its inventory is open: files that are older than this moment
must still be as listed, and newer ones are listed when the run ends. So a resumed run does not make
the damage of an earlier file pass for its own work.

Does not: list shards with a manifest, which has their hash, or the lock, or follow links.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.config.paths import plain_bytes
from pipeline.ids import file_hash
from pipeline.store.files import write_text

INVENTORY = "files.json"
LOCK = ".lock"
NOT_COVERED = (LOCK,)
"""Files of a run that are covered by no hash: the lock has the number of the last process."""


class Entry(BaseModel):
    """One file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    """Bytes."""
    sha256: str


class Inventory(BaseModel):
    """The contents of files.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    open_since: int | None = None
    """When a process began to work in the folder, in nanoseconds since 1970 by the clock of its
    file system; null when the run has ended."""
    files: dict[str, Entry]
    """By path below the run."""

    def may_have_changed(self, path: Path) -> bool:
        """Whether an open run may have written this file, or removed it."""
        if self.open_since is None:
            return False
        for each in (path, path.parent):
            try:
                return each.lstat().st_mtime_ns >= self.open_since
            except (FileNotFoundError, NotADirectoryError):
                continue
        return True


def read_inventory(root: Path) -> Inventory | None:
    """The inventory of a run; None when there is none, or when it is damaged."""
    try:
        return Inventory.model_validate_json(plain_bytes(root / INVENTORY), strict=True)
    except (OSError, ValidationError):
        return None


def files_to_list(root: Path) -> Iterator[str]:
    """Path below the run of each file, link or other entry that belongs into its inventory."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        entries = {*names, *(name for name in folders if Path(folder, name).is_symlink())}
        for name in sorted(entries):
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            is_shard = name.startswith("shard-") and path.suffix == ".parquet"
            # Of its attempts the manifest covers one, and the others count for nothing.
            if is_shard and f"{name.partition('.')[0]}.json" in entries:
                continue
            if relative not in (INVENTORY, *NOT_COVERED):
                yield relative


def is_plain_file(path: Path) -> bool:
    """True for a regular file itself, false for links, folders and pipes, or where nothing is."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def open_inventory(root: Path, moment: int) -> None:
    """Note that a process works in the folder, from `moment` on; see `Inventory.open_since`.

    Raises:
        StoreError: the disk is full.
    """
    inventory = read_inventory(root)
    if inventory is not None and inventory.open_since is None:
        _write(root, inventory.model_copy(update={"open_since": moment}))


def close_inventory(root: Path) -> None:
    """List the files of a run that has ended.

    A file that is older than `open_since` keeps its entry, or has none, and is not read again.

    Raises:
        StoreError: the disk is full.
    """
    old = read_inventory(root)
    if old is None or old.open_since is None:
        old = Inventory(open_since=0, files={})
    files = {}
    for name in sorted({*files_to_list(root), *old.files}):
        path = root / name
        if not old.may_have_changed(path):
            if name in old.files:
                files[name] = old.files[name]
        elif is_plain_file(path):
            files[name] = _entry(path)
    _write(root, Inventory(files=files))


def update_inventory(root: Path, *paths: Path) -> None:
    """List these files of a run again, if it has ended. Raises StoreError as `close_inventory`."""
    inventory = read_inventory(root)
    if inventory is not None and inventory.open_since is None:
        new = {path.relative_to(root).as_posix(): _entry(path) for path in paths}
        _write(root, Inventory(files={**inventory.files, **new}))


def _entry(path: Path) -> Entry:
    return Entry(size=path.stat().st_size, sha256=file_hash(path))


def _write(root: Path, inventory: Inventory) -> None:
    write_text(root / INVENTORY, inventory.model_dump_json(indent=1) + "\n")
