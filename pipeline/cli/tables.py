"""Tables and the console that all commands print with."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from pipeline.cli.terminal import FOR_PROGRAMS, STDERR, STDOUT, writing
from pipeline.errors import printable

WIDTH, ENDLESS = 160, 10_000
"""Characters of a line where there is no terminal, and more than any table has."""


class _Console(Console):
    """Shows every text of a table or a tree without what would control the terminal. A table that
    the terminal is too narrow for is wider than it, rather than without its figures.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        width, endless = self.width, self.options.update(width=ENDLESS)
        tables = (each for each in objects if isinstance(each, Table))
        least = (Measurement.get(self, endless, table).minimum for table in tables)
        self.width = max(width, *least, 0)
        with writing(STDERR if self.stderr else STDOUT):
            super().print(*objects, **options)
        self.width = width

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def console() -> Console:
    """As wide as the terminal; where there is none, wide enough for whole ids."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return _Console(width=None if is_terminal else WIDTH, stderr=FOR_PROGRAMS.get())


def number_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    num_names: int = 1,
    lines: bool = True,
) -> Table:
    """Columns of names on the left, then columns of numbers, right-aligned.

    Args:
        num_names: how many columns hold names.
        lines: draw lines around the cells.
    """
    columns = [
        Column(name, justify="right" if i >= num_names else "left", no_wrap=i < num_names)
        for i, name in enumerate(head)
    ]
    table = Table(
        *columns,
        title=title,
        title_justify="left",
        box=box.HEAVY_HEAD if lines else None,
        pad_edge=lines,
    )
    for row in rows:
        table.add_row(*map(escape, row))
    return table
