"""When requests to one endpoint are sent: how many at once, after which pause, and until when.

    busy     429, 503, 529: every request waits as long as the server asks, longer each time
    broken   no connection, no answer in time, another 5xx: sent again, `max_retries` times, after a
             pause that grows while no other request is answered
    silent   five broken ones in a row: one small question at a time until the endpoint answers,
             and no request uses up its retries meanwhile

The number in flight is halved by a busy answer or a timeout and grows by one with each round of
answers, up to `max_concurrency`. When nothing has been answered for 15 minutes the run stops; its
waiting rows are not failed. Where other servers answer, one that has been busy for as long is
silent. Nothing else repeats a request: the HTTP client is set not to.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from pipeline.engines.base import NOTICE
from pipeline.errors import EngineDeadError, EngineError, FinalCallError, RunStoppedError

T = TypeVar("T")
PATIENCE_S = 15 * 60.0
"""Seconds without any answer after which the run stops, or requests move to other servers."""
SILENT_AFTER = 5
"""Broken requests in a row after which the endpoint may be gone."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Pauses that no server asked for double from the first to the longest."""
HONORED = 5
"""Pauses of the server's own length that may fail before ours, if longer, take their place."""
NOTICE_AFTER_S, NOTICE_EVERY_S = 20.0, 30.0
"""Seconds without an answer until a person reads why, and between two such lines."""


class Busy(Exception):
    """The server does not take the request now.

    `wait_s` is how long it asks to wait; None where it does not say.
    """

    def __init__(self, cause: str, wait_s: float | None) -> None:
        super().__init__(cause)
        self.wait_s = wait_s


class Broken(Exception):
    """No answer of the server itself; `cause` is a few words for people, the message is all."""

    def __init__(self, message: str, cause: str, *, is_timeout: bool = False) -> None:
        super().__init__(message)
        self.cause, self.is_timeout = cause, is_timeout


def pause_s(number: int) -> float:
    """Seconds of the first, second, ... pause in a row: 0.5, 1, 2, ... 30; 0 before the first."""
    # A server may be gone for days, and 2.0**1024 is no number.
    return min(FIRST_PAUSE_S * 2.0 ** min(number - 1, 99), LONGEST_PAUSE_S) if number > 0 else 0.0


class Gate:
    """A semaphore with two queues: none of the second is let in while one of the first waits."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._queues = deque[asyncio.Future[None]](), deque[asyncio.Future[None]]()

    async def acquire(self, *, first: bool) -> None:
        """Wait for a place, in the first queue or in the second."""
        if self._free:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._queues[0 if first else 1].append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give a place to the next that waits."""
        for queue in self._queues:
            while queue:
                place = queue.popleft()
                if not place.done():
                    place.set_result(None)
                    return
        self._free += 1


class Pace:
    """Sends the requests of one endpoint.

    Args:
        name: the endpoint, as a person reads it.
        most: requests in flight at once, at most.
        max_retries: times that a broken request is sent again.
        is_alive: asks a small question; False when that is broken too. Raises Busy.
    """

    def __init__(
        self, name: str, most: int, max_retries: int, is_alive: Callable[[], Awaitable[bool]]
    ) -> None:
        self.name, self._most, self._max_retries, self._is_alive = (
            name,
            most,
            max_retries,
            is_alive,
        )
        self.on_silence: Callable[[], object] = lambda: None
        """Called when the endpoint is asked small questions alone, since it does not answer."""
        self.nobody_since: Callable[[], float | None] = lambda: self.trouble_since
        """When the last server that could answer stopped answering; None while one answers."""
        self.limit = float(most)
        """Requests in flight at once, now; its whole part counts."""
        self._gate = Gate(most)
        self._withheld = 0
        self._reviving = asyncio.Lock()
        self._stopped = ""
        self._in_a_row = self._num_pauses = self._outages = self._num_waiting = 0
        self.trouble = ""
        """What the endpoint does instead of answering, in a few words; empty while it answers."""
        self._resume_at = self._cut_at = self._quiet_since = self._noticed_at = float("-inf")
        self.trouble_since: float | None = None
        """When it began; None while the endpoint answers."""
        self._needs_revival = self._has_noticed = False

    async def send(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer to a request, which is sent as often as the rules above say.

        Raises:
            FinalCallError: it was broken, or its answer odd, each time.
            RunStoppedError: the endpoint has answered nothing for `PATIENCE_S`.
        """
        faults, allowed, was_sent = 0, self._max_retries, False
        with self._waiting():
            while True:
                fault: Exception
                async with self._turn(first=was_sent):
                    sent_at, was_sent = _now(), True
                    try:
                        answer = await request()
                    except Busy as busy:
                        self._pause(sent_at, busy)
                        continue
                    except Broken as broken:
                        self._count_broken(sent_at, broken)
                        fault = broken
                    except (FinalCallError, EngineDeadError):
                        self._answered()
                        raise
                    except EngineError as error:
                        self._answered()
                        fault = error
                    else:
                        self._answered()
                        return answer
                faults += 1
                if self._in_a_row and (faults > allowed or self._in_a_row >= SILENT_AFTER):
                    outages, self._needs_revival = self._outages, True
                    await self.revive()
                    # An outage is not the fault of a request, unless the request brings it about.
                    most = 2 * self._max_retries + 1
                    allowed = min(allowed + self._outages - outages, most)
                if faults > allowed:
                    raise FinalCallError(f"{fault} (sent {faults} times)") from fault
                # While others are answered, the fault lies with the request: waiting gains little.
                await asyncio.sleep(pause_s(max(1, self._in_a_row)))

    @property
    def is_silent(self) -> bool:
        """Whether the last request was broken, and not merely refused by a busy server."""
        return self._in_a_row > 0

    def stop(self, cause: str) -> RunStoppedError:
        """The error with which every waiting request ends, from now on."""
        self._stopped = self._stopped or (
            f"{self.name} {cause}; correct that, then `rlaif resume`: all that succeeded is kept"
        )
        return RunStoppedError(self._stopped)

    @asynccontextmanager
    async def _turn(self, *, first: bool) -> AsyncIterator[None]:
        """Wait until a request may be sent, and count it as in flight inside the block.

        Args:
            first: before those that were never sent; its shard has waited for it alone.
        """
        while True:
            if self._reviving.locked():
                await self.revive()
            if self._stopped:
                raise RunStoppedError(self._stopped)
            if (wait := self._resume_at - _now()) > 0:
                await asyncio.sleep(wait)
                continue
            await self._gate.acquire(first=first)
            # What happened in the queue may have changed the answer.
            if not (self._stopped or self._reviving.locked() or self._resume_at > _now()):
                break
            self._give_back()
        try:
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if self._most - self._withheld > int(self.limit):
            self._withheld += 1
        else:
            self._gate.release()

    def _answered(self) -> None:
        self._in_a_row = self._num_pauses = 0
        self._needs_revival, self.trouble_since = False, None
        self.limit = min(float(self._most), self.limit + 1 / self.limit)
        if int(self.limit) > self._most - self._withheld:
            self._withheld -= 1
            self._gate.release()
        if self._has_noticed:
            NOTICE.get()(f"{self.name} answers again, after {_span(_now() - self._quiet_since)}")
            self._has_noticed = False
        self._quiet_since, self.trouble = _now(), ""

    def _pause(self, sent_at: float, busy: Busy) -> None:
        """All requests wait. Raises RunStoppedError where that would be too long."""
        self._count_busy(busy)
        self._check_patience()
        # The answers to one wave of requests are one event.
        self._num_pauses += self._slow_down(sent_at)
        own = pause_s(self._num_pauses - (0 if busy.wait_s is None else HONORED))
        self._resume_at = max(self._resume_at, _now() + max(own, busy.wait_s or 0.0))

    def _count_busy(self, busy: Busy) -> None:
        self._in_a_row = 0
        self._begin_trouble(str(busy))
        if busy.wait_s is not None and busy.wait_s > PATIENCE_S:
            raise self.stop(f"{busy} and asks to wait {_span(busy.wait_s)}")

    def _count_broken(self, sent_at: float, broken: Broken) -> None:
        self._in_a_row += 1
        self._begin_trouble(broken.cause)
        if broken.is_timeout:
            self._slow_down(sent_at)

    def _slow_down(self, sent_at: float) -> bool:
        """Halve the number in flight, once for all requests that were sent before the last time."""
        if sent_at < self._cut_at:
            return False
        self.limit, self._cut_at = max(1.0, self.limit / 2), _now()
        return True

    async def revive(self) -> None:
        """Ask small questions, one at a time for all requests, until one is answered.

        Raises:
            RunStoppedError: none was for `PATIENCE_S`.
        """
        async with self._reviving:
            number = 0
            while self._needs_revival and not self._stopped:
                asked_s = 0.0
                try:
                    if await self._is_alive():
                        self._answered()
                        self._resume_at = _now()
                        break
                except Busy as busy:
                    self._count_busy(busy)
                    asked_s = busy.wait_s or 0.0
                self._outages += not number
                number += 1
                self.on_silence()
                self._check_patience()
                wait_s = max(asked_s, pause_s(number + 1))
                self._resume_at = _now() + wait_s
                await asyncio.sleep(wait_s)
        if self._stopped:
            raise RunStoppedError(self._stopped)

    def _begin_trouble(self, cause: str) -> None:
        self.trouble = cause
        if self.trouble_since is None:
            self.trouble_since = _now()

    def _check_patience(self) -> None:
        if _left(self.nobody_since()) < 0:
            raise self.stop(f"has answered no request for {_span(PATIENCE_S)}: it {self.trouble}")
        if _left(self.trouble_since) < 0:
            self._needs_revival = True
            self.on_silence()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Watch over a request from its beginning to its end."""
        if not self._num_waiting:
            self._quiet_since = _now()
            self._plan_notice()
        self._num_waiting += 1
        try:
            yield
        finally:
            self._num_waiting -= 1
            if not self._num_waiting:
                self._timer.cancel()

    def _plan_notice(self) -> None:
        due = max(self._quiet_since + NOTICE_AFTER_S, self._noticed_at + NOTICE_EVERY_S)
        self._timer = asyncio.get_running_loop().call_at(due, self._notice)

    def _notice(self) -> None:
        """Say why nothing moves, if it does not."""
        now = _now()
        if now - self._quiet_since >= NOTICE_AFTER_S:
            cause = self.trouble or f"has sent nothing for {_span(now - self._quiet_since)}"
            line = f"waiting: {self.name} {cause}, {self._num_waiting} requests wait"
            if self._resume_at > now:
                line += f", next try in {_span(self._resume_at - now)}"
            if (since := self.nobody_since()) is not None:
                line += f"; without an answer the run stops in {_span(max(0.0, _left(since)))}"
            elif self.trouble_since is not None:
                left = max(0.0, _left(self.trouble_since))
                line += f"; without an answer they move to another server in {_span(left)}"
            NOTICE.get()(line)
            self._noticed_at, self._has_noticed = now, True
        self._plan_notice()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _left(since: float | None) -> float:
    """Seconds of patience with what has lasted since then."""
    return PATIENCE_S if since is None else since + PATIENCE_S - _now()


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
