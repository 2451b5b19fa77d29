"""Prompts from folders, CSV and Parquet: each row as the JSON line that a prompt file would have.

In:  a path of a recipe
Out: name, number and JSON line of each prompt

A table has a column `prompt`, or in Parquet `messages`; Parquet may have `tags`. Other columns are
left alone, since tables have them for other programs.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.paths import file_problem
from pipeline.data.prompt_lines import display_path, read_lines
from pipeline.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
COLUMNS = ("prompt", "messages", "tags")


def read_prompt_file(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Name, number of the line or row from 1, and JSON line of each prompt of a file or folder.

    Raises:
        DataError: the file or folder is missing, has nothing to read, or is damaged.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
        if not files:
            raise DataError(
                f"prompt folder {path} has no file that ends in {', '.join(SUFFIXES)}; add one, or "
                "correct the path"
            )
        for file in files:
            yield from read_prompt_file(file)
        return
    rows = {".csv": _csv_rows, ".parquet": _parquet_rows}.get(path.suffix)
    name = display_path(path)
    if rows is None:
        yield from ((name, number, line) for number, line in read_lines(path))
        return
    if problem := file_problem(path):
        raise DataError(f"prompt file {path} {problem}; check the path in the recipe")
    for number, row in rows(path):
        yield name, number, json.dumps(row).encode("ascii")


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        reader = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""), strict=True)
        _check_columns(path, reader.fieldnames or (), ("prompt",))
        for row in reader:
            if None in row:
                # Without this, the text would end at its first comma.
                raise DataError(
                    f"prompt file {path}, line {reader.line_num} has more values than the first "
                    'line has columns; write texts that have commas in "quotes"'
                )
            yield reader.line_num, {"prompt": row["prompt"]}
    except UnicodeDecodeError as error:
        raise DataError(
            f"prompt file {path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        ) from None
    except csv.Error as error:
        raise DataError(
            f"prompt file {path}, line {reader.line_num} is not CSV ({error}); correct its quotes"
        ) from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names, ("prompt", "messages"))
            number = 0
            for batch in file.iter_batches(columns=[n for n in names if n in COLUMNS]):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {key: value for key, value in row.items() if value is not None}
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0][:120]
        raise DataError(
            f"prompt file {path} cannot be read as Parquet ({reason}); write it again"
        ) from None


def _check_columns(path: Path, names: Any, needed: tuple[str, ...]) -> None:
    if not set(needed) & set(names):
        shown = ", ".join(map(str, names))[:120]
        if found := re.search(r"[;\t|]", names[0] if names else ""):
            raise DataError(
                f"prompt file {path} has {found[0]!r} between its columns, but commas are needed; "
                "save it with commas"
            )
        raise DataError(
            f"prompt file {path} has the columns {shown or 'none'}, but {' or '.join(needed)} is "
            "needed; rename the column with the prompts"
        )
