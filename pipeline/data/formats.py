"""Preference sets in the shapes that other programs read: JSON Lines, one pair a line.

    trl      {"prompt": [...], "chosen": [{assistant}], "rejected": [{assistant}]}, TRL's trainers
    kto      {"prompt": [...], "completion": [{assistant}], "label": bool}, two lines a pair
    openai   {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}

`trl` keeps `row_id` and `soft_label`, which its trainers leave alone. The others have no place for
a soft label: there each pair counts in full.
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


def write_format(preference: Path, target: Path, shape: Format) -> int:
    """Write `preference.parquet` as JSON Lines; returns the number of lines.

    Raises:
        DataError: not a preference set.
        StoreError: the disk is full.
    """
    names = pq.read_schema(preference).names
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(
            f"{preference} has no column {', '.join(missing)}, so it is not a preference set; "
            "give a run's dataset/preference.parquet"
        )
    count = 0

    def write(stream: Any) -> None:
        nonlocal count
        for line in _lines(preference, SHAPES[shape]):
            stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n")
            count += 1

    atomic_write(target, write)
    return count


def trl_lines(row: Line) -> Iterable[Line]:
    """One pair as TRL's conversational preference row."""
    yield {
        "prompt": row["messages"], "chosen": _reply(row["chosen"]),
        "rejected": _reply(row["rejected"]), "row_id": row["row_id"],
        "soft_label": row["soft_label"],
    }


def kto_lines(row: Line) -> Iterable[Line]:
    """One pair as a desirable and an undesirable completion."""
    for name, label in (("chosen", True), ("rejected", False)):
        yield {"prompt": row["messages"], "completion": _reply(row[name]), "label": label}


def openai_lines(row: Line) -> Iterable[Line]:
    """One pair as OpenAI's fine-tuning endpoint takes it."""
    yield {
        "input": {"messages": row["messages"], "tools": [], "parallel_tool_calls": True},
        "preferred_output": _reply(row["chosen"]),
        "non_preferred_output": _reply(row["rejected"]),
    }


SHAPES: dict[str, Callable[[Line], Iterable[Line]]] = {
    "trl": trl_lines, "kto": kto_lines, "openai": openai_lines,
}


def _lines(path: Path, shape: Callable[[Line], Iterable[Line]]) -> Iterator[Line]:
    for table in iter_tables(path):
        for row in table.select(COLUMNS).to_pylist():
            yield from shape(row)


def _reply(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
