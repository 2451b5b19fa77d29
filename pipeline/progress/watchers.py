"""Watchers of a run: one that counts, one that writes lines, one that passes every call to several.

preference/judge: 320 of 1,024 rows, 812 tok/s, cache 48 %, 12 s left
preference/judge: 1,024 rows in 38 s, 810 tok/s, cache 49 %, 3 unparsed
"""

import math
import time
from collections.abc import Callable, Sequence

from pipeline.errors import printable
from pipeline.progress.totals import Clock, StageTotals, duration
from pipeline.stages.runner import Progress
from pipeline.store import Manifest, ShardCounts
from pipeline.training.metrics import parse_progress

Write = Callable[[str], object]


class StageCounters(Progress):
    """Keeps the totals of every stage, and calls `changed` after each change."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._stages: dict[str, StageTotals] = {}

    def changed(self, stage: StageTotals) -> None:
        """Show the new totals of a stage."""

    def opened(self, folders: Sequence[str], num_shards: int) -> None:
        """Totals start at zero, also for a stage that ran before."""
        self._stages |= {name: StageTotals(name, num_shards, self._clock) for name in folders}

    def planned(self, folder: str, rows: int) -> None:
        """Count the rows of a shard that begins."""
        self._stages[folder].plan(rows)
        self.changed(self._stages[folder])

    def rows_done(self, folder: str, counts: ShardCounts) -> None:
        """Count new rows."""
        self._stages[folder].rows(counts)
        self.changed(self._stages[folder])

    def worker_lost(self, folder: str, planned: int, counts: ShardCounts) -> None:
        """Take back what a shard-stage counted that begins again."""
        self._stages[folder].take_back(planned, counts)

    def shard_done(self, manifest: Manifest) -> None:
        """Count a shard that is on disk."""
        self._stages[manifest.stage].shard(manifest)
        self.changed(self._stages[manifest.stage])


class LineProgress(StageCounters):
    """Plain lines: at most one per stage every few seconds, and one when a stage is finished."""

    def __init__(self, write: Write, every_s: float = 5.0, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._write, self._every_s = write, every_s
        self._last: dict[str, float] = {}

    def changed(self, stage: StageTotals) -> None:
        """A line when the stage is finished, or when one is due."""
        left = stage.seconds_left
        if stage.is_finished:
            self._write(stage.summary())
        # A pace that is worth a line needs its few seconds, too.
        elif left is not None and self._is_due(stage.folder, stage.first_row or 0.0):
            counts = f"{stage.folder}: {stage.done:,} of {stage.total:,} rows"
            self._write(", ".join([counts, *stage.facts(), f"{duration(left)} left"]))

    def training(self, name: str, line: str) -> None:
        """The first step, the last, and one every few seconds; the rest is only in the log file."""
        step = parse_progress(line)
        if step and (step.step in (1, step.num_steps) or self._is_due(f"training {name}")):
            self._write(f"training {name}: {printable(line)}")

    def note(self, text: str) -> None:
        """Write the remark."""
        self._write(printable(text))

    def _is_due(self, key: str, since: float = -math.inf) -> bool:
        now = self._clock()
        if now - max(since, self._last.get(key, -math.inf)) < self._every_s:
            return False
        self._last[key] = now
        return True


class MultiProgress(Progress):
    """Passes every call to several watchers."""

    def __init__(self, *watchers: Progress) -> None:
        self._watchers = watchers

    def opened(self, folders: Sequence[str], num_shards: int) -> None:
        for watcher in self._watchers:
            watcher.opened(folders, num_shards)

    def planned(self, folder: str, rows: int) -> None:
        for watcher in self._watchers:
            watcher.planned(folder, rows)

    def rows_done(self, folder: str, counts: ShardCounts) -> None:
        for watcher in self._watchers:
            watcher.rows_done(folder, counts)

    def worker_lost(self, folder: str, planned: int, counts: ShardCounts) -> None:
        for watcher in self._watchers:
            watcher.worker_lost(folder, planned, counts)

    def shard_done(self, manifest: Manifest) -> None:
        for watcher in self._watchers:
            watcher.shard_done(manifest)

    def training(self, name: str, line: str) -> None:
        for watcher in self._watchers:
            watcher.training(name, line)

    def note(self, text: str) -> None:
        for watcher in self._watchers:
            watcher.note(text)

    def close(self) -> None:
        for watcher in self._watchers:
            watcher.close()
