"""Preference sets in the shapes that other programs read, as JSON Lines.

    trl      {"prompt": [...], "chosen": [{assistant}], "rejected": [{assistant}]}, TRL's trainers
    kto      {"prompt": [...], "completion": [{assistant}], "label": bool}, two lines a pair; also
             for `feedback.parquet`, a line each
    openai   {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}

`trl` keeps `row_id` and `soft_label`, which its trainers leave alone. The others have no place for
a soft label or a weight: there each row counts in full.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from pipeline.data.dataset import iter_tables
from pipeline.errors import DataError
from pipeline.store.files import atomic_write

Format = Literal["trl", "kto", "openai"]
Line = dict[str, Any]
COLUMNS = ("row_id", "messages", "chosen", "rejected", "soft_label")
FEEDBACK_COLUMNS = ("messages", "completion", "label")


def write_format(dataset: Path, target: Path, shape: Format) -> int:
    """Write `preference.parquet`, or `feedback.parquet` as `kto`; returns the number of lines.

    Raises:
        DataError: not such a set, or feedback in a shape that holds pairs.
        StoreError: the disk is full.
    """
    names = pq.read_schema(dataset).names
    lines, columns = SHAPES[shape], COLUMNS
    if shape == "kto" and set(FEEDBACK_COLUMNS) <= set(names):
        lines, columns = feedback_lines, FEEDBACK_COLUMNS
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(
            f"{dataset} has no column {', '.join(missing)}, so it is not a preference set; "
            "give a run's dataset/preference.parquet"
        )
    count = 0

    def write(stream: Any) -> None:
        nonlocal count
        for line in _lines(dataset, columns, lines):
            stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n")
            count += 1

    atomic_write(target, write)
    return count


def trl_lines(row: Line) -> Iterable[Line]:
    """One pair as TRL's conversational preference row."""
    yield {
        "prompt": row["messages"],
        "chosen": _reply(row["chosen"]),
        "rejected": _reply(row["rejected"]),
        "row_id": row["row_id"],
        "soft_label": row["soft_label"],
    }


def kto_lines(row: Line) -> Iterable[Line]:
    """One pair as a desirable and an undesirable completion."""
    for name, label in (("chosen", True), ("rejected", False)):
        yield {"prompt": row["messages"], "completion": _reply(row[name]), "label": label}


def feedback_lines(row: Line) -> Iterable[Line]:
    """One reply with feedback as the completion that it is."""
    yield {
        "prompt": row["messages"],
        "completion": _reply(row["completion"]),
        "label": row["label"],
    }


def openai_lines(row: Line) -> Iterable[Line]:
    """One pair as OpenAI's fine-tuning endpoint takes it."""
    yield {
        "input": {"messages": row["messages"], "tools": [], "parallel_tool_calls": True},
        "preferred_output": _reply(row["chosen"]),
        "non_preferred_output": _reply(row["rejected"]),
    }


SHAPES: dict[str, Callable[[Line], Iterable[Line]]] = {
    "trl": trl_lines,
    "kto": kto_lines,
    "openai": openai_lines,
}


def _lines(
    path: Path, columns: tuple[str, ...], shape: Callable[[Line], Iterable[Line]]
) -> Iterator[Line]:
    for table in iter_tables(path):
        for row in table.select(columns).to_pylist():
            yield from shape(row)


def _reply(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
