"""Progress bars for a terminal: a bar per stage and per training, remarks above them."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from pipeline.progress.totals import Clock, StageBook, StageTotals, duration
from pipeline.records import Row
from pipeline.store import Manifest
from pipeline.training.metrics import parse_progress

REFRESH_S = 0.1
"""Rows can come thousands a second; the screen need not follow each."""


class TerminalProgress:
    """Bars with rows done and planned, tokens a second, cache share and time left."""

    def __init__(self, console: Console | None = None, clock: Clock = time.monotonic) -> None:
        self._book = StageBook(clock)
        self._clock = clock
        self._drawn: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=console or Console(),
            refresh_per_second=4,
        )
        self._bars.start()

    def opened(self, folders: Sequence[str], num_shards: int) -> None:
        """A wavefront begins: one bar for each of its stages."""
        self._book.opened(folders, num_shards)
        for folder in folders:
            self._bar(folder)
            self._bars.reset(self._tasks[folder], total=None, facts="")

    def planned(self, folder: str, rows: int) -> None:
        """A shard begins."""
        self._book.stage(folder).plan(rows)
        self._draw(self._book.stage(folder), force=True)

    def row_done(self, folder: str, row: Row) -> None:
        """A row was made."""
        self._book.stage(folder).row(row)
        self._draw(self._book.stage(folder))

    def shard_done(self, manifest: Manifest) -> None:
        """A shard is on disk."""
        stage = self._book.stage(manifest.stage)
        stage.shard(manifest)
        self._draw(stage, force=True)

    def training(self, name: str, line: str) -> None:
        """Steps move the bar; the rest of the log goes to its file."""
        step = parse_progress(line)
        if step is None:
            return
        task = self._bar(f"training {name}")
        self._bars.update(
            task, total=step.num_steps, completed=step.step, facts=" ".join(line.split()[2:])
        )

    def note(self, text: str) -> None:
        """The remark above the bars."""
        self._bars.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Leave the bars as they are."""
        self._bars.stop()

    def _bar(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, facts="")
        return self._tasks[name]

    def _draw(self, stage: StageTotals, *, force: bool = False) -> None:
        now = self._clock()
        if not force and now - self._drawn.get(stage.folder, 0.0) < REFRESH_S:
            return
        self._drawn[stage.folder] = now
        facts = stage.facts()
        if stage.is_finished:
            facts.append(f"done in {duration(stage.seconds)}")
        elif stage.seconds_left is not None:
            facts.append(f"{duration(stage.seconds_left)} left")
        self._bars.update(
            self._bar(stage.folder), total=stage.total, completed=stage.done, facts=", ".join(facts)
        )
