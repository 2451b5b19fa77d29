"""Watchers of a run: counts that add up, lines that do not flood, bars that reach their end."""

import io
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from pipeline.progress import (
    LineProgress,
    MultiProgress,
    Progress,
    StageTotals,
    current_progress,
    duration,
    progress_context,
)
from pipeline.progress.terminal import TerminalProgress
from pipeline.store import Manifest, ShardCounts

STAGE = "supervised/sample"


@dataclass
class Clock:
    """A clock that the test moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Notebook:
    """Keeps the lines that are written."""

    lines: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        self.lines.append(text)


ROW = ShardCounts(expected=1, generated_tokens=10, prompt_tokens=40, cached_tokens=30)


def make_manifest(shard_index: int, rows: int, *, resumed: bool = False, **counts: int) -> Manifest:
    return Manifest(
        stage=STAGE,
        shard_index=shard_index,
        row_kind="response",
        key="k",
        path="p",
        sha256="s",
        counts=ShardCounts(expected=rows, ok=rows - sum(counts.values()), **counts),
        resumed=resumed,
    )


def test_totals_of_half_a_stage() -> None:
    """Two of four shards with 16 rows each have begun; 8 intervals of 0.25 s for 55 rows left."""
    clock = Clock()
    stage = StageTotals(STAGE, 4, clock)
    stage.plan(16)
    stage.plan(16)
    clock.now = 10.0  # the model was loaded first
    for index in range(9):
        stage.rows(ROW)
        clock.now += 0.25 * (index < 8)
    assert (stage.total, stage.done) == (64, 9)
    assert stage.seconds_left == pytest.approx(55 * 0.25)
    assert stage.facts() == ["8 tok/s", "cache 75 %"]


def test_few_rows_tell_no_time() -> None:
    stage = StageTotals(STAGE, 1, Clock())
    stage.plan(100)
    stage.rows(ROW)
    assert stage.seconds_left is None


def test_resumed_shards_count_as_reused() -> None:
    stage = StageTotals(STAGE, 2, Clock())
    stage.shard(make_manifest(0, 8, resumed=True))
    stage.plan(8)
    for _ in range(8):
        stage.rows(ROW)
    stage.shard(make_manifest(1, 8, unparsed=2))
    assert stage.is_finished and (stage.done, stage.reused) == (16, 8)
    assert "2 unparsed" in stage.summary() and "8 reused" in stage.summary()


def test_rows_of_a_lost_worker_are_taken_back() -> None:
    """Of 8 rows 3 were made when the worker died; the next one takes them from its journal."""
    stage = StageTotals(STAGE, 2, Clock())
    stage.plan(8)
    for _ in range(3):
        stage.rows(ROW)
    stage.take_back(8, ShardCounts(expected=3))
    assert (stage.planned, stage.done, stage.begun) == (0, 0, 0)
    stage.plan(8)
    stage.rows(ShardCounts(expected=3, reused=3))
    for _ in range(5):
        stage.rows(ROW)
    stage.shard(make_manifest(0, 8, reused=0))
    assert (stage.done, stage.reused, stage.tokens) == (8, 3, 80)


def test_rows_of_a_journal_give_no_pace() -> None:
    """Of 100 rows 60 are there at once and 9 are made at 4 a second; 31 are left."""
    clock = Clock()
    stage = StageTotals(STAGE, 1, clock)
    stage.plan(100)
    stage.rows(ShardCounts(expected=60, reused=60))
    for _ in range(9):
        clock.now += 0.25
        stage.rows(ROW)
    assert stage.done == 69 and stage.seconds_left == pytest.approx(31 * 0.25)


def test_lines_come_every_few_seconds() -> None:
    clock, notebook = Clock(), Notebook()
    progress = LineProgress(notebook, every_s=5.0, clock=clock)
    progress.opened([STAGE], 1)
    progress.planned(STAGE, 1000)
    for _ in range(1000):
        clock.now += 0.0101
        progress.rows_done(STAGE, ROW)
    progress.shard_done(make_manifest(0, 1000))
    # 10.1 s of rows give a line 5 s after the first row, one after 10 s, and the closing line.
    assert len(notebook.lines) == 3
    assert notebook.lines[0].startswith(f"{STAGE}: 497 of 1,000 rows, ")
    assert notebook.lines[-1] == f"{STAGE}: 1,000 rows in 10 s, 990 tok/s, cache 75 %"


def test_training_lines_are_thinned() -> None:
    clock, notebook = Clock(), Notebook()
    progress = LineProgress(notebook, clock=clock)
    progress.training("sft", "loading weights")
    for step in range(1, 101):
        clock.now += 0.2
        progress.training("sft", f"step {step}/100 loss=0.5000")
    assert notebook.lines[0] == "training sft: step 1/100 loss=0.5000"
    assert notebook.lines[-1] == "training sft: step 100/100 loss=0.5000"
    assert len(notebook.lines) == 6


def test_bars_reach_their_end() -> None:
    screen = io.StringIO()
    progress = TerminalProgress(Console(file=screen, force_terminal=True, width=140))
    progress.opened([STAGE], 1)
    progress.planned(STAGE, 2)
    progress.rows_done(STAGE, ROW)
    progress.rows_done(STAGE, ROW)
    progress.shard_done(make_manifest(0, 2))
    progress.training("sft", "step 3/3 loss=0.1000")
    progress.note("a remark")
    progress.close()
    text = screen.getvalue()
    assert "2/2" in text and "3/3" in text and "done in" in text and "a remark" in text


def test_several_pass_everything_on() -> None:
    first, second = Notebook(), Notebook()
    progress = MultiProgress(LineProgress(first), LineProgress(second))
    progress.opened([STAGE], 1)
    progress.shard_done(make_manifest(0, 8, resumed=True))
    progress.note("done")
    assert first.lines == second.lines and len(first.lines) == 2


def test_current_progress_ends_with_its_command() -> None:
    notebook = Notebook()
    with progress_context(LineProgress(notebook)):
        current_progress().note("seen")
    current_progress().note("not seen")
    assert notebook.lines == ["seen"] and type(current_progress()) is Progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
