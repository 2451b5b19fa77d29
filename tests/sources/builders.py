"""Small files and rows for the label tests."""

import json
from pathlib import Path
from typing import Any

from pipeline.sources.config import PairsSource
from pipeline.sources.rows import Imported, LabeledRow, SourceRecord, labeled_row
from pipeline.types import user


def write_lines(path: Path, *records: Any) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def make_label(
    prompt: str = "Hi",
    chosen: str = "good",
    rejected: str = "bad",
    *,
    index: int = 1,
    source: str = "crowd",
    reason: str = "",
) -> LabeledRow:
    """A labeled pair with a one-turn prompt."""
    config = PairsSource(name=source, path=Path("labels.jsonl"))
    return labeled_row(config, index, (user(prompt),), chosen, rejected, reason=reason)


def make_import(name: str, num_rows: int) -> Imported:
    """A source of `num_rows` pairs, each with its own prompt."""
    rows = tuple(make_label(f"{name} {i}", index=i, source=name) for i in range(num_rows))
    record = SourceRecord(name, "human", "labels.jsonl", "", 1.0, num_rows, num_rows, 0)
    return Imported(rows, record)
