"""Label files line by line: JSON Lines or CSV, plain or gzip; every complaint names the line.

In:  a path that ends in .jsonl, .json, .csv or .tsv, with or without .gz
Out: (line number from 1, record) pairs

Does not: guess encodings. Everything is UTF-8, with or without a byte order mark.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import DataError

Record = dict[str, Any]

_LARGEST_FIELD = 1 << 24
"""Characters of one CSV field; Python's own limit of 128 Ki is below a long transcript."""
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_records(path: Path) -> Iterator[tuple[int, Record]]:
    """Records with their line numbers; the suffix tells the format.

    Raises:
        DataError: the file is missing, damaged, of another format, or a line is not a record.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in (".jsonl", ".json"):
        return _json_lines(path)
    if suffix in _DELIMITERS:
        return _csv_rows(path, _DELIMITERS[suffix])
    raise DataError(
        f"label file {path} ends in '{suffix}', but .jsonl, .csv or .tsv is needed (or one of them "
        "with .gz); rename or convert it"
    )


def text_field(record: Record, key: str, where: str) -> str:
    """A text value, stripped. Raises DataError when the key is missing or holds something else."""
    if key not in record:
        raise DataError(
            f"{where}: there is no '{key}' among {_shown(record)}; correct the column mapping"
        )
    value = record[key]
    if not isinstance(value, str):
        raise DataError(f"{where}: '{key}' holds {_type_name(value)}, but text is needed")
    return value.strip()


def tags_field(record: Record, key: str | None, where: str) -> tuple[str, ...]:
    """Tags from a list of texts, or from one text with commas; none when the key is not mapped."""
    value = record.get(key) if key else None
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise DataError(f"{where}: '{key}' must be a list of words, or words with commas between")
    return tuple(tag.strip() for tag in value if tag.strip())


def _json_lines(path: Path) -> Iterator[tuple[int, Record]]:
    with _open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number}: not JSON ({error}); each line must be one whole object"
                ) from None
            if not isinstance(record, dict):
                raise DataError(
                    f"{path}, line {number}: holds {_type_name(record)}, but each line must be an "
                    "object with names and values"
                )
            yield number, record


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, Record]]:
    limit = csv.field_size_limit(_LARGEST_FIELD)
    number = 0

    def counted(stream: TextIO) -> Iterator[str]:
        # The reader's own count lags behind when it raises.
        nonlocal number
        for line in stream:
            number += 1
            yield line

    try:
        with _open_text(path) as stream:
            reader = csv.DictReader(counted(stream), delimiter=delimiter, strict=True)
            names = reader.fieldnames or []
            if len(set(names)) < len(names):
                raise DataError(f"{path}, line 1: a column name repeats in {names}; rename one")
            for record in reader:
                # The record's last line: a quoted text may hold line breaks.
                if None in record or None in record.values():
                    raise DataError(
                        f"{path}, line {number}: the number of fields is not that of the "
                        f"header ({len(names)}); quote texts that hold '{delimiter}' or quotes"
                    )
                yield number, record
    except csv.Error as error:
        raise DataError(f"{path}, line {number}: {error}; correct the quoting") from None
    finally:
        csv.field_size_limit(limit)


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = gzip.open(raw) if packed else raw
            with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
                yield text
    except FileNotFoundError:
        raise DataError(f"label file {path} does not exist; check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"label file {path} is not UTF-8 ({error.reason}); convert it") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"label file {path} cannot be read ({error}); copy it anew") from None


def _shown(record: Record) -> str:
    names = [str(name) for name in record]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "no names at all"


def _type_name(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)
