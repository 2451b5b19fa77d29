"""What a stage is: rows of a shard in, rows of the same shard out; each row on its own.

A stage plans its rows (ids first, before anything is paid) and makes each of them by one
coroutine. It never opens, counts, limits or retries anything: `runner.py` does.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Protocol

from pipeline.engines.base import Engine
from pipeline.records import Row
from pipeline.types import SamplingParams

Inputs = Mapping[str, Sequence[Any]]
"""Rows of the shard by the folder of the stage that made them."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row to be made."""

    blank: Row
    """The row with its ids and status ok, still without content."""
    call: Callable[[], Awaitable[Row]] | None
    """Makes the row; None when `blank` is already final (dropped)."""


class Stage(Protocol):
    """One row-wise transformation."""

    @property
    def folder(self) -> str:
        """Folder below the run, such as `supervised/critique-1`."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """Folders of the stages whose rows it reads, the same shard of each."""
        ...

    @property
    def row_type(self) -> type[Row]:
        """Kind of the rows that it makes."""
        ...

    @property
    def engine(self) -> Engine | None:
        """The model that it asks, if any."""
        ...

    def settings(self) -> dict[str, Any]:
        """All that changes its rows besides the inputs; JSON-able, part of the manifest key."""
        ...

    def plan(self, inputs: Inputs) -> list[Item]:
        """The rows to make, in a fixed order."""
        ...


@cache
def sampling_values(sampling: SamplingParams) -> dict[str, Any]:
    """Sampling parameters as plain values, for row ids and manifest keys; do not change them."""
    return asdict(sampling)


def dropped(blank: Row, reason: str) -> Item:
    """An item that is final: left out on purpose, and counted."""
    return Item(replace(blank, status="dropped", reason=reason), None)


def parent_problem(*parents: Any) -> str | None:
    """Why a row cannot be made from these parents, or None."""
    for parent in parents:
        if parent.status != "ok":
            return f"parent {parent.kind} is {parent.status}"
    return None
