"""What all rows share: identity, lineage, status, and their Arrow form, from the annotations.

In:  a frozen class with annotated fields
Out: its Arrow schema, rows as plain values or tables, and back
"""

import dataclasses
import os
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

# Arrow's own allocator keeps what each thread has freed: 30 MiB more, and growing with the run.
# It is chosen when Arrow is loaded, so this comes before the import.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

import pyarrow as pa  # noqa: E402

from pipeline.types import Message, Messages  # noqa: E402

STATUSES = ("ok", "unparsed", "failed", "dropped")
Status = typing.Literal["ok", "unparsed", "failed", "dropped"]

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ARROW: dict[Any, pa.DataType] = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(),
    tuple[str, ...]: pa.list_(pa.string()), tuple[float, ...]: pa.list_(pa.float64()),
    Messages: _MESSAGES, Status: pa.string(),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What all rows share."""

    kind: ClassVar[str] = "row"

    row_id: str
    """Hash of everything that determined the row."""
    parent_ids: tuple[str, ...] = ()
    """Rows whose texts went in."""
    run_id: str = ""
    """The run that made it."""
    status: Status = "ok"
    """`ok`, `unparsed` (reply not readable), `failed` (call failed for good), `dropped`."""
    reason: str = ""
    """Why the status is not ok."""
    input_hash: str = ""
    """Hash of the texts that went in."""

    @classmethod
    @cache
    def schema(cls) -> pa.Schema:
        """The Arrow schema, from the annotations."""
        return pa.schema([
            pa.field(name, arrow_type(hint), nullable=optional)
            for name, (hint, optional) in
            ((name, _unwrap(hint)) for name, hint in field_hints(cls).items())
        ])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for Arrow or JSON."""
        return {name: _plain(getattr(self, name)) for name in field_hints(type(self))}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The row again; the inverse of `as_dict`."""
        return cls(**{
            name: _restore(values[name], hint) for name, hint in field_hints(cls).items()
        })


@cache
def field_hints(row_type: type[Row]) -> dict[str, Any]:
    """Name and resolved annotation of each field, in order."""
    hints = typing.get_type_hints(row_type)
    return {f.name: hints[f.name] for f in dataclasses.fields(row_type)}


def arrow_type(hint: Any) -> pa.DataType:
    """The Arrow type of an annotation. Raises KeyError for one that has none."""
    return _ARROW[hint]


def table_from_rows(rows: Sequence[Row], row_type: type[Row]) -> pa.Table:
    """Rows as an Arrow table with the schema of their type."""
    return pa.Table.from_pylist([row.as_dict() for row in rows], schema=row_type.schema())


def rows_from_table(table: pa.Table, row_type: type[Row]) -> list[Any]:
    """The rows of a table, in order."""
    return [row_type.from_dict(values) for values in table.to_pylist()]


def count_statuses(rows: Iterable[Row]) -> dict[str, int]:
    """Rows per status, all four always present."""
    counts = dict.fromkeys(STATUSES, 0)
    for row in rows:
        counts[row.status] += 1
    return counts


def _unwrap(hint: Any) -> tuple[Any, bool]:
    if isinstance(hint, types.UnionType) and type(None) in hint.__args__:
        (inner,) = [arg for arg in hint.__args__ if arg is not type(None)]
        return inner, True
    return hint, False


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [v.as_dict() if isinstance(v, Message) else v for v in value]
    return value


def _restore(value: Any, hint: Any) -> Any:
    if not isinstance(value, list):
        return value
    if hint == Messages:
        return tuple(Message(m["role"], m["content"]) for m in value)
    return tuple(value)
