"""Prompt sets: the sources of a recipe in, PromptRow and their shards out.

Equal conversations are one prompt, in whichever file they are: the row id is a hash of the
messages. Rows stream, and the ids by which duplicates are recognized are in a temporary file.

`heldout.check_prompts` reads all files before a run folder exists, so that a broken line on page
ninety costs nothing. `write_prompt_shards` then cuts the prompts into the shards of the run.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from pipeline.config.prompts import PromptSource
from pipeline.data.id_set import IdSet
from pipeline.data.prompt_lines import parse_line
from pipeline.data.prompt_sources import read_source
from pipeline.errors import DataError
from pipeline.ids import prompt_id, text_hash, uniform
from pipeline.records import PromptRow
from pipeline.store.files import read_json, write_json
from pipeline.store.shards import ShardCounts, load_manifest, write_shard


def prompt_rows(sources: Sequence[PromptSource], run_id: str = "") -> Iterator[PromptRow]:
    """One row per line of the sources, repeats included. Raises DataError as `read_source` and
    `parse_line` do.
    """
    for source in sources:
        for name, number, line in read_source(source):
            messages, tags = parse_line(line, f"{name}, line {number}")
            yield PromptRow(
                row_id=prompt_id(messages),
                run_id=run_id,
                messages=messages,
                source=name,
                source_index=number,
                tags=tags,
            )


def read_prompts(
    sources: Sequence[PromptSource],
    *,
    limit: int | None = None,
    seed: int = 0,
    run_id: str = "",
    exclude: Container[str] = (),
) -> Iterator[PromptRow]:
    """The prompts of the sources in order, each once. Lazy: opens none before the first row.

    Args:
        limit: at most this many, drawn by seed: those with the smallest seeded hashes, so that
            neither the order of the sources nor additional prompts reshuffle the draw.
        exclude: row ids to leave out, such as prompts that an earlier version has.

    Raises:
        DataError: a line that cannot be used; names file and line.
    """
    if limit is None:
        yield from _unique(sources, run_id, exclude)
        return

    def draw(row: PromptRow) -> tuple[float, str]:
        return uniform("prompt limit", seed, row.row_id), row.row_id

    draws = IdSet()
    for number, identity in map(draw, _unique(sources, run_id, exclude)):
        draws.add(identity, number)
    last = draws.nth(limit)
    yield from (r for r in _unique(sources, run_id, exclude) if last is None or draw(r) <= last)


def write_prompt_shards(
    root: Path,
    folder: str,
    rows: Iterable[PromptRow],
    shard_size: int,
    key: str,
    later: Iterable[Iterable[PromptRow]] = (),
    *,
    may_be_none: bool = False,
) -> range:
    """Cut prompts into shards below `root`/`folder`, unless those of this key are there. Returns
    their indices.

    `complete.json` is written last and says how many shards belong together. A run keeps the
    prompts it began with: `rows` is not read when every shard is present and whole.

    Args:
        later: the prompts of later draws, each of which begins a shard; see `add_prompt_shards`.
        may_be_none: write the mark alone where there is no prompt.

    Raises:
        DataError: no prompts, unless there may be none; or a shard was lost and the prompt files
            have changed since.
        StoreError: the disk is full.
    """
    mark = root / folder / "complete.json"
    complete = read_json(mark) or {}
    complete = complete if complete.get("key") == key else {}
    known = complete.get("shards")
    if known == []:
        return range(0)
    known = known if isinstance(known, list) else []
    if known and all(load_manifest(root, folder, index) for index in range(len(known))):
        return range(len(known))
    digests: list[str] = []
    for batch in chain.from_iterable(_batches(draw, shard_size) for draw in chain([rows], later)):
        index = len(digests)
        digests.append(text_hash(*(row.row_id for row in batch)))
        if known and known[: index + 1] != digests:
            raise _changed(folder)
        counts = ShardCounts(expected=len(batch))
        write_shard(root, folder, index, batch, PromptRow, key=key, counts=counts)
    if not digests and not may_be_none:
        raise DataError(f"no prompts for '{folder}'; add prompts to the files of the recipe")
    if known and len(digests) < len(known):
        raise _changed(folder)
    _remove_further_shards(root / folder, len(digests))
    write_json(mark, {**complete, "key": key, "shards": digests})
    return range(len(digests))


def add_prompt_shards(
    root: Path, folder: str, rows: Iterable[PromptRow], shard_size: int, draw: int
) -> range:
    """Write further prompts into shards after the finished ones. Returns
    the indices of those added.

    Args:
        draw: how many prompts were asked for; the mark keeps it, to build the shards again.

    Raises:
        StoreError: the disk is full.
    """
    mark = root / folder / "complete.json"
    complete = read_json(mark) or {}
    digests = list(complete.get("shards", ()))
    start = len(digests)
    for batch in _batches(rows, shard_size):
        counts, key = ShardCounts(expected=len(batch)), complete["key"]
        index = len(digests)
        write_shard(root, folder, index, batch, PromptRow, key=key, counts=counts)
        digests.append(text_hash(*(row.row_id for row in batch)))
    _remove_further_shards(root / folder, len(digests))
    first = complete.get("first_shards", start)
    draws = [*complete.get("draws", ()), draw]
    write_json(mark, {**complete, "shards": digests, "first_shards": first, "draws": draws})
    return range(start, len(digests))


def later_draws(root: Path, folder: str) -> list[int]:
    """How many prompts each draw after the first asked for."""
    return list((read_json(root / folder / "complete.json") or {}).get("draws", ()))


def first_shards(root: Path, folder: str) -> int:
    """Number of shards of the first draw; of all shards where there was one draw."""
    complete = read_json(root / folder / "complete.json") or {}
    return int(complete.get("first_shards", len(complete.get("shards", ()))))


def draw_prompts(
    sources: Sequence[PromptSource],
    sizes: Iterable[int],
    *,
    seed: int,
    run_id: str,
    exclude: Iterable[str],
) -> Iterator[list[PromptRow]]:
    """One list of prompts for each size, drawn as `limit` draws them; no prompt is in two lists.

    Raises:
        DataError: a line that cannot be used.
    """
    known = IdSet(exclude)
    for size in sizes:
        rows = list(read_prompts(sources, limit=size, seed=seed, run_id=run_id, exclude=known))
        for row in rows:
            known.add(row.row_id)
        yield rows


def _batches(rows: Iterable[PromptRow], size: int) -> Iterator[list[PromptRow]]:
    stream = iter(rows)
    while batch := list(islice(stream, size)):
        yield batch


def _changed(folder: str) -> DataError:
    return DataError(
        f"a shard of '{folder}' is damaged and the prompt files have changed since the run began, "
        "so it cannot be rebuilt; start a new run"
    )


def _unique(
    sources: Sequence[PromptSource], run_id: str, exclude: Container[str]
) -> Iterator[PromptRow]:
    seen = IdSet()
    for row in prompt_rows(sources, run_id):
        if row.row_id not in exclude and seen.add(row.row_id):
            yield row


def _remove_further_shards(folder: Path, num_shards: int) -> None:
    """Remove the shards of an interrupted attempt that had more prompts."""
    for path in folder.glob("shard-*.*"):
        if int(path.stem.removeprefix("shard-")) >= num_shards:
            path.unlink()
