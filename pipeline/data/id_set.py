"""A set of row ids that stays small: 12 bytes an id instead of the hundred of a Python set.

For what grows with the number of prompts: finding duplicates, and what earlier versions had.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator

from pipeline.ids import ID_LENGTH

_WIDTH = ID_LENGTH // 2
_EMPTY = bytes(_WIDTH)
_ROW_ID = re.compile(f"[0-9a-f]{{{ID_LENGTH}}}")


class IdSet:
    """Row ids in an open-addressing table of their bytes; at most two thirds full."""

    def __init__(self, row_ids: Iterable[str] = ()) -> None:
        self._slots = 64
        self._table = bytearray(self._slots * _WIDTH)
        self._count = 0
        for row_id in row_ids:
            self.add(row_id)

    def add(self, row_id: str) -> bool:
        """Put an id in; returns whether it was new."""
        key = _key(row_id)
        at, found = self._find(key)
        if found:
            return False
        self._table[at : at + _WIDTH] = key
        self._count += 1
        if 3 * self._count > 2 * self._slots:
            self._grow()
        return True

    def __contains__(self, row_id: object) -> bool:
        return isinstance(row_id, str) and self._find(_key(row_id))[1]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        """All ids, in no useful order; for a string that was no row id, its hash."""
        return (key.hex() for key in _keys(self._table))

    def _find(self, key: bytes) -> tuple[int, bool]:
        # Ids are hashes already, so their first bytes serve as the hash.
        slot = int.from_bytes(key[:8], "big") % self._slots
        while True:
            at = slot * _WIDTH
            here = self._table[at : at + _WIDTH]
            if here == key:
                return at, True
            if here == _EMPTY:
                return at, False
            slot = (slot + 1) % self._slots

    def _grow(self) -> None:
        old = self._table
        self._slots *= 2
        self._table = bytearray(self._slots * _WIDTH)
        for key in _keys(old):
            at, _ = self._find(key)
            self._table[at : at + _WIDTH] = key


def _key(row_id: str) -> bytes:
    if _ROW_ID.fullmatch(row_id):
        return bytes.fromhex(row_id)
    return hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).digest()[:_WIDTH]


def _keys(table: bytearray) -> Iterator[bytes]:
    for at in range(0, len(table), _WIDTH):
        key = bytes(table[at : at + _WIDTH])
        if key != _EMPTY:
            yield key
