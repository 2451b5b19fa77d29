"""The only loop: shards through stages, many in flight, resumable at any instruction.

In:  shards, by index, and a chain of stages
Out: one Manifest per shard-stage, on disk: no memory grows with the number of shards

One stage of one shard is one step; a shard goes through its stages in order and several shards
share the engine, so that its batch stays full and a shard's next stage still finds its prefix in
the cache. A finished shard-stage is skipped. One that was killed, has changed, or failed in part is
made again row by row: a row of its journal, or of its older shard, is reused when its id and the
hash of its input texts agree.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.engines.reply import whole_text
from pipeline.errors import (
    BudgetSpentError,
    EngineError,
    FinalCallError,
    RunStoppedError,
    UserError,
)
from pipeline.ids import content_hash
from pipeline.records import ModelRow, Row
from pipeline.stages.base import Item, Stage
from pipeline.stages.meter import Meter
from pipeline.store import (
    Manifest,
    ShardCounts,
    load_manifest,
    read_rows,
    require_manifest,
    write_shard,
)
from pipeline.store.journal import Journal
from pipeline.store.shards import write_attempt
from pipeline.store.stage_names import STAGES, split_folder

CODE_VERSION = 2
"""Raise it when a stage makes other rows from equal settings; then older rows are not reused."""
MIN_FAILED = 5
"""Failed rows before a run may stop early: one bad row in the first shard proves little."""

Made = tuple[Manifest, RunStoppedError | None]
"""The manifest of an attempt, and the error with which the run has to stop, if it has to."""
StepCall = Callable[[Stage, int, Sequence[Manifest]], Awaitable[Manifest]]


class Progress:
    """Watches a run: its stages, its trainings, remarks in between.

    All calls come from the event loop's thread. This base class ignores them; a watcher overrides
    what it shows (`pipeline.progress`).
    """

    def opened(self, folders: Sequence[str], num_shards: int) -> None:
        """This number of shards is about to go through these stages."""

    def planned(self, folder: str, rows: int) -> None:
        """A shard-stage is about to make this many rows."""

    def rows_done(self, folder: str, counts: ShardCounts) -> None:
        """So many rows are there (`expected`): made now, with the tokens they cost, or taken from a
        journal (`reused`).
        """

    def worker_lost(self, folder: str, planned: int, counts: ShardCounts) -> None:
        """The shard-stage that planned and made these rows lost its worker, and begins again."""

    def shard_done(self, manifest: Manifest) -> None:
        """A shard-stage is on disk."""

    def training(self, name: str, line: str) -> None:
        """A line of a training's log."""

    def note(self, text: str) -> None:
        """A remark worth a line, such as an audit that passed."""

    def close(self) -> None:
        """Release the screen; no call follows."""


@dataclass
class Runner:
    """Runs shard-stages below one run folder."""

    root: Path
    retries: int = 2
    max_failed_share: float = 0.1
    shards_in_flight: int = 4
    progress: Progress = field(default_factory=Progress)
    meter: Meter = field(default_factory=Meter)
    retry_delay_s: float = 0.5
    _expected: int = 0
    _failed: int = 0
    _stopped: str | None = None
    _last_reason: str = ""
    _spent: str | None = None
    _calls: set[asyncio.Task[Any]] = field(default_factory=set)
    """Calls that the run waits for."""
    _in_flight: dict[int, dict[str, list[Row]]] = field(default_factory=dict)
    """Rows of each shard in flight, read or made, by the hash of their file."""

    async def wavefront(
        self, shards: Sequence[int], chain: Sequence[Stage], call: StepCall | None = None
    ) -> None:
        """Take each shard through the chain.

        Args:
            shards: their indices. What the chain reads and does not make is on disk.
            call: runs one shard-stage, such as a Prefect task; by default `step`.

        Raises:
            RunStoppedError: the failed share passed its limit, an endpoint answers nothing any
                more, or the budget is spent; all that succeeded is on disk.
            StoreError: a shard that the chain reads is missing or damaged, or the disk is full.
        """
        self.progress.opened([stage.folder for stage in chain], len(shards))
        self._expected, self._failed, self._stopped = 0, 0, None
        errors: list[Exception] = []
        waiting = iter(shards)

        async def work() -> None:
            # As many workers as shards in flight, not a task for each of perhaps thousands.
            for index in waiting:
                self._in_flight[index] = {}
                try:
                    await self._through(index, chain, call or self.step)
                except Exception as error:
                    errors.append(error)
                    if isinstance(error, UserError | RunStoppedError):
                        # A full disk will not take the next shard either: pay for no more.
                        self._stopped = self._stopped or str(error)
                finally:
                    del self._in_flight[index]

        await asyncio.gather(*(work() for _ in range(min(self.shards_in_flight, len(shards)))))
        # One bad shard does not stop the others; a fault of code or machine is raised first.
        for error in sorted(
            errors,
            key=lambda e: (isinstance(e, RunStoppedError), not isinstance(e, BudgetSpentError)),
        ):
            raise error
        self._check_share()

    async def _through(self, index: int, chain: Sequence[Stage], step: StepCall) -> None:
        """Take one shard through the chain."""
        manifests: dict[str, Manifest] = {}
        for stage in chain:
            if self._stopped:
                raise RunStoppedError(self._stopped)
            for folder in stage.inputs:
                if folder not in manifests:
                    manifests[folder] = require_manifest(self.root, folder, index)
            upstream = [manifests[folder] for folder in stage.inputs]
            manifests[stage.folder] = await step(stage, index, upstream)

    async def step(self, stage: Stage, shard_index: int, upstream: Sequence[Manifest]) -> Manifest:
        """Make one shard-stage, or return the manifest of the one on disk.

        Raises:
            RunStoppedError, StoreError: see `wavefront`.
        """
        key = step_key(stage, upstream)
        journal = Journal(self.root, stage.folder, shard_index, CODE_VERSION)
        old = await asyncio.to_thread(load_manifest, self.root, stage.folder, shard_index)
        if old and old.key == key and not old.counts.failed:
            manifest = replace(old, resumed=True)
            self._count(manifest)
            journal.remove()
            return manifest
        manifest, stop = await self.attempt(stage, shard_index, upstream, old, key)
        journal.remove()
        if old and old.path != manifest.path:
            (self.root / old.path).unlink(missing_ok=True)
        if stop is not None:
            raise stop
        self._count(manifest)
        return manifest

    async def attempt(
        self,
        stage: Stage,
        shard_index: int,
        upstream: Sequence[Manifest],
        old: Manifest | None,
        key: str,
    ) -> Made:
        """Make the rows of a shard-stage and write them with their manifest; see `make`."""
        return await self.make(stage, shard_index, upstream, old, key)

    async def make(
        self,
        stage: Stage,
        shard_index: int,
        upstream: Sequence[Manifest],
        old: Manifest | None,
        key: str,
        *,
        made_by: dict[str, str] | None = None,
        give_up: str = "",
        careful: int = 0,
    ) -> Made:
        """Make the rows of a shard-stage that is not finished, and write them.

        Args:
            old: its manifest of an earlier attempt, whose rows are reused where they agree.
            key: see `step_key`.
            made_by: of a worker, which writes its attempt and leaves the manifest to its caller.
            give_up: make no row that is not there yet; it fails for this reason.
            careful: make one row at a time, 1 from the first and 2 from the last one on, so that a
                row which kills its worker has no other in flight.

        Raises:
            RunStoppedError: the run has to stop, and this step has no row to keep.
            StoreError: see `wavefront`.
        """
        started = time.perf_counter()
        journal = Journal(self.root, stage.folder, shard_index, CODE_VERSION)
        there = self._in_flight.get(shard_index, {})
        stored, inputs = await asyncio.to_thread(_read, self.root, old, upstream, there)
        journaled = await asyncio.to_thread(_reusable, journal.rows())
        # A journal may outlive its manifest, which has counted its rows.
        journaled = {
            row_id: row
            for row_id, row in journaled.items()
            if row_id not in stored or stored[row_id].input_hash != row.input_hash
        }
        for row in journaled.values():
            self.meter.add(row, stage.engine.name if stage.engine else "")
        known = stored | journaled
        items = stage.plan(inputs)
        self.progress.planned(stage.folder, len(items))
        if taken := sum(_agrees(item, journaled) for item in items):
            # Those of the older shard are counted when the manifest is written.
            self.progress.rows_done(stage.folder, ShardCounts(expected=taken, reused=taken))
        with journal:
            rows, stop = await self._rows(stage, items, known, journal, give_up, careful)
        if stop is not None and not rows:
            raise stop
        # No manifest has counted what the journal's rows cost.
        fresh = [row for row in rows if row.row_id not in stored or stored[row.row_id] is not row]
        counts = replace(
            _costs(fresh),
            expected=len(rows),
            reused=len(rows) - len(fresh),
            seconds=time.perf_counter() - started,
            **_earlier(old, stored, rows),
        )
        manifest = await asyncio.to_thread(
            write_attempt if made_by else write_shard,
            self.root,
            stage.folder,
            shard_index,
            rows,
            STAGES[split_folder(stage.folder)[1]].row_type,
            # Without its key a shard is unfinished, and its rows are reused one by one.
            key=key if stop is None else "",
            counts=counts,
            inputs={m.path: m.sha256 for m in upstream},
            engine=_engine_info(stage),
            made_by=made_by or {},
            code=CODE_VERSION,
        )
        there[manifest.sha256] = rows
        return manifest, stop

    async def _rows(
        self,
        stage: Stage,
        items: Sequence[Item],
        known: Mapping[str, Row],
        journal: Journal,
        give_up: str,
        careful: int,
    ) -> tuple[list[Row], RunStoppedError | None]:
        """The rows, in order; those that exist so far, and the error, when the run has to stop."""
        rows: dict[int, Row] = {}

        turn = asyncio.Lock() if careful else nullcontext()

        async def make(number: int) -> None:
            async with turn:
                rows[number] = row = await self._attempt(items[number])
                if stage.engine is not None:
                    if _reusable([row]):
                        # A failure is made again, and what grows the journal counts as progress.
                        journal.add(row)
                    self.meter.add(row, stage.engine.name)
            self.progress.rows_done(stage.folder, _costs([row]))
            if any(t is not asyncio.current_task() and not t.done() for t in self._calls):
                self._check_budget()

        calls, stop = [], None
        numbered = list(enumerate(items))
        for number, item in numbered if careful in (0, 1) else reversed(numbered):
            if item.make is None:
                rows[number] = item.draft
                self.progress.rows_done(stage.folder, _costs([item.draft]))
            elif _agrees(item, known):
                rows[number] = known[item.draft.row_id]
            elif give_up:
                rows[number] = replace(item.draft, status="failed", reason=give_up)
            else:
                calls.append(asyncio.create_task(make(number)))
        for task in calls:
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        try:
            if calls:
                self._check_budget()
            await asyncio.gather(*calls)
        except BaseException as error:
            # A fault of the code or the machine: do not pay for replies that are never read.
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            if isinstance(error, RunStoppedError):
                stop = error
            elif self._spent and isinstance(error, asyncio.CancelledError) and not _is_cancelled():
                # Another shard saw that the budget is spent, and ended these calls.
                stop = BudgetSpentError(self._spent)
            else:
                raise
        return [rows[number] for number in sorted(rows)], stop

    def _check_budget(self) -> None:
        """Raises BudgetSpentError, and ends the calls in flight, when the budget is spent."""
        self._spent = self.meter.problem()
        if self._spent:
            self._stopped = self._spent
            for task in self._calls - {asyncio.current_task()}:
                task.cancel()
            raise BudgetSpentError(self._spent)

    async def _attempt(self, item: Item) -> Row:
        reason = ""
        for attempt in range(self.retries + 1):
            try:
                return await item.make() if item.make else item.draft
            except FinalCallError as error:
                return replace(item.draft, status="failed", reason=whole_text(str(error)))
            except EngineError as error:
                reason = whole_text(str(error))
            if self._stopped:
                break
            if attempt < self.retries:
                await asyncio.sleep(self.retry_delay_s * 2**attempt)
        return replace(item.draft, status="failed", reason=reason)

    def _count(self, manifest: Manifest) -> None:
        self.progress.shard_done(manifest)
        self._expected += manifest.counts.expected
        self._failed += manifest.counts.failed
        reason = next((r for r in manifest.reasons if r.startswith("failed")), "")
        self._last_reason = reason or self._last_reason
        if self._failed >= MIN_FAILED:
            self._check_share()

    def _check_share(self) -> None:
        """Raises RunStoppedError when too many of the rows so far have failed."""
        if self._failed <= self.max_failed_share * self._expected:
            return
        self._stopped = (
            f"{self._failed} of {self._expected} rows failed "
            f"({100 * self._failed / self._expected:.0f} %), more than execution.max_failed_share "
            f"{100 * self.max_failed_share:.0f} % allows (last: {self._last_reason}); remove the "
            "cause, then `rlaif resume`: all that succeeded is kept"
        )
        raise RunStoppedError(self._stopped)


def step_key(stage: Stage, upstream: Sequence[Manifest]) -> str:
    """Hash of what decides the rows of a shard-stage: settings, model and upstream contents."""
    engine = stage.engine.fingerprint if stage.engine else ""
    return content_hash(
        [CODE_VERSION, stage.folder, stage.settings(), engine, [m.sha256 for m in upstream]]
    )


def _read(
    root: Path, old: Manifest | None, upstream: Sequence[Manifest], there: dict[str, list[Row]]
) -> tuple[dict[str, Row], dict[str, list[Row]]]:
    """Rows of an earlier attempt to reuse, by id; input rows by folder, kept in `there`."""
    earlier = read_rows(root, old) if old and old.code == CODE_VERSION else []
    there.update({m.sha256: read_rows(root, m) for m in upstream if m.sha256 not in there})
    return _reusable(earlier), {manifest.stage: there[manifest.sha256] for manifest in upstream}


def _reusable(rows: Iterable[Row]) -> dict[str, Row]:
    """Rows that need not be made again, by id.

    A dropped row is planned again at no cost, since its parent may be there now; a text that was
    paid for and rejected is kept.
    """
    paid = ("ok", "unparsed")
    return {
        row.row_id: row
        for row in rows
        if row.status in paid
        or (row.status == "dropped" and isinstance(row, ModelRow) and row.num_tokens)
    }


def _agrees(item: Item, known: Mapping[str, Row]) -> bool:
    """Whether a row that would cost calls is known, made from the same input."""
    old = known.get(item.draft.row_id)
    return item.make is not None and old is not None and old.input_hash == item.draft.input_hash


def _earlier(
    old: Manifest | None, stored: Mapping[str, Row], rows: Sequence[Row]
) -> dict[str, Any]:
    """What earlier attempts of this run paid; a run that began with another's rows did not."""
    runs = {row.run_id for row in rows if stored.get(row.row_id) is not row}
    if old is None or (runs and stored and not runs & {row.run_id for row in stored.values()}):
        return {}
    return {
        "earlier_prompt_tokens": old.counts.all_prompt_tokens,
        "earlier_generated_tokens": old.counts.all_generated_tokens,
        "earlier_seconds": old.counts.all_seconds,
    }


def _is_cancelled() -> bool:
    """Whether somebody ends the current task itself, and not only calls that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _costs(rows: Sequence[Row]) -> ShardCounts:
    replies = [row for row in rows if isinstance(row, ModelRow)]
    return ShardCounts(
        expected=len(rows),
        prompt_tokens=sum(row.num_prompt_tokens for row in replies),
        cached_tokens=sum(row.num_cached_tokens for row in replies),
        generated_tokens=sum(row.num_tokens for row in replies),
    )


def _engine_info(stage: Stage) -> dict[str, str]:
    if (engine := stage.engine) is None:
        return {}
    return {"name": engine.name, "fingerprint": engine.fingerprint, "version": engine.version}
