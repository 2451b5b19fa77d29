"""What a person sees of a run: bars in a terminal, plain lines elsewhere, a few lines in a log.

In:  the runner's calls (`stages/runner.Progress`) and the lines of a training
Out: per stage rows done of rows planned, tokens a second, share of cached prompt tokens, time left

    with watching(progress_for_stdout()):
        await run_all(open_context(run, current_progress()))
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pipeline.progress.totals import StageTotals, duration
from pipeline.progress.watchers import LineProgress, Progress, Several, Silent

__all__ = [
    "LineProgress",
    "Progress",
    "Several",
    "Silent",
    "StageTotals",
    "current_progress",
    "duration",
    "progress_for_stdout",
    "watching",
]

_CURRENT: ContextVar[Progress | None] = ContextVar("progress", default=None)


def progress_for_stdout() -> Progress:
    """Bars when standard output is a terminal, else a line every few seconds."""
    if not sys.stdout.isatty():
        return LineProgress(lambda text: print(text, flush=True))
    from pipeline.progress.terminal import TerminalProgress

    return TerminalProgress()


def current_progress() -> Progress:
    """The watcher of the command that is running; a silent one where there is none."""
    return _CURRENT.get() or Silent()


@contextmanager
def watching(progress: Progress) -> Iterator[Progress]:
    """Make a watcher the current one, and close it at the end."""
    token = _CURRENT.set(progress)
    try:
        yield progress
    finally:
        _CURRENT.reset(token)
        progress.close()
