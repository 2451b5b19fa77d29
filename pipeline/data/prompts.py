"""Prompt sets: JSON Lines files in, PromptRow and their shards out.

Equal conversations are one prompt, in whichever file they are: the row id is a hash of the
messages. A held-out prompt must differ from all others by more than white space at the ends or the
Unicode form. Everything streams; what stays in memory is 12 to 36 bytes a prompt, to see duplicates,
and as many for each of the two sets when there are held-out ones.

`check_prompts` reads all files before a run folder exists, so that a broken line on page ninety
costs nothing. `write_prompt_shards` then cuts the prompts into the shards of the run.
"""

import heapq
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.data.id_set import IdSet
from pipeline.data.prompt_lines import display_path, parse_line, read_lines
from pipeline.errors import DataError
from pipeline.ids import conversation_key, row_id, text_hash, uniform
from pipeline.records import PromptRow
from pipeline.store.files import read_json, write_json
from pipeline.store.shards import Manifest, ShardCounts, load_manifest, write_shard
from pipeline.types import Messages


@dataclass(frozen=True)
class PromptCounts:
    """What the files of a recipe hold."""

    train: int = 0
    heldout: int = 0
    train_duplicates: int = 0
    """Lines that repeat an earlier prompt; read once."""
    heldout_duplicates: int = 0


def prompt_id(messages: Messages) -> str:
    """Row id of a prompt: its messages and nothing else."""
    return row_id("prompt", [message.as_dict() for message in messages])


def check_prompts(train: Sequence[Path], heldout: Sequence[Path] = ()) -> PromptCounts:
    """Read all files to the end and count their prompts; writes nothing.

    Raises:
        DataError: a line that cannot be used, a set without prompts, or a held-out prompt that is
            also trained on; names file and line.
    """
    trained, held, keys = IdSet(), IdSet(), IdSet()
    counts = {"train": 0, "heldout": 0}
    for name, files, seen in (("train", train, trained), ("heldout", heldout, held)):
        for row in _lines(files):
            counts[name] += 1
            if heldout and name == "train":
                keys.add(conversation_key(row.messages))
            if name == "heldout" and conversation_key(row.messages) in keys:
                raise _also_trained(row, train)
            seen.add(row.row_id)
        if files and not len(seen):
            raise DataError(f"no prompts in {', '.join(map(str, files))}; add at least one line")
    return PromptCounts(
        len(trained), len(held), counts["train"] - len(trained), counts["heldout"] - len(held)
    )


def read_prompts(
    files: Sequence[Path],
    *,
    limit: int | None = None,
    seed: int = 0,
    run_id: str = "",
    exclude: Container[str] = (),
) -> Iterator[PromptRow]:
    """The prompts of files in order, each once; no file is opened before the first is asked for.

    Args:
        limit: this many at most, drawn by seed: those with the smallest seeded hashes, so that
            neither the order of the files nor further prompts reshuffle the draw.
        exclude: row ids to leave out, such as prompts that an earlier version has.

    Raises:
        DataError: see `check_prompts`.
    """
    drawn: Container[str] | None = None
    if limit is not None:
        ids = (row.row_id for row in _unique(files, run_id, exclude))
        smallest = heapq.nsmallest(limit, ((uniform("prompt limit", seed, i), i) for i in ids))
        drawn = {identity for _, identity in smallest}
    for row in _unique(files, run_id, exclude):
        if drawn is None or row.row_id in drawn:
            yield row


def write_prompt_shards(
    root: Path, folder: str, rows: Iterable[PromptRow], shard_size: int, key: str
) -> list[Manifest]:
    """Cut prompts into shards below `root`/`folder`, or find the finished ones of the same key.

    `complete.json` is written last and says how many shards belong together. A run keeps the
    prompts it began with: `rows` is not read when all shards are there and whole.

    Raises:
        DataError: no prompts; or a shard was lost and the prompt files have changed since.
        StoreError: the disk is full.
    """
    mark = root / folder / "complete.json"
    complete = read_json(mark) or {}
    known: list[str] = complete["shards"] if complete.get("key") == key else []
    found = [load_manifest(root, folder, index) for index in range(len(known))]
    whole = [manifest for manifest in found if manifest is not None]
    if known and len(whole) == len(known):
        return whole
    manifests: list[Manifest] = []
    digests: list[str] = []
    for batch in _batches(rows, shard_size):
        index = len(digests)
        digests.append(text_hash(*(row.row_id for row in batch)))
        if known and known[: index + 1] != digests:
            raise _changed(folder)
        manifests.append(
            write_shard(
                root,
                folder,
                index,
                batch,
                PromptRow,
                key=key,
                counts=ShardCounts(expected=len(batch)),
            )
        )
    if not manifests:
        raise DataError(f"no prompts for '{folder}'; add prompts to the files of the recipe")
    if known and len(digests) < len(known):
        raise _changed(folder)
    _remove_further_shards(root / folder, len(manifests))
    write_json(mark, {"key": key, "shards": digests})
    return manifests


def _batches(rows: Iterable[PromptRow], size: int) -> Iterator[list[PromptRow]]:
    stream = iter(rows)
    while batch := list(islice(stream, size)):
        yield batch


def _changed(folder: str) -> DataError:
    return DataError(
        f"a shard of '{folder}' is damaged and the prompt files have changed since the run began, "
        "so it cannot be made again; start a new run"
    )


def _lines(files: Sequence[Path], run_id: str = "") -> Iterator[PromptRow]:
    for path in files:
        name = display_path(path)
        for number, line in read_lines(path):
            messages, tags = parse_line(line, f"{name}, line {number}")
            yield PromptRow(
                row_id=prompt_id(messages),
                run_id=run_id,
                messages=messages,
                source=name,
                source_index=number,
                tags=tags,
            )


def _unique(files: Sequence[Path], run_id: str, exclude: Container[str]) -> Iterator[PromptRow]:
    seen = IdSet()
    return (
        row for row in _lines(files, run_id) if seen.add(row.row_id) and row.row_id not in exclude
    )


def _also_trained(row: PromptRow, train: Sequence[Path]) -> DataError:
    key = conversation_key(row.messages)
    twin = next(other for other in _lines(train) if conversation_key(other.messages) == key)
    return DataError(
        f"{row.source}, line {row.source_index}: this held-out prompt is also trained on "
        f"({twin.source}, line {twin.source_index}), so its evaluation would mean nothing; "
        "remove it from one of the files"
    )


def _remove_further_shards(folder: Path, num_shards: int) -> None:
    """Shards of an attempt that was stopped and had more prompts."""
    for path in folder.glob("shard-*.*"):
        if int(path.stem.removeprefix("shard-")) >= num_shards:
            path.unlink()
