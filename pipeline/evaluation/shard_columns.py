"""Rows of finished shards for the evaluation and the report: one shard at a time, some columns.

Manifests say what is there; nothing here changes a file. Rows come as plain dictionaries, since
whole records would cost ten times as much and most columns are not needed.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.store import Manifest
from pipeline.store.shards import stage_manifests

RowDict = dict[str, Any]


def read_columns(root: Path, path: str, columns: Sequence[str]) -> list[RowDict]:
    """Some columns of one shard's rows, in order.

    Raises:
        StoreError: the file is missing or damaged although its manifest is there.
    """
    try:
        rows: list[RowDict] = pq.read_table(root / path, columns=list(columns)).to_pylist()
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
    for manifest in stage_manifests(root, folder):
        yield manifest, read_columns(root, manifest.path, columns)


def stage_folders(root: Path) -> list[str]:
    """Folders with at least one manifest, in the order in which a run makes them."""
    manifests = root.glob("*/**/shard-*.json")
    return sorted({str(path.parent.relative_to(root)) for path in manifests}, key=_place)


def conversations(root: Path, path: str) -> dict[str, list[dict[str, str]]]:
    """Messages by row id of a shard of prompts."""
    return {
        row["row_id"]: row["messages"] for row in read_columns(root, path, ["row_id", "messages"])
    }


def texts_by_id(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """Text by row id of shards of responses and revisions; other paths are passed over."""
    texts: dict[str, str] = {}
    for path in paths:
        stage = Path(path).parent.name
        column = "revision" if stage.startswith("revise") else "response"
        if stage.startswith(("revise", "sample")):
            rows = read_columns(root, path, ["row_id", column])
            texts.update((row["row_id"], row[column]) for row in rows)
    return texts


def _place(folder: str) -> tuple[int, int, int, str]:
    """Sort key: prompts, supervised rounds, preference, held-out prompts, evaluation."""
    phase, _, stage = folder.partition("/")
    phases = ("prompts", "supervised", "preference", "heldout", "evaluation")
    name, _, rest = stage.partition("-")
    kinds = ("sample", "critique", "revise", "score", "judge", "canary", "pool", "pair")
    order = kinds.index(name) if name in kinds else len(kinds)
    number = int(rest) if rest.isdecimal() else 0
    # Critique and revision of one round belong together.
    if name in ("critique", "revise"):
        order, number = 1, 2 * number + (name == "revise")
    policies = ("initial", "sl_cai", "tuned")
    if rest in policies:
        number = policies.index(rest)
    return (phases.index(phase) if phase in phases else len(phases), order, number, folder)


def label_folder(root: Path) -> str:
    """Folder of the labels that pairs are made from: the pooled ones where there is a panel."""
    return "preference/pool" if stage_manifests(root, "preference/pool") else "preference/judge"


def judge_folders(root: Path, kind: str) -> list[str]:
    """Folders of the verdicts (`judge`) or scores (`score`), the first judge first."""
    names = (path.name for path in (root / "preference").glob(f"{kind}*"))
    return [f"preference/{name}" for name in sorted(names, key=lambda name: (len(name), name))]


def grouped(rows: Iterable[RowDict], column: str) -> dict[str, list[RowDict]]:
    """Rows by the value of a column, in order."""
    groups: dict[str, list[RowDict]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups
