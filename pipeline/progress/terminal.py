"""Progress bars for a terminal: a bar per stage and per training, remarks above them."""

import time
from collections.abc import Sequence

from rich import progress as bars
from rich.console import Console

from pipeline.errors import printable
from pipeline.progress.totals import Clock, StageTotals, duration
from pipeline.progress.watchers import StageCounters
from pipeline.training.metrics import parse_progress


class TerminalProgress(StageCounters):
    """Bars with rows done and planned, tokens a second, cache share and time left."""

    def __init__(self, console: Console | None = None, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._tasks: dict[str, bars.TaskID] = {}
        self._bars = bars.Progress(
            bars.TextColumn("{task.description:<32}"),
            bars.BarColumn(bar_width=28),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[facts]}"),
            console=console,
            refresh_per_second=4,
        )
        self._bars.start()

    def opened(self, folders: Sequence[str], num_shards: int) -> None:
        """One bar for each stage."""
        super().opened(folders, num_shards)
        for folder in folders:
            self._bars.reset(self._bar(folder), total=None, facts="")

    def changed(self, stage: StageTotals) -> None:
        """Move the bar of a stage."""
        facts = stage.facts()
        if stage.is_finished:
            facts.append(f"done in {duration(stage.seconds)}")
        elif stage.seconds_left is not None:
            facts.append(f"{duration(stage.seconds_left)} left")
        self._bars.update(
            self._bar(stage.folder), total=stage.total, completed=stage.done, facts=", ".join(facts)
        )

    def training(self, name: str, line: str) -> None:
        """Steps move the bar; the rest of the log is only in its file."""
        if step := parse_progress(line):
            self._bars.update(
                self._bar(f"training {name}"),
                total=step.num_steps,
                completed=step.step,
                facts=" ".join(line.split()[2:]),
            )

    def note(self, text: str) -> None:
        """Print the remark above the bars."""
        self._bars.console.print(printable(text), highlight=False, markup=False)

    def close(self) -> None:
        """Leave the bars as they are."""
        self._bars.stop()

    def _bar(self, name: str) -> bars.TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, facts="")
        return self._tasks[name]
