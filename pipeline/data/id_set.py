"""A set of ids that takes no more memory for a million of them than for a thousand: a database in a
temporary file, of which SQLite keeps two MiB at hand.
"""

import sqlite3
import sys
from collections.abc import Iterable, Iterator

from pipeline.errors import StoreError


class IdSet:
    """Ids, each with a number by which the smallest can be drawn."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        # No path: a file of its own among the temporary ones, gone with the connection.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, draw REAL) WITHOUT ROWID")
        self._db.execute("BEGIN")
        for each in ids:
            self.add(each)

    def add(self, identity: str, draw: float = 0.0) -> bool:
        """Add an id; returns whether it is new. Raises StoreError when the disk is full."""
        try:
            new = self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (identity, draw))
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"the ids of the prompts need a temporary file, but {error}; make room, or name "
                "another folder in SQLITE_TMPDIR"
            ) from error
        return new.rowcount == 1

    def __contains__(self, identity: object) -> bool:
        found = self._db.execute("SELECT 1 FROM ids WHERE id = ?", (identity,))
        return found.fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        for (identity,) in self._db.execute("SELECT id FROM ids ORDER BY id"):
            yield identity

    def nth(self, number: int) -> tuple[float, str] | None:
        """Draw and id of the `number`-th smallest, from 1; None when there are fewer."""
        query = "SELECT draw, id FROM ids ORDER BY draw, id LIMIT 1 OFFSET ?"
        offset = min(number - 1, sys.maxsize)
        row: tuple[float, str] | None = self._db.execute(query, (offset,)).fetchone()
        return row
