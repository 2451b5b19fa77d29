"""Is a run still what it was when it ended? Checks every hash, count and parent; changes no file.

In:  a run folder, which may have been renamed or copied
Out: a list of problems, one line each; empty when everything is whole

    shards      file hash, inputs, counts, row ids unique, parents present, ids of prompts
    data sets   file hash, inputs, row count, every row's home shard
    training    the data sets on which each model was trained, and its files since it was saved
    copies      recipe, constitution and templates against run.json
    others      all other files, trained weights included, against files.json

Each file is read once for its hash.

Does not: ask a model again, or notice a change of files together with all hashes that cover them.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from pipeline.config.paths import plain_bytes
from pipeline.config.training import learns_from, takes_feedback
from pipeline.data.dataset import DatasetManifest, load_dataset
from pipeline.errors import StoreError
from pipeline.ids import file_hash, row_id
from pipeline.store.files import read_json
from pipeline.store.inventory import (
    INVENTORY,
    Inventory,
    files_to_list,
    is_plain_file,
    read_inventory,
)
from pipeline.store.layout import RunDir
from pipeline.store.shards import (
    Manifest,
    check_inside,
    is_attempt,
    leftover_attempts,
    open_parquet,
)

TRAININGS = ("sft", "preference")
"""Folders of the trainings."""
FEEDBACK = "dataset/feedback.parquet"


@dataclass(frozen=True)
class Verification:
    """What is known of the files of a run."""

    problems: list[str]
    """Those of its rows in the order of its folders, then those of other files."""
    num_covered: int
    """Files that were compared with a hash."""
    uncovered: list[str]
    """Files by path below the run that no hash covers yet, since the run has not ended."""
    leftovers: list[str]
    """Files of workers' attempts that no manifest names, by path below the run."""


def verify(run: RunDir) -> list[str]:
    """All problems of a run; see `Verification`."""
    return check_files(run).problems


def check_files(run: RunDir) -> Verification:
    """Compare every file of a run with its hash. Raises StoreError where there is no run."""
    run.require()
    hashes: dict[str, str] = {}
    problems = list(_copies(run, hashes))
    manifests = []
    for path in sorted(run.root.rglob("shard-*.json")):
        manifest = _parse(path)
        if manifest is None:
            problems.append(f"{path.relative_to(run.root)}: not a manifest")
        else:
            manifests.append(manifest)
    for manifest in manifests:
        problems += _file(run, manifest.path, manifest.sha256, hashes)
    for folder in dict.fromkeys(manifest.stage for manifest in manifests):
        seen: set[str] = set()
        for manifest in (m for m in manifests if m.stage == folder):
            problems += _whole(_shard(run, manifest, hashes, seen), manifest.path)
    problems += _unclaimed(run, {manifest.path for manifest in manifests})
    problems += _datasets(run, hashes)
    problems += _training(run, hashes)
    known = {problem.partition(":")[0] for problem in problems}
    problems += _others(run, hashes, known)
    inventory = read_inventory(run.root) or Inventory(open_since=0, files={})
    leftovers = [path.relative_to(run.root).as_posix() for path in leftover_attempts(run.root)]
    uncovered = [
        name
        for name in files_to_list(run.root)
        if name not in hashes
        and name not in leftovers
        and inventory.may_have_changed(run.root / name)
    ]
    return Verification(problems, len(hashes), uncovered, leftovers)


def _others(run: RunDir, hashes: dict[str, str], known: set[str]) -> Iterator[str]:
    """Problems of the files in files.json, but for those that are known already."""
    inventory = read_inventory(run.root)
    if inventory is None:
        if (run.root / INVENTORY).exists():
            yield f"{INVENTORY}: damaged, so the files that it lists cannot be checked"
        elif "run.json" not in known and run.info().get("status", "started") != "started":
            yield (
                f"{INVENTORY}: missing, although the run has ended, so the files that it lists "
                "cannot be checked; `rlaif resume` writes it for a run of an earlier version"
            )
        return
    for name in sorted({*files_to_list(run.root), *inventory.files} - known):
        path, entry = run.root / name, inventory.files.get(name)
        if inventory.may_have_changed(path):
            continue
        if entry is None:
            yield f"{name}: was not there when the run ended"
        elif not os.path.lexists(path):
            yield f"{name}: missing"
        elif not is_plain_file(path):
            yield f"{name}: is no longer a plain file"
        elif path.stat().st_size != entry.size or _hash(run, name, hashes) != entry.sha256:
            yield f"{name}: damaged or changed since the run ended"


def _whole(problems: Iterator[str], path: str) -> Iterator[str]:
    """The problems of a file, and last, that it cannot be read where this is one."""
    try:
        yield from problems
    except StoreError as error:
        yield f"{path}: has the hash of its manifest, but {error}"


def _copies(run: RunDir, hashes: dict[str, str]) -> Iterator[str]:
    try:
        copies = run.info().get("files", {})
    except StoreError:
        yield "run.json: damaged"
        return
    for name, expected in copies.items():
        if not is_plain_file(run.root / name):
            yield f"{name}: missing"
        elif _hash(run, name, hashes) != expected:
            yield f"{name}: changed since the run began"


def _file(run: RunDir, path: str, expected: str, hashes: dict[str, str]) -> Iterator[str]:
    if not is_plain_file(run.root / path):
        yield f"{path}: missing, although its manifest is there"
    elif _hash(run, path, hashes) != expected:
        yield f"{path}: damaged or changed (its hash differs from its manifest)"


def _hash(run: RunDir, path: str, hashes: dict[str, str]) -> str:
    """SHA-256 of a file, which is read once for all that it is compared with."""
    if path not in hashes:
        hashes[path] = file_hash(run.root / path)
    return hashes[path]


def _columns(path: Path, *columns: str) -> pa.Table:
    """Columns of a Parquet file. Raises StoreError when it is damaged or lacks one."""
    with open_parquet(path) as file:
        table = file.read(columns=list(columns), use_threads=False)
        table.validate(full=True)
    if missing := {*columns} - {*table.column_names}:
        raise StoreError(f"{path} has no column {', '.join(sorted(missing))}")
    return table


def _shard(
    run: RunDir, manifest: Manifest, hashes: dict[str, str], seen: set[str]
) -> Iterator[str]:
    path = manifest.path
    if hashes.get(path) != manifest.sha256:
        return
    yield from _inputs(path, manifest.inputs, hashes)
    table = _columns(run.root / path, "row_id", "parent_ids", "status")
    yield from _counts(manifest, table)
    ids = table["row_id"].to_pylist()
    before = len(seen)
    seen.update(ids)
    if repeated := len(ids) - (len(seen) - before):
        yield f"{path}: {repeated} row ids repeat others of {manifest.stage}"
    if any(hashes.get(name) != expected for name, expected in manifest.inputs.items()):
        # Reported above; a damaged file cannot be read for its ids.
        return
    known = {
        parent
        for name in manifest.inputs
        for parent in _columns(run.root / name, "row_id")[0].to_pylist()
    }
    parents = chain.from_iterable(table["parent_ids"].to_pylist())
    if orphans := sum(parent not in known for parent in parents):
        yield f"{path}: {orphans} parents are in none of its inputs"
    if manifest.row_kind == "prompt":
        yield from _prompt_ids(run, path)


def _inputs(path: str, inputs: dict[str, str], hashes: dict[str, str]) -> Iterator[str]:
    for name, expected in inputs.items():
        if name not in hashes:
            yield f"{path}: was made from {name}, which is missing"
        elif hashes[name] != expected:
            yield f"{path}: was made from another version of {name}"


def _counts(manifest: Manifest, table: pa.Table) -> Iterator[str]:
    counts = manifest.counts
    stated = {name: getattr(counts, name) for name in ("ok", "unparsed", "failed", "dropped")}
    counted = Counter(table["status"].to_pylist())
    if +Counter(stated) != counted or sum(stated.values()) != counts.expected:
        yield (
            f"{manifest.path}: counts do not add up ({counts.expected} expected, manifest "
            f"{stated}, file {dict(counted)})"
        )
    if sum(manifest.reasons.values()) != counts.expected - counts.ok:
        yield f"{manifest.path}: the reasons do not add up to the rows that are not ok"


def _prompt_ids(run: RunDir, path: str) -> Iterator[str]:
    table = _columns(run.root / path, "row_id", "messages")
    rows = table.to_pylist()
    if wrong := sum(row_id("prompt", row["messages"]) != row["row_id"] for row in rows):
        yield f"{path}: {wrong} prompts do not have the id of their messages"


def _unclaimed(run: RunDir, claimed: set[str]) -> Iterator[str]:
    for path in sorted(run.root.rglob("shard-*.parquet")):
        name = path.relative_to(run.root).as_posix()
        if name not in claimed and not is_attempt(path):
            yield f"{name}: has no manifest, so its shard is unfinished; `rlaif resume` makes it"


def _datasets(run: RunDir, hashes: dict[str, str]) -> Iterator[str]:
    manifest = load_dataset(run)
    if manifest is None:
        if (run.dataset / "manifest.json").exists():
            yield "dataset/manifest.json: not a dataset manifest"
        return
    for info in manifest.sets.values():
        yield from _file(run, info.path, info.sha256, hashes)
        if hashes.get(info.path) != info.sha256:
            continue
        yield from _inputs(info.path, info.inputs, hashes)
        left_out = sum(info.reasons.values())
        if info.rows - info.from_parent + left_out != info.candidates:
            yield f"{info.path}: kept and left-out rows do not add up to {info.candidates}"
        yield from _whole(_set_rows(run, manifest, info.path, info.rows), info.path)


def _set_rows(run: RunDir, manifest: DatasetManifest, path: str, rows: int) -> Iterator[str]:
    table = _columns(run.root / path, "row_id", "run_id")
    if table.num_rows != rows:
        yield f"{path}: {table.num_rows} rows, but its manifest says {rows}"
    if repeated := table.num_rows - len(table["row_id"].unique()):
        yield f"{path}: {repeated} row ids repeat"
    foreign = sum(run_id != run.run_id for run_id in table["run_id"].to_pylist())
    if foreign and manifest.parent is None:
        yield f"{path}: {foreign} rows of another run, although it has no parent"


def _training(run: RunDir, hashes: dict[str, str]) -> Iterator[str]:
    for folder in TRAININGS:
        result = read_json(run.training(folder) / "result.json")
        if result is None:
            continue
        path = f"dataset/{learns_from(result.get('method', folder))}.parquet"
        yield from _weights(run, f"training/{folder}", result.get("files"), hashes)
        if result.get("dataset_sha256") != hashes.get(path):
            yield f"training/{folder}: was trained on another version of {path}"
        # A method that takes feedback reads all that there is.
        expected = hashes.get(FEEDBACK, "") if takes_feedback(result.get("method", "")) else ""
        if result.get("feedback_sha256", "") != expected:
            yield f"training/{folder}: was trained on another version of {FEEDBACK}"


def _weights(run: RunDir, folder: str, files: Any, hashes: dict[str, str]) -> Iterator[str]:
    """Problems of a trained model, whose files are known from the moment it was saved."""
    try:
        expected = TypeAdapter(dict[str, str]).validate_python(files or {})
        check_inside(*expected)
    except ValueError:
        yield f"{folder}/result.json: names files that no training wrote"
        return
    for name, sha256 in expected.items():
        path = f"{folder}/model/{name}"
        if not is_plain_file(run.root / path):
            yield f"{path}: missing, although the training saved it"
        elif _hash(run, path, hashes) != sha256:
            yield f"{path}: damaged or changed since the training saved it"


def _parse(path: Path) -> Manifest | None:
    try:
        return Manifest.from_json(plain_bytes(path).decode("utf-8"))
    except (OSError, ValueError):
        return None
