"""Where each thing of a run lives, and the lock that keeps a second process out.

outputs/runs/<run_id>/
  run.json  recipe.yaml  constitution.yaml  templates/  environment.json
  prompts/ heldout/                        shards of prompts
  supervised/{sample,critique-1,revise-1,...}/shard-00000.parquet + .json
  preference/{sample,judge,pair}/  evaluation/{sample-NAME,judge-A-vs-B}/
  dataset/{sft,preference}.parquet + README.md
  training/{sft,preference}/       job.json, metrics.jsonl, model/, result.json
  promoted/                        model, card and row ids, where the gate promoted the policy
  evaluation/metrics.json  report.html  report.md  files.json
"""

import fcntl
import os
import re
import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import StoreError
from pipeline.store.disk import FULL, disk_error
from pipeline.store.files import read_json, remove_strays, write_json
from pipeline.store.inventory import LOCK, close_inventory, open_inventory
from pipeline.store.remote import mirror_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_folder_name(name: str, option: str) -> str:
    """`name`, if it can name a folder of a run: never a path, an option or a hidden file.

    Raises:
        StoreError: it cannot; `option` is where a person gave it.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{option} is {name[:120]!a}, but it names a folder: use at most 100 letters, digits, "
            "'.', '_' and '-', beginning with a letter or digit"
        )
    return name


INFO_TYPES: dict[str, type] = {
    "constitution": dict,
    "files": dict,
    "work": dict,
    "sources": list,
    **dict.fromkeys(
        ["run_id", "status", "recipe", "name", "parent", "plan", "series", "replaces", "target"],
        str,
    ),
    **dict.fromkeys(["impact_of", "night", "audited", "evaluation"], str),
}
"""Types of the entries of run.json; null is an entry that does not apply."""


def new_run_id(name: str) -> str:
    """`<name>-<UTC time>-<4 random hex digits>`: sorts by time, never collides in practice."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class RunDir:
    """The folder of one run."""

    root: Path

    @cached_property
    def run_id(self) -> str:
        """The id in run.json, which a renamed or copied folder keeps; without one, the folder's
        name.
        """
        run_id = (read_json(self.root / "run.json") or {}).get("run_id")
        is_name = isinstance(run_id, str) and _NAME.fullmatch(run_id)
        return str(run_id) if is_name else self.root.name

    @property
    def recipe(self) -> Path:
        """The run's copy of the recipe."""
        return self.root / "recipe.yaml"

    @property
    def constitution(self) -> Path:
        """The run's copy of the constitution."""
        return self.root / "constitution.yaml"

    @property
    def dataset(self) -> Path:
        """Folder of the finished data sets."""
        return self.root / "dataset"

    @property
    def metrics(self) -> Path:
        """File with the figures of the evaluation."""
        return self.root / "evaluation" / "metrics.json"

    @property
    def report(self) -> Path:
        """The report as one HTML page."""
        return self.root / "report.html"

    def training(self, method: str) -> Path:
        """Folder of a training job: `sft` or `preference`."""
        return self.root / "training" / method

    def info(self) -> dict[str, Any]:
        """The contents of run.json; empty when it is missing.

        Raises:
            StoreError: it is not a JSON object, or an entry has the wrong type.
        """
        path = self.root / "run.json"
        info = read_json(path)
        if info is None and path.exists():
            raise StoreError(f"{path} is damaged; restore it from a copy, or start a new run")
        for name, value in (info or {}).items():
            expected = INFO_TYPES.get(name, object)
            if value is not None and not isinstance(value, expected):
                raise StoreError(
                    f"{path}: '{name}' is a {type(value).__name__}, but a {expected.__name__} is "
                    "needed; restore the file from a copy, or start a new run"
                )
        return info or {}

    def update_info(self, **values: Any) -> None:
        """Change entries of run.json."""
        write_json(self.root / "run.json", {**self.info(), **values})

    def end(self, status: str) -> None:
        """Enter how the run ended, and list its files. The last thing that a run writes."""
        self.update_info(status=status)
        close_inventory(self.root)

    def require(self) -> "RunDir":
        """This folder, if it is a run. Raises StoreError when it is not."""
        if not (self.root / "run.json").exists():
            raise StoreError(
                f"{self.root} is not a run (no run.json); list the runs with `rlaif runs`"
            )
        return self


def run_beside(folder: Path, run_id: str) -> RunDir:
    """The run with this id below `folder`, whose own folder may have been renamed.

    Returns:
        The folder called `run_id` where there is one, or none of that id.
    """
    named = RunDir(folder / run_id)
    if (store := mirror_of(folder)) is not None:
        store.pull(named.root)
    if (named.root / "run.json").exists():
        return named
    runs = (RunDir(path.parent) for path in sorted(folder.glob("*/run.json")))
    return next((run for run in runs if run.run_id == run_id), named)


class RunLock:
    """Lets one process at a time work in a run folder; it ends with the process, even on SIGKILL.

    Taking it removes the temporary files of killed writers and opens the inventory. Raises
    StoreError when another process holds it, or the disk is full.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / LOCK
        self._stream: FileIO | None = None
        self._held = ExitStack()

    def __enter__(self) -> "RunLock":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A run folder may come from elsewhere, with a link here to a file of this machine.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            stream = open(os.open(self._path, flags, 0o644), "r+b", buffering=0)
        except OSError as error:
            if error.errno in FULL:
                raise disk_error(error, self._path) from None
            raise StoreError(
                f"the lock {self._path} cannot be opened ({error.strerror}); it must be a plain "
                "file in a folder that you may write: remove it"
            ) from None
        try:
            self._take(stream)
            if (store := mirror_of(self._path)) is not None:
                self._held.enter_context(store.holding(self._path.parent))
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return self

    def _take(self, stream: FileIO) -> None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = stream.read().decode("utf-8", "replace").strip() or "unknown"
            raise StoreError(
                f"run {self._path.parent} is in use by process {holder}; wait for it, or stop it"
            ) from None
        remove_strays(self._path.parent)
        try:
            stream.truncate()
            stream.write(str(os.getpid()).encode())
        except OSError as error:
            raise disk_error(error, self._path) from error
        open_inventory(self._path.parent, os.fstat(stream.fileno()).st_mtime_ns)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._held.close()
        finally:
            if self._stream is not None:
                self._stream.close()
                self._stream = None
