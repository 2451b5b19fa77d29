"""Running counts of one stage of one wavefront. Pure but for the clock.

Stages overlap, so the tokens a second of one stage are its share of what the engine gives.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.store import Manifest, ShardCounts

Clock = Callable[[], float]
PACE_ROWS = 8
"""New rows that a pace needs; with fewer, no time left is shown."""


@dataclass
class StageTotals:
    """Running counts of one stage in one wavefront."""

    folder: str
    num_shards: int
    clock: Clock = time.monotonic
    planned: int = 0
    """Rows of the shards that have begun."""
    begun: int = 0
    """Shards that have begun, finished ones included."""
    finished: int = 0
    """Shards that are on disk."""
    done: int = 0
    """Rows that exist, new or reused."""
    fresh: int = 0
    """Rows made now."""
    reused: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    not_ok: Counter[str] = field(default_factory=Counter)
    started: float | None = None
    first_row: float | None = None
    """Clock at the first new row; loading a model can take the time before it."""

    def plan(self, rows: int) -> None:
        """A shard begins."""
        self.started = self.clock() if self.started is None else self.started
        self.planned += rows
        self.begun += 1

    def rows(self, counts: ShardCounts) -> None:
        """Rows were made, or taken over from a journal."""
        self.done += counts.expected
        self.reused += counts.reused
        if fresh := counts.expected - counts.reused:
            self.first_row = self.clock() if self.first_row is None else self.first_row
            self.fresh += fresh
        self.tokens += counts.generated_tokens
        self.prompt_tokens += counts.prompt_tokens
        self.cached_tokens += counts.cached_tokens

    def take_back(self, planned: int, counts: ShardCounts) -> None:
        """A shard that began, and its rows so far, will be counted once more; tokens were paid."""
        self.begun -= 1
        self.planned -= planned
        self.done -= counts.expected
        self.reused -= counts.reused

    def shard(self, manifest: Manifest) -> None:
        """A shard is on disk."""
        counts = manifest.counts
        if manifest.resumed:
            self.plan(counts.expected)
        taken = counts.expected if manifest.resumed else counts.reused
        self.done += taken
        self.reused += taken
        self.finished += 1
        self.not_ok.update(unparsed=counts.unparsed, failed=counts.failed, dropped=counts.dropped)

    @property
    def is_finished(self) -> bool:
        """True when every shard is on disk."""
        return self.finished >= self.num_shards

    @property
    def total(self) -> int:
        """Rows of the whole stage: planned ones, and a guess for the shards still to come."""
        if not self.begun:
            return 0
        return round(self.planned / self.begun * max(self.num_shards, self.begun))

    @property
    def seconds(self) -> float:
        """Seconds since its first shard began."""
        return 0.0 if self.started is None else self.clock() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace since the first row; None while too few rows give a pace."""
        if self.fresh < PACE_ROWS or self.first_row is None:
            return None
        pace_s = (self.clock() - self.first_row) / (self.fresh - 1)
        return max(0, self.total - self.done) * pace_s

    def facts(self) -> list[str]:
        """Tokens a second and cache share, where there are any."""
        facts = []
        if self.tokens and self.seconds:
            facts.append(f"{self.tokens / self.seconds:,.0f} tok/s")
        if self.cached_tokens:
            facts.append(f"cache {100 * self.cached_tokens / self.prompt_tokens:.0f} %")
        return facts

    def summary(self) -> str:
        """The line for a stage that is finished."""
        parts = [f"{self.done:,} rows in {duration(self.seconds)}", *self.facts()]
        parts += [f"{n:,} {status}" for status, n in self.not_ok.items() if n]
        parts += [f"{self.reused:,} reused"] if self.reused else []
        return f"{self.folder}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Seconds for people: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
