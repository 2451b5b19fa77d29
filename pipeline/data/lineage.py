"""Where a row came from: from any row of a run back to its prompt, with every row in between.

In:  a run folder and a row id (of a shard or of a data set)
Out: Origin: the row, the model that made it, the words of its principle, and its parents' origins

    pair -> judgment (both orders, principle, judge) -> responses
         -> critiques and revisions -> prompt
    pair of another source, users' feedback -> line of a label file

Only manifests and the files that they name are read, so a run can be traced on another machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipeline.constitution import Principle, load_constitution
from pipeline.data.dataset import iter_tables, load_dataset, parent_run
from pipeline.errors import DataError, UserError
from pipeline.sources.files import label_file
from pipeline.store.layout import RunDir
from pipeline.store.shards import Manifest, open_parquet, stage_manifests
from pipeline.store.stage_names import PAIRS

SETS = ("preference", "feedback", "sft", "directed")
ROWS_OF_RUN = {
    "preference": ("judgment_id",),
    "feedback": (),
    "sft": ("prompt_id", "completion_id"),
    "directed": ("score_id",),
}
"""Per set, the columns with ids of the shard rows that a row was made from; empty if imported."""


@dataclass(frozen=True)
class Origin:
    """One row and, below it, the rows that it was made from."""

    row: dict[str, Any]
    """All its columns."""
    kind: str
    """`preference`, `feedback`, `directed`, `sft`, `judgment`, `score`, `response`, `revision`,
    `critique`, `prompt` or `label`."""
    run_id: str
    file: str
    """Parquet file below the run; for a `label` the file that it was imported from."""
    engine: dict[str, str] = field(default_factory=dict)
    """Name, fingerprint and version of the model that made it; empty for rows without a model."""
    principle: Principle | None = None
    """The principle as the run used it."""
    parents: tuple["Origin", ...] = ()
    shown_before: bool = False
    """True where the same row is above in the tree; its parents are not repeated."""

    @property
    def row_id(self) -> str:
        """Id of the row."""
        return str(self.row["row_id"])

    def walk(self) -> Iterator["Origin"]:
        """This row and all below it."""
        yield self
        for parent in self.parents:
            yield from parent.walk()


def trace(run: RunDir, row_id: str) -> Origin:
    """The whole origin of a row, by its id or the beginning of it (8 digits or more).

    Raises:
        UserError: no row of the run has that id, or several do.
        DataError: a row names a parent that does not exist.
    """
    run.require()
    if origin := _find_in_sets(run, row_id):
        return origin
    if place := _find_in_shards(run, row_id):
        return _Tracer(run).origin(*place)
    raise UserError(
        f"run {run.run_id} has no row {row_id}; take an id from the column row_id of "
        f"{run.dataset / 'preference.parquet'} or of a shard"
    )


class _Tracer:
    """Follows parents inside one run; remembers which rows it has shown."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._shown: set[str] = set()
        self._principles: dict[str, Principle] = {}
        if run.constitution.exists():
            principles = load_constitution(run.constitution).principles
            self._principles = {principle.id: principle for principle in principles}

    def origin(self, row_id: str, manifest: Manifest) -> Origin:
        """The row of a shard, with its parents from the shards that this one was made from."""
        row = _read(self._run.root / manifest.path, row_id)
        shown_before = row_id in self._shown
        self._shown.add(row_id)
        parent_ids = () if shown_before else row["parent_ids"]
        return self._origin(
            row,
            manifest.row_kind,
            manifest.path,
            # A label or critique of a check names no model, although its shard does.
            engine=manifest.engine if row.get("model_fingerprint", "+") else {},
            parents=tuple(self.origin(i, self._shard_of_parent(i, manifest)) for i in parent_ids),
            shown_before=shown_before,
        )

    def set_row(self, row: dict[str, Any], kind: str, path: str) -> Origin:
        """A row of a finished data set; its parents are rows of this run's shards, or a label."""
        ids = [row[name] for name in ROWS_OF_RUN[kind] if row[name]]
        parents = tuple(map(self._shard_row, ids)) or (self._label(row),)
        return self._origin(row, kind, path, parents=parents)

    def _label(self, row: dict[str, Any]) -> Origin:
        """The end of an imported row: the line of a label file, and the file's hash."""
        entry = label_file(self._run, row["source"]) or {"path": "", "sha256": ""}
        label = {key: row[key] for key in ("source", "source_index")}
        return self._origin({"row_id": entry["sha256"], **label}, "label", entry["path"])

    def _origin(self, row: dict[str, Any], kind: str, file: str, **more: Any) -> Origin:
        principle = self._principles.get(row.get("principle_id", ""))
        return Origin(row, kind, self._run.run_id, file, principle=principle, **more)

    def _shard_of_parent(self, row_id: str, child: Manifest) -> Manifest:
        for path in child.inputs:
            if _match(self._run.root / path, row_id):
                return next(
                    manifest
                    for manifest in stage_manifests(self._run.root, path.rpartition("/")[0])
                    if manifest.path == path
                )
        raise self._missing(f"{child.path} names a row {row_id} that none of its inputs has")

    def _shard_row(self, row_id: str) -> Origin:
        place = _find_in_shards(self._run, row_id)
        if place is None:
            raise self._missing(f"no shard has row {row_id}")
        return self.origin(*place)

    def _missing(self, problem: str) -> DataError:
        run_id = self._run.run_id
        return DataError(f"run {run_id}: {problem}; `rlaif verify {run_id}` lists what is damaged")


def _find_in_sets(run: RunDir, row_id: str) -> Origin | None:
    """The row of a data set; a row of an earlier version is traced in the run that made it."""
    dataset = load_dataset(run)
    for name in SETS:
        if dataset is None or name not in dataset.sets:
            continue
        path = dataset.sets[name].path
        if identity := _match(run.root / path, row_id):
            row = _read(run.root / path, identity)
            home = run
            while home.run_id != row["run_id"] and (parent := parent_run(home)):
                home = parent
            return _Tracer(home).set_row(row, name, path)
    return None


def _find_in_shards(run: RunDir, row_id: str) -> tuple[str, Manifest] | None:
    """The whole id of a row of the run's shards, and the manifest of its shard."""
    folders = {p.parent.relative_to(run.root).as_posix() for p in run.root.rglob("shard-*.json")}
    # Pairs first: they are traced most.
    for folder in sorted(folders, key=lambda name: (name != PAIRS, name)):
        for manifest in stage_manifests(run.root, folder):
            if identity := _match(run.root / manifest.path, row_id):
                return identity, manifest
    return None


def _match(path: Path, row_id: str) -> str | None:
    """The whole id of the row whose id begins so. Raises UserError when several do."""
    if not path.exists() or len(row_id) < 8:
        return None
    with open_parquet(path) as file:
        column = file.read(columns=["row_id"]).column(0)
    matches = column.filter(pc.starts_with(column, row_id)).unique().to_pylist()
    if len(matches) > 1:
        raise UserError(f"{len(matches)} rows begin with {row_id}; give more digits")
    return str(matches[0]) if matches else None


def _read(path: Path, row_id: str) -> dict[str, Any]:
    for table in iter_tables(path):
        if rows := table.filter(pc.equal(table["row_id"], row_id)).to_pylist():
            return dict(rows[0])
    raise DataError(f"{path} has no row {row_id}")
