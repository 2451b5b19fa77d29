"""The journal of a shard-stage: its rows as they are made. A kill costs the calls in flight alone.

In:  rows, one after the other
Out: `shard-00007.journal` beside the shard; each line is a CRC-32 and the row as JSON

The shard and its manifest replace it. Rows read from it stand for nothing but the call that made
them: the runner compares their ids and hashes as it does with those of an older shard.

Does not: survive a power cut to its last line; no line is flushed to the disk on its own.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pipeline.config.paths import plain_bytes
from pipeline.records import ROW_TYPES, Row, field_hints
from pipeline.store.disk import disk_error


class Journal:
    """The rows of one shard-stage that is not finished. The file appears with its first row."""

    def __init__(self, root: Path, folder: str, shard_index: int, code: int) -> None:
        self.path = root / folder / f"shard-{shard_index:05d}.journal"
        self._code = code
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def add(self, row: Row) -> None:
        """Append a row.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        entry = json.dumps([self._code, row.kind, row.as_dict()]).encode("ascii")
        line = b"%08x %s\n" % (zlib.crc32(entry), entry)
        try:
            if self._descriptor is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
                flags |= os.O_NONBLOCK  # a pipe of that name would wait for a reader
                self._descriptor = os.open(self.path, flags, 0o666)
                # What a kill cut off must not swallow the first new row.
                line = b"\n" + line
            # One call for a whole line: a kill falls between two lines, or a full disk cuts one.
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise disk_error(error, self.path) from error

    def rows(self) -> Iterator[Row]:
        """The rows of a killed attempt by the present code; lines that were cut are passed over."""
        try:
            lines = plain_bytes(self.path).splitlines()
        except OSError:
            return
        for line in lines:
            checksum, _, entry = line.partition(b" ")
            if checksum != b"%08x" % zlib.crc32(entry):
                continue
            try:
                code, kind, values = json.loads(entry)
                if code != self._code or {*values} != {*field_hints(ROW_TYPES[kind])}:
                    continue
                row = ROW_TYPES[kind].from_dict(values)
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
                continue  # of a shape that no journal has: the file may be a stranger's
            yield row

    def size(self) -> int:
        """Bytes of the file; 0 where there is none."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def remove(self) -> None:
        """Remove the file: its rows are in a shard."""
        self.path.unlink(missing_ok=True)
