"""Label files line by line: JSON Lines or CSV, plain or gzip; every complaint names the line.

In:  a path that ends in .jsonl, .json, .csv or .tsv, with or without .gz
Out: one Line per record, with its fields checked when they are read

Does not: guess encodings. Everything is UTF-8, with or without a byte order mark.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import DataError
from pipeline.sources.conversations import BROKEN_TEXT, is_unicode, parse_messages
from pipeline.types import Messages

_LARGEST_FIELD = 1 << 24
"""Characters of one CSV field; Python's own limit of 128 Ki is below a long transcript."""
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TYPE_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "nothing",
}


@dataclass(frozen=True)
class Line:
    """One record of a label file."""

    path: Path
    number: int
    """The record's last line in the file, from 1."""
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}, line {self.number}"

    def error(self, problem: str) -> DataError:
        """A DataError that names file and line."""
        return DataError(f"{self.where}: {problem}")

    def text(self, key: str) -> str:
        """A text value, stripped. Raises DataError when it is missing or not text."""
        if key not in self.values:
            names = list(self.values)
            listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "no names at all"
            raise self.error(f"there is no '{key}' among {listed}; correct the column mapping")
        value = self.values[key]
        if not isinstance(value, str):
            raise self.error(f"'{key}' holds {_type_name(value)}, but text is needed")
        return value.strip()

    def word(self, key: str | None) -> str:
        """A value as text, such as a name; empty when it is missing or the key is not mapped."""
        word = str(self.values.get(key) or "") if key else ""
        if not is_unicode(word):
            raise self.error(f"'{key}' is {BROKEN_TEXT}; write the character itself")
        return word

    def tags(self, key: str | None) -> tuple[str, ...]:
        """Tags from a list of texts or from one text with commas; none when not mapped."""
        value = self.values.get(key) if key else None
        if value is None:
            return ()
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
            raise self.error(f"'{key}' must be a list of words, or words with commas between")
        if not all(map(is_unicode, value)):
            raise self.error(f"'{key}' is {BROKEN_TEXT}; write the character itself")
        return tuple(tag.strip() for tag in value if tag.strip())

    def messages(self, key: str) -> Messages:
        """The conversation in one column. Raises DataError when it is none."""
        return parse_messages(self.values[key], f"{self.where}: '{key}'")

    def conversation(self) -> Messages:
        """The conversation in `messages`, else in `prompt`. Raises DataError without either."""
        for key in ("messages", "prompt"):
            if key in self.values:
                return self.messages(key)
        raise self.error("there is neither 'prompt' nor 'messages'; add one")


def read_lines(path: Path) -> Iterator[Line]:
    """The records of a label file; the suffix tells the format.

    Raises:
        DataError: the file is missing, damaged, of another format, or a line is not a record.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in (".jsonl", ".json"):
        return _json_lines(path)
    if suffix in _DELIMITERS:
        return _csv_lines(path, _DELIMITERS[suffix])
    raise DataError(
        f"label file {path} ends in '{suffix}', but .jsonl, .csv or .tsv is needed (or one of them "
        "with .gz); rename or convert it"
    )


def _json_lines(path: Path) -> Iterator[Line]:
    with _open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number}: not JSON ({error}); each line must be one whole object"
                ) from None
            if not isinstance(values, dict):
                raise DataError(
                    f"{path}, line {number}: holds {_type_name(values)}, but each line must be an "
                    "object with names and values"
                )
            yield Line(path, number, values)


def _csv_lines(path: Path, delimiter: str) -> Iterator[Line]:
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
            for values in reader:
                if None in values or None in values.values():
                    raise DataError(
                        f"{path}, line {number}: the number of fields is not that of the "
                        f"header ({len(names)}); quote texts that hold '{delimiter}' or quotes"
                    )
                yield Line(path, number, values)
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
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
                yield text
    except FileNotFoundError:
        raise DataError(f"label file {path} does not exist; check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"label file {path} is not UTF-8 ({error.reason}); convert it") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"label file {path} cannot be read ({error}); copy it again") from None


def _type_name(value: Any) -> str:
    return _TYPE_NAMES.get(type(value), type(value).__name__)
