"""Shards: Parquet files of rows, each with a manifest that is written last.

The manifest is the completion mark, and resuming trusts nothing else: with no manifest, another
key, or a file whose hash differs, the shard-stage runs again. Rows that a stopped or changed
shard-stage already has are reused one by one (`runner.py`).
"""

import fnmatch
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, TypeAdapter

from pipeline.config.paths import file_problem, plain_bytes
from pipeline.errors import StoreError
from pipeline.ids import file_hash
from pipeline.records import (
    ROW_TYPES,
    ModelRow,
    Row,
    count_statuses,
    rows_from_table,
    table_from_rows,
    with_rare_columns,
)
from pipeline.store.files import atomic_write_all

MANIFEST_VERSION = 1
MOST_REASON = 1000
"""Characters of a reason that a manifest keeps; servers put the remedy at a message's end."""
RareFacts = Annotated[dict[str, str], Field(exclude_if=lambda facts: not facts)]
"""Facts that a file has only where there are any."""
RareCount = Annotated[int, Field(exclude_if=lambda count: not count)]
"""A count that a file has only where it is not 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCounts:
    """Rows by status, and what they cost."""

    expected: int = 0
    """Rows that the stage had to make; always ok + unparsed + failed + dropped."""
    ok: int = 0
    unparsed: int = 0
    failed: int = 0
    dropped: int = 0
    reused: int = 0
    """Of these, taken from an earlier attempt."""
    prompt_tokens: int = 0
    """Paid in this attempt; reused rows cost nothing."""
    cached_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    thoughts: RareCount = 0
    """Rows whose model thought before it replied, reused ones among them."""
    thought_tokens: RareCount = 0
    """Generated tokens of these thoughts, as far as engines say."""
    earlier_prompt_tokens: RareCount = 0
    """Paid in the attempts before this one, as are the two below."""
    earlier_generated_tokens: RareCount = 0
    earlier_seconds: Annotated[float, Field(exclude_if=lambda seconds: not seconds)] = 0.0

    @property
    def all_prompt_tokens(self) -> int:
        """Paid in all attempts, as are the two below."""
        return self.prompt_tokens + self.earlier_prompt_tokens

    @property
    def all_generated_tokens(self) -> int:
        """See `all_prompt_tokens`."""
        return self.generated_tokens + self.earlier_generated_tokens

    @property
    def all_seconds(self) -> float:
        """See `all_prompt_tokens`."""
        return self.seconds + self.earlier_seconds

    def as_reused(self) -> "ShardCounts":
        """Of the same rows in a run that took all of them from another one, and paid nothing."""
        return replace(
            self,
            reused=self.expected,
            prompt_tokens=0,
            cached_tokens=0,
            generated_tokens=0,
            seconds=0.0,
            earlier_prompt_tokens=0,
            earlier_generated_tokens=0,
            earlier_seconds=0.0,
        )

    def __add__(self, other: "ShardCounts") -> "ShardCounts":
        return ShardCounts(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(ShardCounts)}
        )

    def as_dict(self) -> dict[str, int | float]:
        """Plain values by name."""
        return asdict(self)


def check_inside(*paths: str) -> None:
    """Raises ValueError for a path of a manifest that is not below the run folder."""
    for path in paths:
        if "\0" in path or Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError(f"the path {path[:120]!r} is not below the run folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What one shard-stage read, wrote and cost."""

    version: int = MANIFEST_VERSION
    stage: str
    """Path of the stage below the run, such as `preference/judge`."""
    shard_index: int
    row_kind: str
    key: str
    """Hash of the stage's settings and of the hashes of its inputs."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Path below the run and SHA-256 of each file that was read."""
    path: str
    """Parquet file below the run."""
    sha256: str
    counts: ShardCounts
    reasons: dict[str, int] = field(default_factory=dict)
    """Rows that are not ok, by `status: reason`."""
    engine: dict[str, str] = field(default_factory=dict)
    """Name, fingerprint and version of the model that made the rows; empty without one."""
    made_by: RareFacts = field(default_factory=dict)
    """Worker, host, attempt and GPU, if a worker of a cluster made the rows."""
    code: int = 0
    """Version of the code that made the rows (`stages.runner.CODE_VERSION`)."""
    resumed: bool = False
    """True when the shard-stage was finished before and has not run again."""

    def __post_init__(self) -> None:
        # Manifests may come from elsewhere; what they name is read and shown.
        check_inside(self.path, *self.inputs)
        if self.row_kind not in ROW_TYPES:
            raise ValueError(f"there are no rows of kind {self.row_kind[:80]!r}")

    def to_json(self) -> str:
        """The contents of the manifest's file."""
        return _manifest_adapter().dump_json(self, indent=1).decode("utf-8") + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """The inverse of `to_json`. Raises pydantic.ValidationError for anything else."""
        return _manifest_adapter().validate_json(text)


def write_shard(
    root: Path,
    folder: str,
    shard_index: int,
    rows: Sequence[Row],
    row_type: type[Row],
    **entries: Any,
) -> Manifest:
    """Write rows and, last, their manifest below `root`; both whole or not at all.

    Raises:
        StoreError: the disk is full; nothing new is visible then.
        ValueError: the counts do not add up to the expected rows, which is a bug.
    """
    manifest, data = _shard(folder, shard_index, rows, row_type, **entries)
    # Between the two renames an old manifest names a hash that the new file does not have, and so
    # vouches for nothing.
    atomic_write_all(
        [
            (root / manifest.path, lambda stream: _write(stream, data)),
            _manifest_file(root, manifest),
        ]
    )
    return manifest


def write_attempt(
    root: Path,
    folder: str,
    shard_index: int,
    rows: Sequence[Row],
    row_type: type[Row],
    **entries: Any,
) -> Manifest:
    """Write rows to a file of this attempt alone, which counts for nothing until its manifest is
    published. Raises StoreError and ValueError as `write_shard`.

    Args:
        entries: with `made_by`, whose `attempt` is in the file's name.
    """
    manifest, data = _shard(folder, shard_index, rows, row_type, **entries)
    atomic_write_all([(root / manifest.path, lambda stream: _write(stream, data))])
    return manifest


def publish(root: Path, manifest: Manifest) -> None:
    """Write the manifest of an attempt. Raises StoreError when the disk is full."""
    atomic_write_all([_manifest_file(root, manifest)])


def _shard(
    folder: str, shard_index: int, rows: Sequence[Row], row_type: type[Row], **entries: Any
) -> tuple[Manifest, bytes]:
    counts: ShardCounts = entries.pop("counts")
    statuses = count_statuses(rows)
    if counts.expected != len(rows):
        raise ValueError(f"{folder}: {counts.expected} rows expected, {len(rows)} made")
    attempt = entries.get("made_by", {}).get("attempt")
    name = f"shard-{shard_index:05d}{f'.{attempt}' if attempt else ''}.parquet"
    data = parquet_bytes(table_from_rows(rows, row_type))
    manifest = Manifest(
        stage=folder,
        shard_index=shard_index,
        row_kind=row_type.kind,
        path=f"{folder}/{name}",
        sha256=hashlib.sha256(data).hexdigest(),
        counts=replace(counts, **statuses, **_count_thoughts(rows)),
        reasons=count_reasons(rows),
        **entries,
    )
    return manifest, data


def _manifest_file(root: Path, manifest: Manifest) -> tuple[Path, Callable[[Any], None]]:
    text = manifest.to_json().encode("utf-8")
    path = root / manifest.stage / f"shard-{manifest.shard_index:05d}.json"
    return path, lambda stream: _write(stream, text)


def load_manifest(root: Path, folder: str, shard_index: int) -> Manifest | None:
    """The manifest of a finished shard-stage whose shard is intact, else None."""
    path = root / folder / f"shard-{shard_index:05d}.json"
    try:
        manifest = Manifest.from_json(plain_bytes(path).decode("utf-8"))
    except (OSError, ValueError):
        return None
    data = root / manifest.path
    if not data.is_file() or file_hash(data) != manifest.sha256:
        return None
    return manifest


def require_manifest(root: Path, folder: str, shard_index: int) -> Manifest:
    """The manifest of a finished shard-stage. Raises StoreError when it is missing or damaged."""
    manifest = load_manifest(root, folder, shard_index)
    if manifest is None:
        raise StoreError(
            f"{folder}/shard-{shard_index:05d} of run {root.name} is missing or damaged; "
            f"`rlaif resume {root.name}` makes it again"
        )
    return manifest


def is_attempt(path: Path) -> bool:
    """Whether a file is named after an attempt of a worker: `shard-00007.1f0c9a2b.parquet`."""
    return path.name.startswith("shard-") and path.suffixes[1:] == [".parquet"]


def leftover_attempts(root: Path) -> list[Path]:
    """Files of attempts that no manifest names: of workers that died, or ended too late."""
    left = []
    for path in sorted(root.glob("*/*/shard-*.parquet")):
        if is_attempt(path):
            manifest = path.with_name(f"{path.name.partition('.')[0]}.json")
            try:
                named = Manifest.from_json(plain_bytes(manifest).decode("utf-8")).path
            except (OSError, ValueError):
                named = ""
            if named != path.relative_to(root).as_posix():
                left.append(path)
    return left


def stage_manifests(root: Path, folder: str) -> list[Manifest]:
    """All manifests of a stage, as `iter_manifests`."""
    return list(iter_manifests(root, folder))


def iter_manifests(root: Path, folder: str) -> Iterator[Manifest]:
    """The manifests of a stage one by one, by shard index; the shards are not hashed again.

    Raises:
        StoreError: one of them does not parse; without it, the rest would pass for all shards.
    """
    for path in _manifest_files(root / folder):
        try:
            manifest = Manifest.from_json(plain_bytes(path).decode("utf-8"))
        except (OSError, ValueError):
            raise StoreError(
                f"{folder}/{path.name} of run {root.name} is not a manifest, so its shard counts "
                f"as unfinished; `rlaif resume {root.name}` makes it again"
            ) from None
        yield manifest


def _manifest_files(folder: Path) -> Iterator[Path]:
    names = fnmatch.filter(os.listdir(folder), "shard-*.json") if folder.is_dir() else []
    # The numbers of shards from 100,000 on are longer.
    yield from (folder / name for name in sorted(names, key=lambda name: (len(name), name)))


def stage_rows(root: Path, folder: str) -> Iterator[Any]:
    """All rows of a stage, shard after shard. Raises StoreError as `iter_manifests`."""
    for manifest in iter_manifests(root, folder):
        yield from read_rows(root, manifest)


def first_manifest(root: Path, folder: str) -> Manifest | None:
    """The first manifest of a stage whose shard is intact, for the model it names; None when there
    is none.
    """
    indices = (int(path.stem.removeprefix("shard-")) for path in _manifest_files(root / folder))
    return next(filter(None, (load_manifest(root, folder, index) for index in indices)), None)


def read_table(root: Path, manifest: Manifest) -> pa.Table:
    """The rows of a shard as an Arrow table.

    Raises:
        StoreError: its columns are those of another version of this program.
    """
    schema = ROW_TYPES[manifest.row_kind].schema()
    # One thread and no dataset machinery: a shard is small, and a run has many.
    with open_parquet(root / manifest.path) as file:
        table = with_rare_columns(file.read(use_threads=False), ROW_TYPES[manifest.row_kind])
    if table.schema.names != schema.names:
        differing = sorted({*table.schema.names} ^ {*schema.names})
        raise StoreError(
            f"{manifest.path} was written by another version of this program (columns "
            f"{', '.join(differing)} differ); use that version, or start a new run"
        )
    return table.cast(schema)


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file to read from. Raises StoreError when it is damaged or none."""
    try:
        if problem := file_problem(path):
            raise OSError(problem)
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0][:120]
        raise StoreError(
            f"{path} cannot be read as Parquet ({reason}); `rlaif verify` lists what is damaged"
        ) from None


def read_rows(root: Path, manifest: Manifest) -> list[Any]:
    """The rows of a shard, in order."""
    return rows_from_table(read_table(root, manifest), ROW_TYPES[manifest.row_kind])


def parquet_bytes(table: pa.Table) -> bytes:
    """Deterministic bytes of a table: equal rows give equal hashes."""
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd", version="2.6", store_schema=False)
    return stream.getvalue()


def count_reasons(rows: Sequence[Row]) -> dict[str, int]:
    """Rows that are not ok, by `status: reason`."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.status != "ok":
            reason = row.reason.splitlines()[0][:MOST_REASON] if row.reason else ""
            key = f"{row.status}: {reason}"
            counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items()))


def _count_thoughts(rows: Sequence[Row]) -> dict[str, int]:
    counts = [
        row.num_thought_tokens or 0
        for row in rows
        if isinstance(row, ModelRow) and (row.thoughts or row.num_thought_tokens)
    ]
    return {"thoughts": len(counts), "thought_tokens": sum(counts)}


@cache
def _manifest_adapter() -> TypeAdapter[Manifest]:
    config = ConfigDict(extra="forbid")
    for record in (ShardCounts, Manifest):
        record.__pydantic_config__ = config  # type: ignore[union-attr]
    return TypeAdapter(Manifest)


def _write(stream: Any, data: bytes) -> None:
    stream.write(data)
