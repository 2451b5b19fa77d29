"""What a person sees of a run: bars in a terminal, plain lines elsewhere, a few lines in a log.

In:  the calls of the runner and of the phases (`stages/runner.Progress`)
Out: per stage rows done of rows planned, tokens a second, share of cached prompt tokens, time left

    with progress_context(progress_for_stdout(print)):
        await run_all(open_context(run, current_progress()))
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pipeline.progress.totals import StageTotals, duration
from pipeline.progress.watchers import LineProgress, MultiProgress, Write
from pipeline.stages.runner import Progress

__all__ = [
    "LineProgress",
    "MultiProgress",
    "Progress",
    "StageTotals",
    "current_progress",
    "duration",
    "progress_context",
    "progress_for_stdout",
]

_CURRENT: ContextVar[Progress | None] = ContextVar("progress", default=None)


def progress_for_stdout(write: Write) -> Progress:
    """Bars when standard output is a terminal, else a line every few seconds.

    Args:
        write: prints a line.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        return LineProgress(write)
    from pipeline.progress.terminal import TerminalProgress

    return TerminalProgress()


def current_progress() -> Progress:
    """The watcher of the running command; a silent one outside `progress_context`."""
    return _CURRENT.get() or Progress()


@contextmanager
def progress_context(progress: Progress) -> Iterator[Progress]:
    """Make a watcher the current one, and close it at the end."""
    token = _CURRENT.set(progress)
    try:
        yield progress
    finally:
        _CURRENT.reset(token)
        progress.close()
