"""The workers of one engine, as the driver sees them: who makes which shard, who has died.

A shard stays with its worker, whose engine has its prefix in the cache. A worker that is lost is
replaced by a new one, wherever the cluster has room, and its shards go to others. Rows that were
finished are in the journal: only calls in flight are paid again. A shard that twice lost its worker
without a new row gets one alone, a row at a time, from the first or the last one on: so a row which
kills workers takes no other with it.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import PipelineError, RunStoppedError
from pipeline.stages.runner import CODE_VERSION, Made, Progress
from pipeline.store import Manifest, ShardCounts
from pipeline.store.journal import Journal
from pipeline.workers.actor import Account, Job, Station, Worker
from pipeline.workers.cluster import CPUS_FOR_EACH, Cluster

LOOK_EVERY_S = 0.5
"""Seconds between two looks at what the workers have made."""
FIRST_START_S = 60.0
"""Seconds for which the first shard waits until every worker has started."""
NO_WORKER_S = 600.0
"""Seconds without any worker after which the run stops."""
MOST_FAILED_STARTS = 5
MOST_SHARED_LOSSES = 2
"""Workers that a shard-stage may lose, without a new row, before it gets one alone."""


class ShardBrokeWorkersError(PipelineError):
    """A shard-stage lost one worker after the other without a new row."""


@dataclass(eq=False)
class Seat:
    """One place of a pool, taken by one worker after the other."""

    number: int
    worker: Any = None
    """The actor; None while the next one starts."""
    station: Station | None = None
    gpu: str = ""
    busy: int = 0
    """Shard-stages that it makes now."""
    closed: bool = False
    """Whether one shard has it alone."""
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its first worker has started, or could not."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    rows: int = 0
    """Rows that its workers were seen to make."""
    tokens: int = 0
    """Tokens that they generated."""
    losses: int = 0
    reason: str = ""
    """Why its last worker was lost."""
    since: float = 0.0
    """Clock when its first worker had started."""


class Pool:
    """The workers of one engine. Started by its first shard-stage, so that a run which is finished
    loads no model.

    Args:
        job: what each worker gets to know; its number is set here.
        num: workers.
        gpus: GPUs that each of them reserves.
        tries: workers, two at least, that a shard-stage may lose alone and without a new row.
    """

    def __init__(
        self, cluster: Cluster, job: Job, *, num: int, gpus: int, tries: int, progress: Progress
    ) -> None:
        self.seats = [Seat(number) for number in range(num)]
        self.cluster, self._ray, self._gpus = cluster, cluster.ray, gpus
        self._job, self._progress, self._tries = job, progress, max(2, tries)
        self._actor = self._ray.remote(
            num_cpus=CPUS_FOR_EACH, num_gpus=gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )(Worker)
        self._changed = asyncio.Condition()
        self._homes: dict[int, Seat] = {}
        """The worker of each shard that is on its way."""
        self._suspects = 0
        """Shards that wait for a worker of their own."""
        self._attempts: dict[str, tuple[Seat, Account]] = {}
        """Who works on an attempt, and what it was seen to have made."""
        self._tasks: list[asyncio.Task[None]] = []
        self._broken: Exception | None = None
        self._calls: set[asyncio.Future[Any]] = set()
        """What workers were asked to make."""

    async def make(
        self,
        folder: str,
        shard_index: int,
        upstream: Sequence[Manifest],
        old: Manifest | None,
        key: str,
    ) -> Made:
        """Have a worker make a shard-stage; see `Runner.make`.

        Raises:
            ShardBrokeWorkersError: it lost as many workers as it may.
            RunStoppedError: no worker starts any more.
            PipelineError: as `Runner.make`, or what a person has to correct for a worker.
        """
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._fill(seat)) for seat in self.seats]
            self._tasks.append(asyncio.create_task(self._watch()))
        # A machine that cannot do the job is found before anything is paid for.
        waits = [asyncio.create_task(seat.tried.wait()) for seat in self.seats]
        _, late = await asyncio.wait(waits, timeout=FIRST_START_S)
        for task in late:
            task.cancel()
        journal = Journal(self._job.root, folder, shard_index, CODE_VERSION)
        losses = most_tokens = 0
        while losses < MOST_SHARED_LOSSES + self._tries:
            careful = 0 if losses < MOST_SHARED_LOSSES else 1 + losses % 2
            size = journal.size()
            seat = await self._take(shard_index, alone=careful > 0)
            worker, attempt = seat.worker, secrets.token_hex(4)
            self._attempts[attempt] = seat, Account(folder)
            try:
                by = self._made_by(seat, attempt)
                call = worker.make.remote(folder, shard_index, upstream, old, key, by, careful)
                made, account = await self._answer(call)
                self._saw(attempt, account)
            except self._ray.exceptions.RayError as error:
                if isinstance(error, self._ray.exceptions.RayTaskError):
                    raise  # a bug, with the traceback of the worker
                # A shard-stage that gets no further may be what kills workers. The journal has rows
                # that are not made again; that of a machine with a copy of the run is not seen.
                tokens = self._forget(attempt)
                advanced = journal.size() > size or tokens > most_tokens
                most_tokens = max(most_tokens, tokens)
                losses = min(losses, MOST_SHARED_LOSSES) if advanced else losses + 1
                await self._lose(seat, worker, error)
                continue
            finally:
                self._attempts.pop(attempt, None)
                await self._leave(seat)
            if isinstance(made, PipelineError):
                raise made
            result: Made = made
            return result
        raise ShardBrokeWorkersError(
            f"{self._tries} workers died while they made the rest of this shard alone, one after "
            "the other"
        )

    async def _answer(self, call: Any) -> Any:
        """What a worker returns; raises what `stop` was given."""
        future = asyncio.ensure_future(_done(call))
        self._calls.add(future)
        try:
            return await future
        except asyncio.CancelledError:
            if self._broken is None:
                raise
            raise self._broken from None
        finally:
            self._calls.discard(future)

    async def stop(self, error: Exception) -> None:
        """Give up all workers, which may not be reached any more, and whatever they make."""
        self._broken = error
        for seat in self.seats:
            seat.worker = None
        for call in self._calls:
            call.cancel()
        async with self._changed:
            self._changed.notify_all()

    def table(self) -> list[dict[str, str | int]]:
        """What each worker has done and does, a row each, for people."""
        now = time.monotonic()
        return [
            {
                "worker": seat.number,
                "host": seat.station.host if seat.station else "",
                "GPU": seat.gpu,
                "shards": seat.busy,
                "rows": seat.rows,
                "tokens/s": round(seat.tokens / max(now - seat.since, 1.0)) if seat.since else 0,
                "restarts": seat.losses,
                "state": self._state(seat),
            }
            for seat in self.seats
        ]

    def _state(self, seat: Seat) -> str:
        if seat.worker is None:
            lost = f"; the last one was lost: {seat.reason}" if seat.reason else ""
            return f"starts, or waits for room in the cluster{lost}"
        if seat.busy:
            return "has a shard alone that lost its workers" if seat.closed else "works"
        free = next(each for each in self.seats if each.worker is not None)
        if self._suspects and seat is free:
            return "idle: kept for a shard that lost its workers"
        return "idle: no shard is ready for it"

    def release(self, shard_index: int) -> None:
        """A shard has ended its way through this pool's stages."""
        self._homes.pop(shard_index, None)

    async def close(self) -> None:
        """End all workers; they have nothing to do."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        workers = [seat.worker for seat in self.seats if seat.worker is not None]
        await asyncio.gather(*map(self._dismiss, workers))
        for seat in self.seats:
            seat.worker = None

    async def _dismiss(self, worker: Any) -> None:
        """End a worker, or keep its process for the next engine where it holds no GPU."""
        try:
            await asyncio.wait_for(_done(worker.close.remote()), 30)
        except (self._ray.exceptions.RayError, TimeoutError):
            self._ray.kill(worker)
            return
        if self._gpus:
            self._ray.kill(worker)
        else:
            self.cluster.parked.append(worker)

    def _made_by(self, seat: Seat, attempt: str) -> dict[str, str]:
        host = seat.station.host if seat.station else ""
        facts = {"worker": str(seat.number), "host": host, "attempt": attempt, "gpu": seat.gpu}
        return {name: value for name, value in facts.items() if value}

    async def _take(self, shard_index: int, *, alone: bool) -> Seat:
        """A worker for one shard-stage: that of the shard, or the one with the fewest shards."""
        async with self._changed:
            self._suspects += alone
            try:
                if self._broken is not None:
                    raise self._broken
                while (seat := self._choose(shard_index, alone)) is None:
                    await self._wait()
                seat.busy += 1
                seat.closed = alone
                self._homes[shard_index] = seat
                return seat
            finally:
                self._suspects -= alone

    def _choose(self, shard_index: int, alone: bool) -> Seat | None:
        there = [seat for seat in self.seats if seat.worker is not None and not seat.closed]
        if alone:
            return next((seat for seat in there[:1] if not seat.busy), None)
        # While a suspect waits, the first worker takes no other shard.
        there = there[bool(self._suspects) :]
        home = self._homes.get(shard_index)
        if home in there:
            return home
        shards: dict[Seat, int] = defaultdict(int)
        for seat in self._homes.values():
            shards[seat] += 1
        return min(there, key=lambda seat: shards[seat], default=None)

    async def _wait(self) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            await asyncio.wait_for(self._changed.wait(), NO_WORKER_S)
        except TimeoutError:
            if all(seat.worker is None for seat in self.seats):
                raise RunStoppedError(
                    f"no worker could be started in {NO_WORKER_S:g} s; give the cluster room for "
                    "one, then `rlaif resume`: all that succeeded is kept"
                ) from None

    async def _leave(self, seat: Seat) -> None:
        async with self._changed:
            seat.busy -= 1
            seat.closed = False
            self._changed.notify_all()

    async def _lose(self, seat: Seat, worker: Any, error: Exception) -> None:
        """Give a worker up, once for all its shards."""
        if seat.worker is not worker:
            return
        seat.worker = None
        self._ray.kill(worker)
        seat.losses += 1
        seat.reason = str(error).strip().partition("\n")[0][:160]
        host = seat.station.host if seat.station else "?"
        self._progress.note(
            f"worker {seat.number} on {host} is lost ({seat.reason}); another starts"
        )
        self._homes = {index: home for index, home in self._homes.items() if home is not seat}
        seat.lost.set()

    async def _fill(self, seat: Seat) -> None:
        """Keep a worker on this seat; what goes wrong is raised by the next shard-stage."""
        try:
            await self._keep_filled(seat)
        except Exception as error:
            self._broken = error
        seat.tried.set()
        async with self._changed:
            self._changed.notify_all()

    async def _keep_filled(self, seat: Seat) -> None:
        failed = 0
        while self._broken is None:
            parked = self.cluster.parked if not self._gpus else []
            worker = parked.pop() if parked else self._actor.remote()
            try:
                station = await worker.start.remote(replace(self._job, number=seat.number))
            except self._ray.exceptions.RayTaskError as error:
                station = PipelineError(str(error))
            except self._ray.exceptions.RayError as error:
                failed += 1
                if failed < MOST_FAILED_STARTS:
                    await asyncio.sleep(failed)
                    continue
                station = self._never(seat, error)
            failed = 0
            async with self._changed:
                if isinstance(station, PipelineError):
                    self._broken = station
                else:
                    seat.worker, seat.station = worker, station
                    seat.since = seat.since or time.monotonic()
                    seat.gpu = self.cluster.gpu_kind(station.node)
                seat.lost.clear()
                seat.tried.set()
                self._changed.notify_all()
            if self._broken is None:
                await seat.lost.wait()

    def _never(self, seat: Seat, error: Exception) -> PipelineError:
        reason = str(error).strip().partition("\n")[0][:160]
        return RunStoppedError(
            f"worker {seat.number} died {MOST_FAILED_STARTS} times while it started ({reason}); "
            "remove the cause, then `rlaif resume`: all that succeeded is kept"
        )

    async def _watch(self) -> None:
        """Show what the workers make, before their shards are finished."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for worker in [seat.worker for seat in self.seats if seat.worker is not None]:
                try:
                    accounts, notes = await worker.progress.remote()
                except self._ray.exceptions.RayError:
                    continue  # whoever waits for its rows will know
                for attempt, account in accounts.items():
                    self._saw(attempt, account)
                for note in notes:
                    self._progress.note(note)

    def _saw(self, attempt: str, account: Account) -> None:
        """Pass on what an attempt has made since it was last seen."""
        if attempt not in self._attempts:
            return
        seat, before = self._attempts[attempt]
        if account.rows_planned > before.rows_planned:
            self._progress.planned(account.folder, account.rows_planned)
        new = _difference(account.counts, before.counts)
        if new.expected:
            seat.rows += new.expected - new.reused
            seat.tokens += new.generated_tokens
            self._progress.rows_done(account.folder, new)
        self._attempts[attempt] = seat, account

    def _forget(self, attempt: str) -> int:
        """Take back what a lost attempt was seen to plan and make; returns its tokens."""
        _, account = self._attempts.pop(attempt)
        if account.rows_planned:
            self._progress.worker_lost(account.folder, account.rows_planned, account.counts)
        return account.counts.prompt_tokens + account.counts.generated_tokens


async def _done(call: Any) -> Any:
    return await call


def _difference(new: ShardCounts, old: ShardCounts) -> ShardCounts:
    return replace(
        new,
        expected=new.expected - old.expected,
        reused=new.reused - old.reused,
        prompt_tokens=new.prompt_tokens - old.prompt_tokens,
        cached_tokens=new.cached_tokens - old.cached_tokens,
        generated_tokens=new.generated_tokens - old.generated_tokens,
    )
