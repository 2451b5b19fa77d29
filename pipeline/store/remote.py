"""Runs in an object store: each file of a run is also there, and this machine works on a copy.

In:  `RLAIF_OUTPUTS=s3://bucket/folder`, or any other URL that fsspec knows
Out: outputs/stores/<name>/runs, a working copy; what is written there is uploaded in the same order

A run is fetched when it is opened: what the store has changed since, by its mark of each file, such
as an ETag. A log beside the copy has the mark of every file that was sent or fetched. The store is
what counts, but for what this machine has changed since, which is sent; so is a local file that the
store never had. A run in which a process works here is not fetched.
Models and training need local files, and have them here.

Does not: send journals, temporary files or locks. Does not compare clocks, or need a store that can
create a file exclusively: of two drivers on two machines the second one finds the first one's name.
"""

import fcntl
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import StoreError
from pipeline.store.disk import FULL, disk_error

LOCK = ".lock"
LARGE = 8 * 2**20
"""Bytes from which a file is sent in parts: its ETag is then not its MD5, as it is with keys of KMS
and in other stores than s3."""
HEADS = ("run.json", "dataset/manifest.json", "report.html")
"""Files that show a run in a list."""
S3_SETTINGS = {
    "connect_timeout": 10,
    "read_timeout": 20,
    "retries": {"mode": "standard", "total_max_attempts": 4},
}
S3_TRIES = 2
"""Tries of s3fs, each of several by boto: a store that takes requests and never answers is named
after three minutes. By default either tries five times, and each waits for a minute."""
INSTALL = "run `make setup-cluster` for s3, or install the package that fsspec names"

Entry = list[Any]
"""The store's mark of a file, and size and time of the local file that has these bytes."""


@dataclass
class Mirror:
    """The working copy of one store."""

    url: str
    root: Path
    """Local folder of the runs."""
    calls: int = 0
    """Requests to the store so far."""
    _index: dict[str, Entry] = field(default_factory=dict)
    _pulled: set[str] = field(default_factory=set)
    _marks_are_md5: bool | None = None
    """Whether the store's mark of a small file is its MD5; None until one was sent."""

    def __post_init__(self) -> None:
        with self._clear():
            import fsspec

            is_s3 = self.url.startswith(("s3:", "s3a:"))
            options = {"config_kwargs": S3_SETTINGS} if is_s3 else {}
            try:
                self._fs, self._base = fsspec.core.url_to_fs(
                    self.url, use_listings_cache=False, **options
                )
            except (TypeError, AttributeError) as error:  # arguments that no address has
                raise StoreError(
                    f"{self.url} needs more than an address to be opened ({str(error)[:160]}); "
                    "use an object store, such as s3://bucket/outputs"
                ) from error
            if is_s3:
                self._fs.retries = S3_TRIES
        self._read_index()

    @property
    def _index_file(self) -> Path:
        return self.root.parent / "index.json"

    def check(self) -> None:
        """Write, list, read and delete a file. Raises StoreError when one of them fails."""
        name = f"{self._base}/.check-{os.urandom(4).hex()}/probe"
        with self._clear():
            self._fs.pipe_file(name, b"probe")
            listed = self._fs.find(name.rpartition("/")[0])
            read = self._fs.cat_file(name)
            self._fs.rm_file(name)
        if len(listed) != 1 or read != b"probe":
            raise StoreError(
                f"{self.url} does not give back what was written to it; use a store that lists and "
                "reads a file right after it was written"
            )

    def send(self, paths: Iterable[Path]) -> None:
        """Upload files, in order. Raises StoreError when the store does not take one."""
        for path in paths:
            name = path.relative_to(self.root).as_posix()
            if not _is_sent(name):
                continue
            state, size = path.stat(), path.stat().st_size
            mark = ""
            with self._clear():
                if size < LARGE:
                    data = path.read_bytes()
                    self._fs.pipe_file(f"{self._base}/{name}", data)
                    mark = hashlib.md5(data, usedforsecurity=False).hexdigest()
                else:
                    self._fs.put_file(str(path), f"{self._base}/{name}")
                self.calls += 1
                if not (mark and self._marks_are_md5):
                    md5, mark = mark, _mark(self._fs.info(f"{self._base}/{name}"))
                    self._marks_are_md5 = mark == md5 if md5 else self._marks_are_md5
                    self.calls += 1
            self._enter(name, [mark, size, state.st_mtime_ns])

    def remove(self, path: Path) -> None:
        """Delete a file from the store."""
        name = path.relative_to(self.root).as_posix()
        self._enter(name, None)
        with self._clear():
            self.calls += 1
            self._fs.rm_file(f"{self._base}/{name}")

    def fetch(self, path: Path) -> None:
        """Download a file that is not here yet."""
        if not path.exists():
            name = path.relative_to(self.root).as_posix()
            with self._clear():
                self.calls += 1
                info = self._fs.info(f"{self._base}/{name}")
            self._download(name, info)

    def pull_heads(self) -> None:
        """Fetch what shows every run in a list, once per process."""
        if "" in self._pulled:
            return
        self._read_index()
        with self._clear():
            self.calls += len(HEADS)
            for head in HEADS:
                found = self._fs.glob(f"{self._base}/*/{head}", detail=True)
                self._take({self._name(path): info for path, info in found.items()})
        self._save()
        self._pulled.add("")

    def pull(self, run: Path, *, again: bool = False) -> None:
        """Fetch what the store has changed of a run, once per process, and send what it lacks.

        Args:
            again: also when this process has done so before.
        """
        name = run.relative_to(self.root).as_posix()
        if (name in self._pulled and not again) or not _is_sent(name) or is_locked(run):
            return
        # Before the store is asked: what is entered later need not be in its answer.
        self._read_index()
        with self._clear():
            self.calls += 1
            listed = self._fs.find(f"{self._base}/{name}", detail=True)
        found = {self._name(path): info for path, info in listed.items()}
        own = f"{name}/run.json"
        if own in self._index and own not in found and (self.root / own).exists():
            # Another store at this URL, or an emptied one, must not empty the copy as well.
            raise StoreError(
                f"{self.url} has nothing of run {name}, which it once had; check its address "
                "(AWS_ENDPOINT_URL) and contents, or, if the run was removed there on purpose, "
                f"remove this machine's copy too: {run}"
            )
        self._take(found)
        for path in self._files(run):
            each = path.relative_to(self.root).as_posix()
            if each not in found and each in self._index:
                self._enter(each, None)
                path.unlink()
        self.push(run, found)
        self._pulled.add(name)

    def push(self, run: Path, found: dict[str, Any] | None = None) -> None:
        """Send all files of a run that the store lacks, or has otherwise, and remove there what was
        removed here.
        """
        if found is None:
            self._read_index()
            with self._clear():
                self.calls += 1
                listed = self._fs.find(f"{self._base}/{run.name}", detail=True)
            found = {self._name(path): info for path, info in listed.items()}
        for path in self._files(run):
            name = path.relative_to(self.root).as_posix()
            if name not in found or not self._is_current(name, _mark(found[name])):
                self.send([path])
        for name in found:
            if name in self._index and not (self.root / name).exists():
                self.remove(self.root / name)
        self._save()

    @contextmanager
    def holding(self, run: Path) -> Iterator[None]:
        """Say in the store who works in a run. Raises StoreError while another machine does.

        This machine's own processes are kept apart by the lock of the working copy.
        """
        name = f"{self._base}/{run.name}/{LOCK}"
        mine = {"host": socket.gethostname(), "process": os.getpid()}
        with self._clear():
            self.calls += 2
            try:
                holder = json.loads(self._fs.cat_file(name))
            except (FileNotFoundError, ValueError):
                holder = mine
            if holder.get("host") != mine["host"]:
                raise StoreError(
                    f"run {run.name} is in use by process {holder.get('process')} on "
                    f"{holder.get('host')}; wait for it, or, if it has ended, remove "
                    f"{self.url}/{run.name}/{LOCK}"
                )
            self._fs.pipe_file(name, json.dumps(mine).encode())
        try:
            yield
        finally:
            self.push(run)
            with self._clear():
                self._fs.rm_file(name)

    def _take(self, found: dict[str, Any]) -> None:
        for name, info in found.items():
            entry, is_here = self._index.get(name), (self.root / name).exists()
            if not _is_sent(name) or self._is_current(name, _mark(info)):
                continue
            if entry and entry[0] == _mark(info) and is_here:
                continue  # changed here since it was sent
            if is_here and is_locked(self.root / name.partition("/")[0]):
                continue  # and is being changed
            self._download(name, info)

    def _is_current(self, name: str, mark: str) -> bool:
        """Whether the local file has the bytes of the store's."""
        path = self.root / name
        try:
            state = path.stat()
        except OSError:
            return False
        if self._index.get(name) == [mark, state.st_size, state.st_mtime_ns]:
            return True
        if state.st_size >= LARGE:
            return False
        same = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == mark
        if same:
            self._enter(name, [mark, state.st_size, state.st_mtime_ns])
        return same

    def _download(self, name: str, info: dict[str, Any]) -> None:
        path = self.root / name
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._clear():
                self.calls += 1
                self._fs.get_file(f"{self._base}/{name}", str(aside))
            if written := info.get("LastModified"):
                os.utime(aside, (written.timestamp(), written.timestamp()))
            os.replace(aside, path)
            state = path.stat()
        except OSError as error:
            raise disk_error(error, path) from error
        self._enter(name, [_mark(info), state.st_size, state.st_mtime_ns])

    def _files(self, run: Path) -> list[Path]:
        paths = (Path(folder, name) for folder, _, names in os.walk(run) for name in sorted(names))
        # Manifests and run.json last: they vouch for the others.
        return sorted(
            (p for p in paths if _is_sent(p.relative_to(self.root).as_posix())),
            key=lambda path: (path.suffix == ".json", path),
        )

    def _name(self, path: str) -> str:
        return path[len(self._base) :].lstrip("/")

    def _enter(self, name: str, entry: Entry | None) -> None:
        """Note a file at once: without its mark, a killed process could not tell old from new."""
        with self._log() as stream:
            stream.write("\n" + json.dumps([name, entry]))
        _apply(self._index, [name, entry])

    def _read_index(self) -> None:
        """Read what all processes of this machine have noted."""
        index: dict[str, Entry] = {}
        with suppress(OSError, ValueError):
            for line in self._index_file.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, TypeError):  # empty, or cut by a full disk
                    _apply(index, json.loads(line))
        self._index = index

    def _save(self) -> None:
        """Make one line of all that was noted."""
        with self._log():
            self._read_index()
            aside = self._index_file.with_suffix(f".{os.getpid()}.tmp")
            aside.write_text(json.dumps(self._index), encoding="utf-8")
            os.replace(aside, self._index_file)

    @contextmanager
    def _log(self) -> Iterator[TextIO]:
        """The log, to append to; no other process writes it meanwhile."""
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with self._index_file.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with self._index_file.open("a", encoding="utf-8") as stream:
                    yield stream
        except OSError as error:
            raise disk_error(error, self._index_file) from error

    @contextmanager
    def _clear(self) -> Iterator[None]:
        """What goes wrong with the store as one line."""
        try:
            yield
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.url} lacks {str(error)[:160]}; check that the bucket exists"
            ) from error
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"{self.url} cannot be used ({str(error)[:160]}); {INSTALL}"
            ) from error
        except StoreError:
            raise
        except Exception as error:  # each library has errors of its own
            if not isinstance(error, OSError | NotImplementedError) and _is_own(error):
                raise
            if isinstance(error, OSError) and error.errno in FULL:
                raise disk_error(error, self.root) from error
            reason = str(error).partition("\n")[0][:160]
            raise StoreError(
                f"{self.url} does not answer ({type(error).__name__}: {reason}); check its address "
                "and credentials, which come from the environment, then repeat the command: "
                "everything finished so far is kept"
            ) from error


_MIRRORS: dict[Path, Mirror] = {}


def mirror(url: str) -> Mirror:
    """The working copy of the runs at a URL, `<url>/runs`, made known to this process.

    Raises:
        StoreError: the URL, its package or its credentials do not work.
    """
    if not re.match("[^/]+://.", url):
        raise StoreError(
            f"RLAIF_OUTPUTS is {url[:160]!r}, but the address of a store has two slashes and a "
            "name, such as s3://bucket/outputs"
        )
    url = url.rstrip("/")
    name = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[:60]
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    root = PROJECT_ROOT / "outputs" / "stores" / f"{name}-{digest}" / "runs"
    if root not in _MIRRORS:
        _MIRRORS[root] = Mirror(f"{url}/runs", root)
    return _MIRRORS[root]


def mirror_of(path: Path) -> Mirror | None:
    """The store to which a local path belongs; None for runs on a disk."""
    if not _MIRRORS:
        return None
    return next((m for root, m in _MIRRORS.items() if path.is_relative_to(root)), None)


def fetch(path: Path) -> None:
    """Download a file of a run in a store that is not here yet."""
    if (store := mirror_of(path)) is not None:
        store.fetch(path)


def is_locked(root: Path) -> bool:
    """Whether a process works in the run folder now. Raises OSError when that cannot be seen."""
    try:
        lock = os.open(root / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    with open(lock, "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _is_own(error: Exception) -> bool:
    """Whether an error is Python's or ours, and so a bug, and not one of a store's library."""
    return type(error).__module__.partition(".")[0] in ("builtins", "pipeline")


def _apply(index: dict[str, Entry], line: Any) -> None:
    """Enter a line of the log: a whole index, or a name with its entry, null for a removed file."""
    if isinstance(line, dict):
        index.update(line)
        return
    name, entry = line
    index.pop(name, None)
    if entry is not None:
        index[name] = entry


def _is_sent(name: str) -> bool:
    """Whether a file belongs into the store: no journal, lock or temporary file does."""
    return not name.endswith(".journal") and not any(p.startswith(".") for p in name.split("/"))


def _mark(info: dict[str, Any]) -> str:
    """What a store says of a file's version."""
    names = ("ETag", "etag", "mtime", "created", "size")
    mark = next((info[name] for name in names if info.get(name)), "")
    # Of one file, a list may have seconds and a question the date.
    return str(mark.timestamp() if isinstance(mark, datetime) else mark).strip('"')
