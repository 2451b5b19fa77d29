"""Watchers of a run that write lines, and one that passes everything on to several.

preference/judge: 320 of 1,024 rows, 812 tok/s, cache 48%, 12 s left
preference/judge: 1,024 rows in 38 s, 810 tok/s, cache 49%, 3 unparsed
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.progress.totals import Clock, StageBook, duration
from pipeline.records import Row
from pipeline.stages.runner import NoProgress
from pipeline.stages.runner import Progress as StageProgress
from pipeline.store import Manifest
from pipeline.training.metrics import parse_progress

Write = Callable[[str], None]


class Progress(StageProgress, Protocol):
    """A run's watcher: the stages, the trainings, and remarks in between."""

    def training(self, name: str, line: str) -> None:
        """One line of a training's log."""

    def note(self, text: str) -> None:
        """A remark worth a line, such as a phase that begins."""

    def close(self) -> None:
        """Nothing more will come."""


class Silent(NoProgress):
    """Tells nobody."""

    def training(self, name: str, line: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class LineProgress:
    """Plain lines: at most one per stage every few seconds, and one when a stage is finished."""

    def __init__(self, write: Write, every_s: float = 5.0, clock: Clock = time.monotonic) -> None:
        self._write, self._every_s, self._clock = write, every_s, clock
        self._book = StageBook(clock)
        self._last: dict[str, float] = {}

    def opened(self, folders: Sequence[str], num_shards: int) -> None:
        """A wavefront begins."""
        self._book.opened(folders, num_shards)

    def planned(self, folder: str, rows: int) -> None:
        """A shard begins."""
        self._book.stage(folder).plan(rows)

    def row_done(self, folder: str, row: Row) -> None:
        """A row was made."""
        stage = self._book.stage(folder)
        stage.row(row)
        if stage.fresh == 1:
            # A pace that is worth a line needs its few seconds, too.
            self._last[folder] = self._clock()
        left = stage.seconds_left
        if left is not None and self._is_due(folder):
            counts = f"{folder}: {stage.done:,} of {stage.total:,} rows"
            self._write(", ".join([counts, *stage.facts(), f"{duration(left)} left"]))

    def shard_done(self, manifest: Manifest) -> None:
        """A shard is on disk."""
        stage = self._book.stage(manifest.stage)
        stage.shard(manifest)
        if stage.is_finished:
            self._write(stage.summary())

    def training(self, name: str, line: str) -> None:
        """Steps now and then; whatever else a training says goes to its log file."""
        step = parse_progress(line)
        if step and (step[0] in (1, step[1]) or self._is_due(f"training {name}")):
            self._write(f"training {name}: {line}")

    def note(self, text: str) -> None:
        """The remark as it is."""
        self._write(text)

    def close(self) -> None:
        """Nothing to release."""

    def _is_due(self, key: str) -> bool:
        now = self._clock()
        if now - self._last.get(key, float("-inf")) < self._every_s:
            return False
        self._last[key] = now
        return True


class Several:
    """Passes everything on to several watchers."""

    def __init__(self, *watchers: Progress) -> None:
        self._watchers = watchers

    def opened(self, folders: Sequence[str], num_shards: int) -> None:
        """A wavefront begins."""
        for watcher in self._watchers:
            watcher.opened(folders, num_shards)

    def planned(self, folder: str, rows: int) -> None:
        """A shard begins."""
        for watcher in self._watchers:
            watcher.planned(folder, rows)

    def row_done(self, folder: str, row: Row) -> None:
        """A row was made."""
        for watcher in self._watchers:
            watcher.row_done(folder, row)

    def shard_done(self, manifest: Manifest) -> None:
        """A shard is on disk."""
        for watcher in self._watchers:
            watcher.shard_done(manifest)

    def training(self, name: str, line: str) -> None:
        """A line of a training's log."""
        for watcher in self._watchers:
            watcher.training(name, line)

    def note(self, text: str) -> None:
        """A remark."""
        for watcher in self._watchers:
            watcher.note(text)

    def close(self) -> None:
        """Close them all."""
        for watcher in self._watchers:
            watcher.close()
