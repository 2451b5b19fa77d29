"""What a stage is: rows of a shard in, rows of the same shard out; each row on its own.

A stage plans its rows (ids first, before anything is paid) and makes each of them by one
coroutine. It never opens, counts, limits or retries anything: `runner.py` does.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Protocol, TypeVar

from pipeline.engines.base import Engine
from pipeline.errors import VerdictError
from pipeline.records import Row
from pipeline.types import SamplingParams

AnyRow = TypeVar("AnyRow", bound=Row)
Inputs = Mapping[str, Sequence[Any]]
"""Rows of the shard by the folder of the stage that made them."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row to be made."""

    draft: Row
    """The row with its ids and status ok, still without content."""
    make: Callable[[], Awaitable[Row]] | None = None
    """Makes the row; None when the draft is already final."""


class Stage(Protocol):
    """One row-wise transformation."""

    @property
    def folder(self) -> str:
        """Folder below the run, named by `store.stage_names.stage_folder`; it says the row type."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """Folders of the stages whose rows it reads, the same shard of each."""
        ...

    @property
    def engine(self) -> Engine | None:
        """The model that it asks, if any."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything but the inputs that changes its rows, as JSON values; part of the manifest
        key.
        """
        ...

    def plan(self, inputs: Inputs) -> list[Item]:
        """The rows to make, in a fixed order."""
        ...


@cache
def sampling_values(sampling: SamplingParams) -> dict[str, Any]:
    """Sampling parameters as plain values, for row ids and manifest keys; do not change them."""
    return asdict(sampling)


def dropped(draft: Row, reason: str) -> Item:
    """A final item: its row is left out on purpose, and counted with this reason."""
    return Item(replace(draft, status="dropped", reason=reason))


def read_reply(row: AnyRow, read: Callable[[AnyRow], AnyRow]) -> AnyRow:
    """`read(row)`, or the row as `unparsed` when the model's reply cannot be read.

    The only place where a VerdictError becomes a row. `row` already has everything that was paid
    for, such as rationales, token counts and log-probabilities, and keeps it.
    """
    try:
        return read(row)
    except VerdictError as error:
        return replace(row, status="unparsed", reason=str(error))


def parent_problem(*parents: Any) -> str | None:
    """Why a row cannot be made from these parents, or None."""
    problems = (f"parent {p.kind} is {p.status}" for p in parents if p.status != "ok")
    return next(problems, None)
