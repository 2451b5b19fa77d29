"""Label files record by record: JSON Lines, a JSON array, CSV or Parquet, plain or gzip.

In:  a path that ends in .jsonl, .json, .csv, .tsv or .parquet, with or without .gz
Out: one Line per record, with its fields checked when they are read; every complaint names the line

Does not: guess encodings. Everything is UTF-8, with or without a byte order mark.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.paths import file_problem, shown_path
from pipeline.errors import DataError
from pipeline.sources.conversations import BROKEN_TEXT, is_unicode, parse_messages
from pipeline.sources.stored_text import UnusableRow, unique_names
from pipeline.types import Message, Messages, Role

_LARGEST_FIELD = 1 << 24
"""Characters of one CSV field; Python's own limit of 128 Ki is below a long transcript."""
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_CONTEXTS = {
    **dict.fromkeys(("tools", "functions"), "tools are offered"),
    **dict.fromkeys(("tool_calls", "function_call"), "a tool call"),
    **dict.fromkeys(("image", "images"), "an image"),
    **dict.fromkeys(("video", "videos", "audio", "audios"), "audio or video"),
}
"""Columns that change what the right reply is and that no text can carry."""
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
    """The record's last line in the file (first line in a JSON array, row in Parquet), from 1."""
    values: dict[str, Any]
    read: set[str] = field(default_factory=set)
    """Names of the columns that somebody asked for."""

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}, line {self.number}"

    def error(self, problem: str) -> DataError:
        """A DataError that names file and line."""
        return DataError(f"{self.where}: {problem}")

    def value(self, key: str) -> Any:
        """The value of a column, or of one inside it (`input.messages`).

        Raises:
            DataError: there is no such column.
        """
        self.read.add(key)
        if key in self.values:
            return self.values[key]
        inner: Any = self.values
        parts = key.split(".")
        self.read.add(parts[0])
        for part in parts:
            if inner is None:
                return None
            if not isinstance(inner, dict) or part not in inner:
                names = list(self.values)
                listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
                raise self.error(
                    f"there is no '{key}' among {listed or 'no names at all'}; correct the "
                    "column mapping"
                )
            inner = inner[part]
        return inner

    def text(self, key: str) -> str:
        """A text value, stripped.

        Raises:
            UnusableRow: it is null. DataError: it is missing, or not text.
        """
        value = self.value(key)
        if value is None or value != value:
            raise UnusableRow(f"no {key.rpartition('.')[2]} (null)")
        if not isinstance(value, str):
            raise self.error(f"'{key}' holds {_type_name(value)}, but text is needed")
        return value.strip()

    def get(self, key: str) -> Any:
        """The value of a column; None when it is missing."""
        self.read.add(key)
        return self.values.get(key)

    def optional(self, key: str | None) -> Any:
        """A value; None when the column is missing, empty or not mapped."""
        value = self.get(key) if key else None
        return None if value == "" or value != value else value

    def word(self, key: str | None) -> str:
        """A value as text, such as a name; empty when it is missing or the key is not mapped."""
        value = self.optional(key)
        word = "" if value is None else str(value)
        if not is_unicode(word):
            raise self.error(f"'{key}' is {BROKEN_TEXT}; write the character itself")
        return word

    def tags(self, key: str | None) -> tuple[str, ...]:
        """Tags from a list of texts or from one text with commas; none when not mapped."""
        value = self.optional(key)
        if value is None:
            return ()
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
            raise self.error(f"'{key}' must be a list of words, or words with commas between")
        if not all(map(is_unicode, value)):
            raise self.error(f"'{key}' is {BROKEN_TEXT}; write the character itself")
        return tuple(tag.strip() for tag in value if tag.strip())

    def messages(self, key: str, role: Role = "user") -> Messages:
        """The turns in one column; a bare text is a turn of `role`.

        Raises:
            UnusableRow: a turn is more than a text. DataError: there are no turns.
        """
        value = self.value(key)
        if role == "assistant" and not isinstance(value, str | list | dict):
            self.text(key)
        return parse_messages(value, f"{self.where}: '{key}'", role)

    def reply(self, key: str) -> str:
        """One assistant turn in a column. Raises UnusableRow when there are more or others."""
        turns = self.messages(key, "assistant")
        if [turn.role for turn in turns] != ["assistant"]:
            raise UnusableRow(f"'{key}' is more than one reply")
        return turns[0].content

    def conversation(self) -> Messages:
        """The conversation in `messages`, else in `prompt`, after a text in `system`.

        Raises DataError without either.
        """
        self.check_context()
        for key in ("messages", "conversations", "prompt"):
            if key in self.values:
                turns = self.messages(key)
                system = self.text("system") if self.optional("system") is not None else ""
                if not system or turns[0] == Message("system", system):
                    return turns
                if turns[0].role == "system":
                    raise self.error(f"'system' and '{key}' have different system messages")
                return (Message("system", system), *turns)
        raise self.error("there is neither 'prompt' nor 'messages'; add one")

    def check_context(self) -> None:
        """Raises UnusableRow when the record shows a model more than texts."""
        for outer in [self.values, *(v for v in self.values.values() if isinstance(v, dict))]:
            for key, reason in _CONTEXTS.items():
                if outer.get(key) not in (None, "", [], {}, "[]", "{}") and key not in self.read:
                    raise UnusableRow(reason)


def read_lines(path: Path) -> Iterator[Line]:
    """The records of a label file; the suffix tells the format.

    Raises:
        DataError: the file is missing, damaged, of another format, or a line is not a record.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in (".jsonl", ".json"):
        return _json_lines(path)
    if suffix in _DELIMITERS:
        return _csv_lines(path, _DELIMITERS[suffix])
    if suffix == ".parquet":
        return _parquet_lines(path)
    raise DataError(
        f"label file {path} ends in '{suffix}', but .jsonl, .json, .csv, .tsv or .parquet is "
        "needed (or one of them with .gz); rename or convert it"
    )


def _json_lines(path: Path) -> Iterator[Line]:
    with _open_text(path) as stream:
        first = next((line for line in stream if line.strip()), "")
        stream.seek(0)
        if first.lstrip().startswith("["):
            yield from _array(path, stream.read())
            return
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _record(path, number, line)


def _record(path: Path, number: int, text: str) -> Line:
    try:
        values = json.loads(text, object_pairs_hook=unique_names)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}: not JSON ({error}); each line must be one whole object"
        ) from None
    return _line(path, number, values)


def _line(path: Path, number: int, values: Any) -> Line:
    if not isinstance(values, dict):
        raise DataError(
            f"{path}, line {number}: holds {_type_name(values)}, but each record must be an "
            "object with names and values"
        )
    _check_names(list(values), f"{path}, line {number}")
    return Line(path, number, values)


def _check_names(names: list[str], where: str) -> None:
    """Raises DataError for a name that repeats, or differs from another in case or in white space
    around it alone: one of them would be read by chance.
    """
    if len(set(names)) < len(names):
        raise DataError(f"{where}: a column name repeats in {names}; rename one")
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.strip().casefold(), name)) != name:
            raise DataError(
                f"{where}: '{other}' and '{name}' differ only in case or white space; rename one"
            )


def _array(path: Path, text: str) -> Iterator[Line]:
    """The records of one JSON array, each with the line that it begins in."""
    decoder = json.JSONDecoder(object_pairs_hook=unique_names)
    blank = re.compile(r"\s*")
    at, number, counted = text.index("[") + 1, 1, 0
    separator = ""
    while True:
        at = blank.match(text, at).end()  # type: ignore[union-attr]  # matches anything
        number += text.count("\n", counted, at)
        counted = at
        if separator != "," and text[at : at + 1] == "]":
            break
        try:
            values, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(
                f"{path}, line {number}: not JSON ({problem}) in the record of the array that "
                "begins here; correct it"
            ) from None
        yield _line(path, number, values)
        at = blank.match(text, at).end()  # type: ignore[union-attr]
        separator = text[at : at + 1]
        if separator not in (",", "]"):
            line = 1 + text.count("\n", 0, at)
            raise DataError(f"{path}, line {line}: a comma or ']' is needed after a record")
        at += separator == ","
    if text[at + 1 :].strip():
        line = 1 + text.count("\n", 0, at)
        raise DataError(f"{path}, line {line}: there is text after the end of the array; remove it")


def parquet_rows(
    path: Path, types: Iterable[pa.Field] = ()
) -> tuple[list[str], list[dict[str, Any]]]:
    """Column names and rows of a Parquet file.

    Args:
        types: what columns are read as, where the file has them.

    Raises:
        DataError: there are none to read, or a column cannot be read as its type.
    """
    with _open_bytes(path) as stream:
        try:
            file = pq.ParquetFile(io.BytesIO(stream.read()))
            names = list(file.schema_arrow.names)
            _check_names(names, str(path))
            table = file.read()
            for wanted in types:
                if wanted.name in names and table[wanted.name].type != wanted.type:
                    column = names.index(wanted.name)
                    cast = table[wanted.name].cast(wanted.type)
                    table = table.set_column(column, wanted.name, cast)
            return names, table.to_pylist(maps_as_pydicts="strict")
        # A key that repeats in a map is a KeyError, a date beyond the year 9999 an OverflowError.
        except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"label file {path} cannot be read as Parquet ({reason})") from None


def _parquet_lines(path: Path) -> Iterator[Line]:
    _, rows = parquet_rows(path)
    for number, values in enumerate(rows, start=1):
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
            _check_names(list(names), f"{path}, line 1")
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
    with (
        _open_bytes(path) as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
    ):
        yield text


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    problem = file_problem(path)
    if problem and problem != "does not exist":
        raise DataError(f"label file {shown_path(path)} {problem}; name a file")
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            yield stream
    except FileNotFoundError:
        raise DataError(f"label file {shown_path(path)} does not exist; check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"label file {path} is not UTF-8 ({error.reason}); convert it") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"label file {path} cannot be read ({error}); copy it again") from None


def _type_name(value: Any) -> str:
    return _TYPE_NAMES.get(type(value), type(value).__name__)
