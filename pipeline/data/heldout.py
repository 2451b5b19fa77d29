"""Where a held-out prompt is kept out of training: five guards, all of them here.

    guard             called from                         what it compares the held-out prompts with
    check_prompts     run/start.py, before a run exists   the training prompts of the recipe
    check_version     run/nightly.py, before a new night  the data set version that it would extend
    not_trained_on    run/passes.py, before evaluation    the prompts that the run was given at its
                                                          start, and the version that it extends
    not_held_out      run/passes.py, before a later draw  the prompts that the run draws later
    heldout_keys      sources/mix_into_run.py             each label that people gave: a row about a
                                                          held-out prompt is dropped and counted

The first four raise DataError with file and line of the prompt, because the recipe is wrong; the
last one drops rows, because a label file may cover more than a recipe trains on. One guard is not
enough: prompt files can change after a run began, a new night inherits rows whose prompts were not
held out when they were made, and label files bring prompts of their own.

Prompts are compared by `ids.conversation_key`: a trailing line break or another Unicode form does
not make a held-out prompt a new one.

Does not: find a held-out prompt that was reworded, or that is one turn of a longer conversation.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.config import RunConfig
from pipeline.config.prompts import PromptSource
from pipeline.data.dataset import iter_tables, load_dataset, parent_run, set_path
from pipeline.data.id_set import IdSet
from pipeline.data.prompts import prompt_rows
from pipeline.errors import DataError
from pipeline.ids import conversation_key
from pipeline.records import PromptRow
from pipeline.store.layout import RunDir
from pipeline.store.shards import stage_rows
from pipeline.types import messages_from

HELDOUT = "heldout"
"""Folder of the held-out shards below a run."""


@dataclass(frozen=True)
class PromptCounts:
    """The different prompts in the files of a recipe."""

    train: int = 0
    heldout: int = 0
    shapes: frozenset[tuple[str, ...]] = field(default=frozenset(), compare=False)
    """The different sequences of roles."""
    tags: frozenset[str] = field(default=frozenset(), compare=False)
    """Tags of the held-out prompts."""


def check_prompts(
    train: Sequence[PromptSource], heldout: Sequence[PromptSource] = ()
) -> PromptCounts:
    """Read all prompt sources of a recipe to the end and count their prompts; writes nothing.

    Raises:
        DataError: a line that cannot be used, a set without prompts, or a held-out prompt that is
            also trained on; names file and line.
    """
    shapes: set[tuple[str, ...]] = set()
    tags: set[str] = set()
    num_trained = num_held = 0
    trained, held_ids = IdSet(), IdSet()
    # The held-out ones first: they are few, and those to train on may be millions.
    held: dict[str, str] = {}
    for row in prompt_rows(heldout):
        num_held += held_ids.add(row.row_id)
        tags.update(row.tags)
        shapes.add(tuple(message.role for message in row.messages))
        held.setdefault(conversation_key(row.messages), _place(row))
    for row in prompt_rows(train):
        num_trained += trained.add(row.row_id)
        shapes.add(tuple(message.role for message in row.messages))
        if held and (place := held.get(conversation_key(row.messages))):
            raise DataError(
                f"{place}: this held-out prompt is also trained on ({_place(row)}), so its "
                "evaluation would mean nothing; remove it from one of the files"
            )
    for sources, number in ((train, num_trained), (heldout, num_held)):
        if sources and not number:
            raise DataError(f"no prompts in {', '.join(map(str, sources))}; add at least one line")
    return PromptCounts(num_trained, num_held, frozenset(shapes), frozenset(tags))


def check_version(config: RunConfig, parent: RunDir) -> None:
    """Refuse to extend the data set of `parent` when it contains a held-out prompt of the recipe.

    Raises:
        DataError: names file and line of the held-out prompt, and the run that has it.
        StoreError: the parent's data set is damaged.
    """
    inherited = version_keys(parent) if config.prompts.heldout else set()
    for row in prompt_rows(config.prompts.heldout):
        if conversation_key(row.messages) in inherited:
            raise _inherited(row, parent)


def not_trained_on(rows: Iterable[PromptRow], run: RunDir) -> Iterator[PromptRow]:
    """Pass held-out rows through; the run's own prompts must be on disk by then.

    Raises:
        DataError: the run trains on one of them, or its parent's data set contains it.
        StoreError: the parent's data set is damaged.
    """
    # The held-out prompts are few; those trained on may be millions, and are not kept.
    held = [(conversation_key(row.messages), row) for row in rows]
    keys = {key for key, _ in held}
    trained = {key for key in _stored_keys(run, "prompts") if key in keys}
    parent = parent_run(run)
    inherited = version_keys(parent) if parent else set()
    for key, row in held:
        if key in trained:
            raise DataError(
                f"{_place(row)}: this held-out prompt is one that run {run.run_id} trains on; the "
                "prompt files have changed since it began. Restore them, or start a new run"
            )
        if parent is not None and key in inherited:
            raise _inherited(row, parent)
        yield row


def not_held_out(rows: Iterable[PromptRow], run: RunDir) -> Iterator[PromptRow]:
    """Pass training rows through that a run draws later; its held-out prompts are on disk by then.

    Raises:
        DataError: the run holds out one of them.
    """
    held = {*_stored_keys(run, HELDOUT)}
    for row in rows:
        if conversation_key(row.messages) in held:
            raise DataError(
                f"{_place(row)}: run {run.run_id} holds this prompt out; the prompt files have "
                "changed since it began. Restore them, or start a new run"
            )
        yield row


def heldout_keys(run: RunDir, config: RunConfig) -> set[str]:
    """Keys of all held-out prompts: those that the run began with and those in the files now.

    Includes prompts that this run's evaluation did not draw: another night may draw them.

    Raises:
        DataError: a held-out file is missing or broken.
    """
    rows = prompt_rows(config.prompts.heldout)
    return {*_stored_keys(run, HELDOUT)} | {conversation_key(row.messages) for row in rows}


def version_keys(run: RunDir) -> set[str]:
    """Keys of all prompts in the rows of a run's data set, imported rows included.

    Raises:
        StoreError: a file of the data set is missing or damaged.
    """
    manifest = load_dataset(run)
    keys: dict[str, str] = {}
    for name in manifest.sets if manifest else ():
        for table in iter_tables(set_path(run, name), ["prompt_id", "messages"]):
            for prompt_id, turns in zip(*(c.to_pylist() for c in table), strict=True):
                # Many rows share a prompt: hash it once.
                if prompt_id not in keys:
                    keys[prompt_id] = conversation_key(messages_from(turns))
    return set(keys.values())


def _inherited(row: PromptRow, parent: RunDir) -> DataError:
    return DataError(
        f"{_place(row)}: this held-out prompt is in the data set of run {parent.run_id}, whose "
        "rows the next version inherits, so its evaluation would mean nothing; hold out other "
        "prompts, or give the recipe another name, which starts an empty data set"
    )


def _place(row: PromptRow) -> str:
    return f"{row.source}, line {row.source_index}"


def _stored_keys(run: RunDir, folder: str) -> Iterator[str]:
    yield from (conversation_key(row.messages) for row in stage_rows(run.root, folder))
