"""Rows of finished shards for the evaluation and the report: one shard at a time, some columns.

Reads only, and only shards that have a manifest. Rows are plain dictionaries: whole records would
cost ten times as much, and most columns are not needed.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.store import Manifest
from pipeline.store.shards import iter_manifests
from pipeline.store.stage_names import LABELS, POOLED, STAGES, split_folder

RowDict = dict[str, Any]


def read_columns(root: Path, path: str, columns: Sequence[str]) -> list[RowDict]:
    """Some columns of one shard's rows, in order.

    Raises:
        StoreError: the file is missing or damaged although its manifest is there.
    """
    try:
        # One thread and no dataset machinery: a shard is small, and a run has many.
        with pq.ParquetFile(root / path) as file:
            table = file.read(columns=list(columns), use_threads=False).select(list(columns))
        rows: list[RowDict] = table.to_pylist()
        return rows
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StoreError(
            f"{root / path} cannot be read ({str(error).splitlines()[0]}); `rlaif verify "
            f"{root.name}` lists what is damaged, `rlaif resume {root.name}` makes it again"
        ) from error


def iter_shards(
    root: Path, folder: str, columns: Sequence[str]
) -> Iterator[tuple[Manifest, list[RowDict]]]:
    """The shards of a stage by index, each with some columns of its rows."""
    for manifest in iter_manifests(root, folder):
        yield manifest, read_columns(root, manifest.path, columns)


def conversations(root: Path, path: str) -> dict[str, list[dict[str, str]]]:
    """Messages by row id of a shard of prompts."""
    return {
        row["row_id"]: row["messages"] for row in read_columns(root, path, ["row_id", "messages"])
    }


def texts_by_id(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """Text by row id of shards of responses and revisions; other paths are passed over."""
    texts: dict[str, str] = {}
    for path in paths:
        kind = STAGES.get(split_folder(str(Path(path).parent))[1])
        if kind is not None and kind.text:
            rows = read_columns(root, path, ["row_id", kind.text])
            texts.update((row["row_id"], row[kind.text]) for row in rows)
    return texts


def label_folder(root: Path) -> str:
    """Folder of the labels that pairs are made from: the pooled ones of a panel, if any."""
    return POOLED if any(iter_manifests(root, POOLED)) else LABELS


def grouped(rows: Iterable[RowDict], column: str) -> dict[str, list[RowDict]]:
    """Rows by the value of a column, in order."""
    groups: dict[str, list[RowDict]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups
