"""When requests are sent, on a clock that jumps: patience, retries, concurrency, dead servers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pipeline.engines.base import NOTICE
from pipeline.engines.openai.pace import PATIENCE_S, Broken, Busy, Gate, Pace, pause_s
from pipeline.errors import EngineError, FinalCallError, RunStoppedError
from tests.engines.virtual_time import run_virtually

REFUSED = Broken("endpoint E failed: refused", "cannot be reached (refused)")


def now() -> float:
    return asyncio.get_running_loop().time()


class Server:
    """Answers after `seconds`, as `answer(time, number of the request)` says; None is good."""

    def __init__(
        self, answer: Callable[[float, int], Exception | None], seconds: float = 0.1
    ) -> None:
        self._answer, self._seconds = answer, seconds
        self.sent: list[float] = []
        self.questions: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.lines: list[tuple[float, str]] = []

    async def request(self) -> str:
        self.sent.append(now())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._seconds)
            if error := self._answer(now(), len(self.sent)):
                raise error
            return "fine"
        finally:
            self.in_flight -= 1

    async def is_alive(self) -> bool:
        self.questions.append(now())
        await asyncio.sleep(self._seconds)
        error = self._answer(now(), 0)
        if isinstance(error, Busy):
            raise error
        return not isinstance(error, Broken)

    def pace(self, most: int = 4, max_retries: int = 2) -> Pace:
        NOTICE.set(lambda line: self.lines.append((now(), line)))
        return Pace("endpoint E", most, max_retries, self.is_alive)


def run_all(server: Server, count: int, **settings: Any) -> list[Any]:
    async def work() -> list[Any]:
        pace = server.pace(**settings)
        calls: list[Awaitable[str]] = [pace.send(server.request) for _ in range(count)]
        return await asyncio.gather(*calls, return_exceptions=True)

    return run_virtually(work())


def test_pauses_double_up_to_half_a_minute() -> None:
    assert [pause_s(n) for n in (-1, 0, 1, 2, 3, 7, 5000)] == [0, 0, 0.5, 1, 2, 30, 30]


def test_a_request_waits_as_long_as_the_server_asks() -> None:
    server = Server(lambda at, number: Busy("answers 429", 66.0) if number == 1 else None)
    assert run_all(server, 1, max_retries=0) == ["fine"]
    assert server.sent == pytest.approx([0.0, 66.1])


def test_minutes_of_busy_answers_fail_no_row() -> None:
    """No header, 429 for 90 s: few requests are sent, and all are answered afterwards."""
    server = Server(lambda at, number: Busy("answers 429", None) if at < 90 else None)
    assert run_all(server, 16, most=8, max_retries=0) == ["fine"] * 16
    assert sum(at < 90 for at in server.sent) < 40 and max(server.sent) < 130


def test_the_number_in_flight_is_halved_and_grows_again() -> None:
    """The server takes 3 at once; more is 429. It is found, and never more than 16 are tried."""
    server = Server(lambda at, number: None)
    server._answer = lambda at, number: Busy("answers 429", 0.5) if server.in_flight > 3 else None

    async def work() -> tuple[list[str], float]:
        pace = server.pace(most=16)
        answers = await asyncio.gather(*(pace.send(server.request) for _ in range(60)))
        return answers, pace.limit

    answers, limit = run_virtually(work())
    assert answers == ["fine"] * 60 and server.most_in_flight == 16 and limit < 8
    assert len(server.sent) < 60 + 16 + 60


def test_one_wave_of_busy_answers_halves_once() -> None:
    server = Server(lambda at, number: Busy("answers 503", 1.0) if number <= 8 else None)

    async def work() -> float:
        pace = server.pace(most=8)
        calls = [asyncio.create_task(pace.send(server.request)) for _ in range(8)]
        await asyncio.sleep(0.5)
        limit = pace.limit
        await asyncio.gather(*calls)
        return limit

    assert run_virtually(work()) == 4.0


def test_a_broken_request_is_sent_again_max_retries_times() -> None:
    """Others are answered, so the server is there and the request itself is to blame."""
    server = Server(lambda at, number: None)

    async def bad() -> str:
        server.sent.append(now())
        raise Broken("endpoint E failed: 500", "answers 500")

    async def work() -> list[Any]:
        pace = server.pace(max_retries=2)
        return list(await asyncio.gather(pace.send(bad), return_exceptions=True))

    (error,) = run_virtually(work())
    assert isinstance(error, FinalCallError) and str(error) == (
        "endpoint E failed: 500 (sent 3 times)"
    )
    assert len(server.sent) == 3 and len(server.questions) == 1


@pytest.mark.parametrize(("others", "sent"), [(0, [0, 0.5, 1.5, 3.5]), (400, [0, 0.5, 1, 1.5])])
def test_a_request_that_alone_fails_is_given_up_soon(others: int, sent: list[float]) -> None:
    """Its pauses grow only while nothing is answered: it holds its shard for 1.5 s, not 3.5 s."""
    server, tries = Server(lambda at, number: None, seconds=0.01), list[float]()

    async def bad() -> str:
        tries.append(now())
        raise Broken("endpoint E failed: 500", "answers 500")

    async def work() -> None:
        pace = server.pace(max_retries=3)
        calls = [pace.send(bad), *(pace.send(server.request) for _ in range(others))]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[0], FinalCallError)

    run_virtually(work())
    assert tries == pytest.approx(sent, abs=0.05)


def test_a_canceled_wait_gives_its_place_to_the_next() -> None:
    """Canceled while it waits, and in the moment after it was let in."""

    async def work() -> list[str]:
        gate, entered = Gate(1), list[str]()

        async def enter(name: str, *, first: bool = False) -> None:
            await gate.acquire(first=first)
            entered.append(name)

        await enter("one")
        tasks = {name: asyncio.create_task(enter(name)) for name in ("two", "three", "four")}
        tasks["again"] = asyncio.create_task(enter("again", first=True))
        await asyncio.sleep(0)
        tasks["two"].cancel()
        await asyncio.sleep(0)
        gate.release()
        await asyncio.sleep(0)
        assert entered == ["one", "again"]
        gate.release()
        tasks["three"].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == ["one", "again", "four"]
        gate.release()
        await asyncio.wait_for(gate.acquire(first=False), 1)
        return entered

    assert run_virtually(work()) == ["one", "again", "four"]


def test_an_odd_answer_is_asked_for_again_without_questions() -> None:
    server = Server(lambda at, number: EngineError("half a page") if number <= 2 else None)
    assert run_all(server, 1, max_retries=2) == ["fine"] and not server.questions
    server = Server(lambda at, number: EngineError("half a page"))
    assert "half a page (sent 2 times)" in str(run_all(server, 1, max_retries=1))


@pytest.mark.parametrize("max_retries", [0, 1, 5])
@pytest.mark.parametrize("most", [1, 8])
def test_a_dead_server_that_comes_back_fails_no_row(most: int, max_retries: int) -> None:
    server = Server(lambda at, number: REFUSED if 0.15 < at < 300 else None)
    assert run_all(server, 20, most=most, max_retries=max_retries) == ["fine"] * 20
    tried = [at for at in server.sent if 0.15 < at < 300]
    assert len(tried) <= 8 + 5  # those in flight, and few more until it counts as silent
    assert 8 <= len([at for at in server.questions if at < 300]) <= 16
    assert all(b - a > 0.4 for a, b in zip(server.questions, server.questions[1:], strict=False))


def test_a_server_that_stays_dead_stops_the_run_and_fails_no_row() -> None:
    server = Server(lambda at, number: REFUSED if at > 0.15 else None)
    results = run_all(server, 20, most=4)
    assert results[:4] == ["fine"] * 4
    assert {type(result) for result in results[4:]} == {RunStoppedError}
    assert str(results[-1]) == (
        "endpoint E has answered no request for 15 min: it cannot be reached (refused); correct "
        "that, then `rlaif resume`: all that succeeded is kept"
    )
    assert PATIENCE_S < server.questions[-1] < PATIENCE_S + 60


def test_a_server_that_is_busy_for_good_stops_the_run() -> None:
    server = Server(lambda at, number: Busy("answers 429", 2.0))
    results = run_all(server, 6)
    assert {type(result) for result in results} == {RunStoppedError}
    assert "no request for 15 min: it answers 429; correct" in str(results[0])
    assert len(server.sent) < 60


def test_a_server_that_loads_after_it_was_gone_is_asked_small_questions() -> None:
    """Its 503 is no answer yet: it waits as long as it is asked to, and patience is not renewed."""
    busy = Busy("answers 503", 100.0)
    server = Server(lambda at, number: None if at > 400 else busy if at > 60 else REFUSED)
    assert run_all(server, 12) == ["fine"] * 12
    assert sum(at < 400 for at in server.sent) < 10
    assert 3 <= sum(60 < at < 400 for at in server.questions) <= 5
    server = Server(lambda at, number: busy if at > 60 else REFUSED)
    assert "no request for 15 min: it answers 503" in str(run_all(server, 2)[0])
    assert PATIENCE_S < server.questions[-1] < PATIENCE_S + 110


def test_a_wait_of_hours_stops_the_run_at_once() -> None:
    server = Server(lambda at, number: Busy("answers 429", 7200.0))
    results = run_all(server, 6, most=2)
    assert {type(result) for result in results} == {RunStoppedError}
    assert "answers 429 and asks to wait 120 min" in str(results[0]) and len(server.sent) == 2


def test_a_request_that_kills_the_server_each_time_fails_in_the_end() -> None:
    """The server is gone for a minute after each such request, and a supervisor restarts it."""
    gone_until = 0.0

    async def killer() -> str:
        nonlocal gone_until
        gone_until = now() + 60
        raise REFUSED

    server = Server(lambda at, number: REFUSED if at < gone_until else None)

    async def work() -> list[Any]:
        pace = server.pace(max_retries=1)
        calls = [pace.send(killer), *(pace.send(server.request) for _ in range(5))]
        return await asyncio.gather(*calls, return_exceptions=True)

    error, *others = run_virtually(work())
    assert isinstance(error, FinalCallError) and others == ["fine"] * 5


def test_a_person_reads_why_nothing_moves_and_when_it_does_again() -> None:
    server = Server(lambda at, number: Busy("answers 429", 50.0) if at < 100 else None)
    assert run_all(server, 12) == ["fine"] * 12
    *times, _ = [at for at, _ in server.lines]
    assert times == [20.0, 50.0, 80.0]
    assert server.lines[0][1] == (
        "waiting: endpoint E answers 429, 12 requests wait, next try in 30 s; without an answer "
        "the run stops in 15 min"
    )
    assert server.lines[-1][1].startswith("endpoint E answers again, after 100 s")


def test_a_server_that_says_nothing_at_all_is_named_before_any_timeout() -> None:
    server = Server(lambda at, number: None, seconds=70.0)
    assert run_all(server, 3) == ["fine"] * 3
    assert [line for _, line in server.lines] == [
        "waiting: endpoint E has sent nothing for 20 s, 3 requests wait",
        "waiting: endpoint E has sent nothing for 50 s, 3 requests wait",
        "endpoint E answers again, after 70 s",
    ]


def test_nothing_is_said_of_a_server_that_answers() -> None:
    server = Server(lambda at, number: Busy("answers 429", 1.0) if number % 5 == 0 else None, 5.0)
    assert run_all(server, 40) == ["fine"] * 40 and server.lines == []


def test_a_canceled_request_leaves_its_place() -> None:
    server = Server(lambda at, number: None, seconds=10.0)

    async def work() -> str:
        pace = server.pace(most=1)
        first, second = [asyncio.create_task(pace.send(server.request)) for _ in range(2)]
        await asyncio.sleep(1)
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        return await pace.send(server.request)

    assert run_virtually(work()) == "fine"
