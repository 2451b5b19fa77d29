"""Where a row came from: from any row of a run back to its prompt, with every row in between.

In:  a run folder and a row id (of a shard or of a data set)
Out: Origin: the row, the model that made it, the words of its principle, and its parents' origins

    pair -> judgment (both orders, principle, judge) -> responses
         -> critiques and revisions -> prompt
    pair of another source, users' feedback -> line of a label file

Only manifests and the files that they name are read, so a run can be traced on another machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.constitution import Principle, load_constitution
from pipeline.data.dataset import iter_tables, load_dataset, parent_run
from pipeline.errors import DataError, UserError
from pipeline.sources.files import label_file
from pipeline.store.layout import RunDir
from pipeline.store.shards import Manifest, stage_manifests
from pipeline.store.stage_names import PAIRS

SETS = ("preference", "feedback", "sft")
ROWS_OF_RUN = {
    "preference": ("judgment_id",),
    "feedback": (),
    "sft": ("prompt_id", "completion_id"),
}
"""Per set, the columns with ids of the shard rows that a row was made from; empty if imported."""


@dataclass(frozen=True)
class Origin:
    """One row and, below it, the rows that it was made from."""

    row: dict[str, Any]
    """All its columns."""
    kind: str
    """`preference`, `feedback`, `judgment`, `response`, `revision`, `critique`, `prompt`, `sft` or
    `label`."""
    run_id: str
    file: str
    """Parquet file below the run; for a `label` the file that it was imported from."""
    engine: dict[str, str]
    """Name, fingerprint and version of the model that made it; empty for rows without a model."""
    principle: Principle | None
    """The principle as the run used it."""
    parents: tuple["Origin", ...]
    shown_before: bool = False
    """True where the same row is above in the tree; its parents are not repeated."""

    @property
    def row_id(self) -> str:
        """Id of the row."""
        return str(self.row["row_id"])

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON; of the principle the words that were used."""
        if self.shown_before:
            return {"kind": self.kind, "row_id": self.row_id, "shown_before": True}
        return {
            "kind": self.kind,
            "run_id": self.run_id,
            "file": self.file,
            "row": self.row,
            "engine": self.engine,
            "principle": self.principle.model_dump(mode="json") if self.principle else None,
            "parents": [parent.as_dict() for parent in self.parents],
        }

    def walk(self) -> Iterator["Origin"]:
        """This row and all below it."""
        yield self
        for parent in self.parents:
            yield from parent.walk()


def trace(run: RunDir, row_id: str) -> Origin:
    """The whole origin of a row, by its id or the beginning of it (8 digits or more).

    Raises:
        UserError: no row of the run has that id, or several do.
        DataError: a row names a parent that is not there.
    """
    run.require()
    found = _find_in_sets(run, row_id)
    if found is not None:
        return found
    for folder in _folders(run):
        for manifest in stage_manifests(run.root, folder):
            identity = _match(run.root / manifest.path, row_id)
            if identity:
                return _Tracer(run).origin(identity, manifest)
    raise UserError(
        f"run {run.run_id} has no row {row_id}; take an id from the column row_id of "
        f"{run.dataset / 'preference.parquet'} or of a shard"
    )


class _Tracer:
    """Follows parents inside one run; remembers which rows it has shown."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._shown: set[str] = set()
        self._principles = _principles(run)

    def origin(self, row_id: str, manifest: Manifest) -> Origin:
        """The row of a shard, with its parents from the shards that this one was made from."""
        row = _read(self._run.root / manifest.path, row_id)
        again = row_id in self._shown
        self._shown.add(row_id)
        parents = (
            ()
            if again
            else tuple(
                self.origin(parent, self._home(parent, manifest)) for parent in row["parent_ids"]
            )
        )
        return Origin(
            row=row,
            kind=manifest.row_kind,
            run_id=self._run.run_id,
            file=manifest.path,
            engine=manifest.engine,
            principle=self._principles.get(row.get("principle_id", "")),
            parents=parents,
            shown_before=again,
        )

    def set_row(self, row: dict[str, Any], kind: str, path: str) -> Origin:
        """A row of a finished data set; its parents are rows of this run's shards, or a label."""
        parents = tuple(
            self.origin(identity, self._search(identity))
            for identity in (row[name] for name in ROWS_OF_RUN[kind])
            if identity
        ) or (self._label(row),)
        return Origin(
            row=row,
            kind=kind,
            run_id=self._run.run_id,
            file=path,
            engine={},
            principle=self._principles.get(row.get("principle_id", "")),
            parents=parents,
        )

    def _label(self, row: dict[str, Any]) -> Origin:
        """Where an imported row ends: the line of a label file, and the file's hash."""
        found = label_file(self._run, row["source"]) or {"path": "", "sha256": ""}
        return Origin(
            row={
                "row_id": found["sha256"],
                "source": row["source"],
                "source_index": row["source_index"],
            },
            kind="label",
            run_id=self._run.run_id,
            file=found["path"],
            engine={},
            principle=None,
            parents=(),
        )

    def _home(self, row_id: str, child: Manifest) -> Manifest:
        for path in child.inputs:
            if _match(self._run.root / path, row_id):
                return _manifest_of(self._run.root, path)
        raise DataError(
            f"{child.path} of run {self._run.run_id} names a row {row_id} that none of its inputs "
            f"has; `rlaif verify {self._run.run_id}` lists what is damaged"
        )

    def _search(self, row_id: str) -> Manifest:
        for folder in _folders(self._run):
            for manifest in stage_manifests(self._run.root, folder):
                if _match(self._run.root / manifest.path, row_id):
                    return manifest
        raise DataError(
            f"no shard of run {self._run.run_id} has row {row_id}; `rlaif verify "
            f"{self._run.run_id}` lists what is damaged"
        )


def _find_in_sets(run: RunDir, row_id: str) -> Origin | None:
    """The row of a data set; one that an earlier version brought is followed into its own run."""
    dataset = load_dataset(run)
    for name in SETS:
        if dataset is None or name not in dataset.sets:
            continue
        path = dataset.sets[name].path
        identity = _match(run.root / path, row_id)
        if identity is None:
            continue
        row = _read(run.root / path, identity)
        home = run
        while home.run_id != row["run_id"] and (parent := parent_run(home)):
            home = parent
        return _Tracer(home).set_row(row, name, path)
    return None


def _folders(run: RunDir) -> list[str]:
    found = {
        path.parent.relative_to(run.root).as_posix() for path in run.root.rglob("shard-*.json")
    }
    # Made last, asked for most.
    return sorted(found, key=lambda folder: (not folder == PAIRS, folder))


def _match(path: Path, row_id: str) -> str | None:
    """The whole id of the row whose id begins so. Raises UserError when several do."""
    if not path.exists() or len(row_id) < 8:
        return None
    column = pq.read_table(path, columns=["row_id"]).column(0)
    found = column.filter(pc.starts_with(column, row_id)).unique().to_pylist()
    if len(found) > 1:
        raise UserError(f"{len(found)} rows begin with {row_id}; give more digits")
    return str(found[0]) if found else None


def _read(path: Path, row_id: str) -> dict[str, Any]:
    for table in iter_tables(path):
        rows = table.filter(pc.equal(table["row_id"], row_id)).to_pylist()
        if rows:
            return dict(rows[0])
    raise DataError(f"{path} has no row {row_id}")


def _manifest_of(root: Path, path: str) -> Manifest:
    folder, _, name = path.rpartition("/")
    index = int(name.removeprefix("shard-").removesuffix(".parquet"))
    return next(m for m in stage_manifests(root, folder) if m.shard_index == index)


def _principles(run: RunDir) -> dict[str, Principle]:
    if not run.constitution.exists():
        return {}
    return {p.id: p for p in load_constitution(run.constitution).principles}
