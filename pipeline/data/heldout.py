"""Held-out prompts stay out: of what a run asks, of what it inherits, of the labels that it imports.

In:  the held-out files of a recipe, a run, the version of a data set that it goes on from
Out: the rows to hold out, or DataError in one line; the keys of all that is held out

Prompts are compared by `ids.conversation_key`: a line break at the end or another Unicode form does
not make a held-out prompt a new one. Row ids are left as they are.

Does not: find a held-out prompt that was reworded, or that is one turn of a longer conversation.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.config import RunConfig
from pipeline.config.paths import resolve_path
from pipeline.data.dataset import GROUP_ROWS, load_dataset, parent_run, set_path
from pipeline.data.id_set import IdSet
from pipeline.data.prompts import read_prompts
from pipeline.errors import DataError
from pipeline.ids import conversation_key
from pipeline.records import PromptRow
from pipeline.store.layout import RunDir
from pipeline.store.shards import read_rows, stage_manifests
from pipeline.types import Messages, messages_from

HELDOUT = "heldout"
"""Folder of the held-out shards below a run."""


def heldout_keys(run: RunDir, config: RunConfig) -> IdSet:
    """Keys of all held-out prompts: those that the run began with and those in the files now.

    Whether they are drawn for its evaluation does not matter: another night may draw them.

    Raises:
        DataError: a held-out file is missing or broken.
    """
    keys = IdSet(conversation_key(row.messages) for row in _stored(run, HELDOUT))
    for row in read_prompts(_files(config)):
        keys.add(conversation_key(row.messages))
    return keys


def not_trained_on(rows: Iterable[PromptRow], run: RunDir) -> Iterator[PromptRow]:
    """The same held-out rows; the run's own prompts must be on disk by then.

    Raises:
        DataError: the run asks one of them, or its parent's version has it: names file and line.
        StoreError: the parent's version is damaged.
    """
    asked = IdSet(conversation_key(row.messages) for row in _stored(run, "prompts"))
    parent = parent_run(run)
    inherited = version_keys(parent) if parent else IdSet()
    for row in rows:
        key = conversation_key(row.messages)
        if key in asked:
            raise DataError(
                f"{row.source}, line {row.source_index}: this held-out prompt is one that run "
                f"{run.run_id} trains on; the prompt files have changed since it began. Bring them "
                "back, or start a new run"
            )
        if parent is not None and key in inherited:
            raise _inherited(row, parent)
        yield row


def check_version(config: RunConfig, parent: RunDir) -> None:
    """Let a new version go on from this one only when none of its rows is held out.

    Raises:
        DataError: names file and line of the held-out prompt, and the run that has it.
        StoreError: the parent's version is damaged.
    """
    files = _files(config)
    inherited = version_keys(parent) if files else IdSet()
    for row in read_prompts(files):
        if conversation_key(row.messages) in inherited:
            raise _inherited(row, parent)


def version_keys(run: RunDir) -> IdSet:
    """Keys of all prompts that the rows of a run's data set have, imported ones included.

    Raises:
        StoreError: a file of the data set is missing or damaged.
    """
    manifest, keys, seen = load_dataset(run), IdSet(), IdSet()
    for name in manifest.sets if manifest else ():
        for prompt_id, messages in _conversations(set_path(run, name)):
            # Many rows have one prompt: hash it once.
            if seen.add(prompt_id):
                keys.add(conversation_key(messages))
    return keys


def _conversations(path: Path) -> Iterator[tuple[str, Messages]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=GROUP_ROWS, columns=["prompt_id", "messages"]):
            for prompt_id, turns in zip(*(column.to_pylist() for column in batch), strict=True):
                yield prompt_id, messages_from(turns)


def _inherited(row: PromptRow, parent: RunDir) -> DataError:
    return DataError(
        f"{row.source}, line {row.source_index}: this held-out prompt is in the data set of run "
        f"{parent.run_id}, whose rows the next version has too, so its evaluation would mean "
        "nothing; hold out other prompts, or give the recipe another name, which begins with an "
        "empty data set"
    )


def _stored(run: RunDir, folder: str) -> Iterator[PromptRow]:
    for manifest in stage_manifests(run.root, folder):
        yield from read_rows(run.root, manifest)


def _files(config: RunConfig) -> Sequence[Path]:
    return [resolve_path(path) for path in config.prompts.heldout]
