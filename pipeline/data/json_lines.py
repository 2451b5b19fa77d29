"""The preference set of a run in the shapes that other programs read, as JSON Lines.

    trl      {"prompt": [...], "chosen": [{assistant}], "rejected": [{assistant}]}, as the trainers
             of TRL read it; `row_id` and `soft_label` are extra columns, which they ignore
    kto      {"prompt": [...], "completion": [{assistant}], "label": bool}: two lines per pair, and
             one per reply of the feedback set, where the run has one
    openai   {"input": {"messages": [...]}, "preferred_output": [...],
              "non_preferred_output": [...]}, as OpenAI's fine-tuning endpoint reads it

Does not: keep soft labels and weights in `kto` and `openai`, where each line counts in full.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.data.dataset import iter_tables, load_dataset, set_path
from pipeline.errors import DataError
from pipeline.store.files import atomic_write
from pipeline.store.layout import RunDir

Line = dict[str, Any]


def export_lines(run: RunDir, target: Path, shape: str) -> int:
    """Write the preference set of a run in a shape of `SHAPES`; returns the number of lines.

    Raises:
        DataError: the run has no preference set, or the target exists.
        StoreError: the data set is damaged, or the disk is full.
    """
    manifest = load_dataset(run)
    if manifest is None or "preference" not in manifest.sets:
        raise DataError(
            f"run {run.run_id} has no preference set to export; `rlaif resume {run.run_id}` "
            "finishes a run that was stopped"
        )
    if target.exists():
        raise DataError(f"{target} exists already; remove it or choose another name")
    sets = {"preference": SHAPES[shape]}
    if shape == "kto" and "feedback" in manifest.sets:
        sets["feedback"] = _feedback_lines
    lines = (
        line
        for name, make_lines in sets.items()
        for table in iter_tables(set_path(run, name))
        for row in table.to_pylist()
        for line in make_lines(row)
    )
    count = 0

    def write(stream: BinaryIO) -> None:
        nonlocal count
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n")
            count += 1

    atomic_write(target, write)
    return count


def _trl_lines(row: Line) -> Iterator[Line]:
    yield {
        "prompt": row["messages"],
        "chosen": _reply(row["chosen"]),
        "rejected": _reply(row["rejected"]),
        "row_id": row["row_id"],
        "soft_label": row["soft_label"],
    }


def _kto_lines(row: Line) -> Iterator[Line]:
    for name, label in (("chosen", True), ("rejected", False)):
        yield {"prompt": row["messages"], "completion": _reply(row[name]), "label": label}


def _feedback_lines(row: Line) -> Iterator[Line]:
    completion = _reply(row["completion"])
    yield {"prompt": row["messages"], "completion": completion, "label": row["label"]}


def _openai_lines(row: Line) -> Iterator[Line]:
    yield {
        "input": {"messages": row["messages"], "tools": [], "parallel_tool_calls": True},
        "preferred_output": _reply(row["chosen"]),
        "non_preferred_output": _reply(row["rejected"]),
    }


SHAPES: dict[str, Callable[[Line], Iterable[Line]]] = {
    "trl": _trl_lines,
    "kto": _kto_lines,
    "openai": _openai_lines,
}


def _reply(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
