"""The dataset folder of a run: its files, their version, and the shards they come from.

    dataset/manifest.json    version, parent, and for each set its hash, inputs, counts and reasons
    dataset/sft.parquet  dataset/preference.parquet  dataset/feedback.parquet
    dataset/prompts.parquet
    dataset/recipe.yaml  dataset/constitution.yaml  dataset/README.md

A nightly run names its parent in run.json (`parent: <run id>`). Its version then holds the rows
of the parent's version, and after them its own, none twice.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError, model_validator

from pipeline.config.section import Section
from pipeline.data.id_set import IdSet
from pipeline.errors import StoreError
from pipeline.ids import content_hash, file_hash
from pipeline.records import Row, SftRow
from pipeline.sources.rows import FeedbackRow, LabeledRow
from pipeline.store.files import atomic_write, read_json, write_json
from pipeline.store.layout import RunDir, run_beside
from pipeline.store.shards import check_inside, iter_manifests, open_parquet

GROUP_ROWS = 4096
"""Rows of a Parquet row group; also the most rows that are in memory at once."""


def schema_of(row_type: type[Row], columns: str) -> pa.Schema:
    """The columns of a set, from the fields of its rows."""
    return pa.schema([row_type.schema().field(name) for name in columns.split()])


SFT_SCHEMA = schema_of(SftRow, "row_id prompt_id messages completion completion_id round run_id")
PREFERENCE_SCHEMA = schema_of(
    LabeledRow,
    "row_id prompt_id messages chosen rejected chosen_id rejected_id soft_label margin "
    "position_gap principle_id judgment_id comparison status run_id source source_index",
)
FEEDBACK_SCHEMA = schema_of(
    FeedbackRow,
    "row_id prompt_id messages completion completion_id label weight events status run_id "
    "source source_index",
)
PROMPT_SCHEMA = pa.schema([pa.field("prompt_id", pa.string(), nullable=False)])


class SourceUse(Section):
    """What one source of labels contributed to a set of pairs or of feedback."""

    name: str
    kind: str
    """`human`, `expert`, `user` or `ai`; the run's own pairs are `ai`."""
    weight: float | None
    """As in the source list; null where all pairs of the run are used."""
    file: str = ""
    """Name of the label file; empty for the run itself."""
    sha256: str = ""
    label_accuracy: float | None = None
    """Probability that a label is right; null where each row has its own soft label or weight."""
    rows: int
    usable: int
    quota: int
    """Rows by weight."""
    num_selected: int


class SetInfo(Section):
    """One file of a data set."""

    path: str
    """Below the run."""
    sha256: str
    rows: int
    from_parent: int = 0
    """Of these, rows of the parent's version."""
    candidates: int = 0
    """Rows of this run that were looked at; always rows - from_parent + the sum of the reasons."""
    reasons: dict[str, int] = Field({})
    """Candidates that were left out, by reason."""
    inputs: dict[str, str] = Field({})
    """Path below the run and SHA-256 of each shard that was read."""
    sources: tuple[SourceUse, ...] = ()
    """The run and its label sources; empty without label sources."""

    @model_validator(mode="after")
    def _inside(self) -> Self:
        check_inside(self.path, *self.inputs)
        return self


class Parent(Section):
    """The version before this one."""

    run_id: str
    dataset_id: str
    version: int


class DatasetManifest(Section):
    """`dataset/manifest.json`."""

    run_id: str
    version: int = 1
    """1 without a parent, else one more than the parent's."""
    parent: Parent | None = None
    num_prompts: int = 0
    """Prompts that were asked for this version and all versions before it."""
    sets: dict[str, SetInfo] = Field({})

    @property
    def dataset_id(self) -> str:
        """Hash of the files' contents, 24 hex digits."""
        return content_hash({name: info.sha256 for name, info in self.sets.items()})[:24]


def load_dataset(run: RunDir) -> DatasetManifest | None:
    """The dataset manifest of a run, or None when it has none yet."""
    values = read_json(run.dataset / "manifest.json")
    try:
        return DatasetManifest.model_validate(values) if values else None
    except ValidationError:
        return None


def parent_run(run: RunDir) -> RunDir | None:
    """The run that `run.json` names as parent.

    Raises:
        StoreError: it is gone, or has no data set.
    """
    name = run.info().get("parent")
    if not name:
        return None
    parent = run_beside(run.root.parent, str(name))
    if not parent.root.exists():
        raise StoreError(
            f"run {run.run_id} continues the data set of {name}, whose folder {parent.root} is "
            "gone; bring it back"
        )
    if load_dataset(parent) is None:
        raise StoreError(
            f"run {run.run_id} continues the data set of {name}, which has none; finish it with "
            f"`rlaif resume {name}`, or start a run without a parent"
        )
    return parent


def known_prompt_ids(run: RunDir) -> Iterator[str]:
    """Ids of all prompts that were asked for a run's version and those before it, some twice.

    Includes prompts that yielded no row: one whose pairs were all ties is not asked again.
    """
    return (i for table in _known_prompt_tables(run) for i in table[0].to_pylist())


def record_set(run: RunDir, name: str, info: SetInfo) -> DatasetManifest:
    """Enter a finished file into dataset/manifest.json, with version, parent and prompts."""
    parent = parent_run(run)
    before = load_dataset(parent) if parent else None
    old = load_dataset(run)
    manifest = DatasetManifest(
        run_id=run.run_id,
        version=before.version + 1 if before else 1,
        parent=Parent(run_id=before.run_id, dataset_id=before.dataset_id, version=before.version)
        if before
        else None,
        num_prompts=_write_prompt_ids(run, parent),
        sets={**(old.sets if old else {}), name: info},
    )
    write_json(run.dataset / "manifest.json", manifest.model_dump(mode="json"))
    return manifest


def parent_tables(
    run: RunDir, name: str, schema: pa.Schema, missing: Mapping[str, Any] | None = None
) -> Iterator[pa.Table]:
    """The rows of one set of the parent's version; nothing without a parent.

    Args:
        missing: values of columns that an older version lacks.

    Raises:
        StoreError: the parent's file is not what its manifest says.
    """
    parent = parent_run(run)
    manifest = load_dataset(parent) if parent else None
    if parent is None or manifest is None or name not in manifest.sets:
        return
    for table in iter_tables(set_path(parent, name)):
        yield fill_columns(table, schema, missing or {})


def set_path(run: RunDir, name: str) -> Path:
    """The file of a set that a run's data set has. Raises StoreError when it is not whole."""
    manifest = load_dataset(run)
    info = manifest.sets.get(name) if manifest else None
    path = run.root / (info.path if info else f"dataset/{name}.parquet")
    if info is None or not path.is_file() or file_hash(path) != info.sha256:
        raise StoreError(
            f"{path} is missing or damaged; `rlaif resume {run.run_id}` writes it again"
        )
    return path


def has_parent_set(run: RunDir, name: str) -> bool:
    """Whether the parent's version has a set of that name."""
    parent = parent_run(run)
    manifest = load_dataset(parent) if parent else None
    return manifest is not None and name in manifest.sets


def fill_columns(table: pa.Table, schema: pa.Schema, values: Mapping[str, Any]) -> pa.Table:
    """The columns of a schema; `values` has the constants for columns that the table lacks."""
    for name, value in values.items():
        if name not in table.column_names:
            column = pa.array([value] * table.num_rows, schema.field(name).type)
            table = table.append_column(schema.field(name), column)
    return table.select(schema.names).cast(schema)


def iter_tables(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A Parquet file, or some of its columns, in tables of at most 4,096 rows."""
    with open_parquet(path) as file:
        for batch in file.iter_batches(GROUP_ROWS, columns=columns):
            yield pa.Table.from_batches([batch])


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables as one Parquet file, whole or not at all; equal rows give equal bytes."""

    def write(stream: Any) -> None:
        with pq.ParquetWriter(
            stream, schema, compression="zstd", version="2.6", store_schema=False
        ) as writer:
            for table in _regroup(tables):
                writer.write_table(table, row_group_size=GROUP_ROWS)

    atomic_write(path, write)


def _regroup(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables of 4,096 rows, the last one smaller, so that shard size does not show in the file."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(t.num_rows for t in waiting) >= GROUP_ROWS:
            joined = pa.concat_tables(waiting)
            full = joined.num_rows - joined.num_rows % GROUP_ROWS
            yield joined.slice(0, full)
            waiting = [joined.slice(full)]
    if waiting:
        yield pa.concat_tables(waiting)


def _known_prompt_tables(run: RunDir) -> Iterator[pa.Table]:
    path = run.dataset / "prompts.parquet"
    return iter_tables(path) if path.exists() else _own_prompt_tables(run)


def _own_prompt_tables(run: RunDir) -> Iterator[pa.Table]:
    for manifest in iter_manifests(run.root, "prompts"):
        with open_parquet(run.root / manifest.path) as file:
            yield file.read(columns=["row_id"], use_threads=False)


def _write_prompt_ids(run: RunDir, parent: RunDir | None) -> int:
    tables = chain(_known_prompt_tables(parent) if parent else (), _own_prompt_tables(run))
    seen, num_prompts = IdSet(), 0

    def new() -> Iterator[pa.Table]:
        nonlocal num_prompts
        for table in tables:
            ids = [identity for identity in table[0].to_pylist() if seen.add(identity)]
            num_prompts += len(ids)
            yield pa.Table.from_arrays([pa.array(ids, pa.string())], schema=PROMPT_SCHEMA)

    write_tables(run.dataset / "prompts.parquet", PROMPT_SCHEMA, new())
    return num_prompts
