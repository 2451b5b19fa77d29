"""Several servers behind one engine: prompts are spread, and a dead server loses its requests."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.engines import OpenAIConfig
from pipeline.config.yaml_file import parse_model
from pipeline.engines import open_engine
from pipeline.engines.base import NOTICE, Engine
from pipeline.engines.openai import pace
from pipeline.engines.openai.pace import Broken, Busy, Pace
from pipeline.engines.openai.replicas import ReplicatedEngine
from pipeline.errors import ConfigError, RunStoppedError
from pipeline.types import Generation, SamplingParams, user
from tests.engines.fake_endpoint import Answer, Endpoint, chat_reply, fake_endpoint
from tests.engines.virtual_time import run_virtually

pytestmark = pytest.mark.usefixtures("quick")
PROMPTS = [f"question {number}" for number in range(40)]


class Server:
    """A server that can be switched off; replies with its own name."""

    def __init__(self, name: str) -> None:
        self.name, self.is_on = name, True

    def answer(self, number: int, body: dict[str, Any]) -> Answer:
        return (200, chat_reply(self.name)) if self.is_on else (500, {})


@contextmanager
def two_servers() -> Iterator[tuple[Server, Server, OpenAIConfig, tuple[Endpoint, Endpoint]]]:
    one, two = Server("one"), Server("two")
    with fake_endpoint(one.answer) as first, fake_endpoint(two.answer) as second:
        config = OpenAIConfig(
            type="openai",
            base_url=first.base_url,
            replicas=(second.base_url,),
            model="m",
            max_retries=2,
        )
        yield one, two, config, (first, second)


async def replies(engine: Engine, prompts: list[str] = PROMPTS) -> list[str]:
    """Which server answered each prompt."""
    calls = (
        engine.generate((user(prompt),), SamplingParams(), seed=1, request_id=prompt)
        for prompt in prompts
    )
    return [generation.text for generation in await asyncio.gather(*calls)]


async def test_each_prompt_has_its_server() -> None:
    with two_servers() as (_, _, config, _):
        async with open_engine(config) as engine:
            first = await replies(engine)
            assert await replies(engine) == first
    # 40 fair draws leave 10 to 30 with a probability of 0.999.
    assert 10 <= Counter(first)["one"] <= 30


async def test_a_dead_server_is_named_once_and_loses_its_requests() -> None:
    lines: list[str] = []
    NOTICE.set(lines.append)
    with two_servers() as (_, two, config, (_, second)):
        async with open_engine(config) as engine:
            before = await replies(engine)
            two.is_on = False
            assert await replies(engine) == ["one"] * len(PROMPTS)
            assert await replies(engine) == ["one"] * len(PROMPTS)
            (named,) = lines
            assert second.base_url in named and "move to the other server" in named
            two.is_on = True
            async with asyncio.timeout(5):
                while len(lines) < 2:
                    await asyncio.sleep(0.01)
            assert "answers again" in lines[1]
            assert await replies(engine) == before


async def test_a_run_stops_when_all_are_gone() -> None:
    with two_servers() as (one, two, config, _):
        async with open_engine(config) as engine:
            one.is_on = two.is_on = False
            with pytest.raises(RunStoppedError, match="has answered no request for"):
                await replies(engine, PROMPTS[:4])


class Toy:
    """A server on a clock that jumps: `fault(time)` instead of an answer; None is good."""

    def __init__(self, name: str, fault: Callable[[float], Exception | None]) -> None:
        self.name = self.fingerprint = self.version = name
        self.max_context, self._fault = 512, fault
        self.pace = Pace(name, 64, 2, self._is_alive)

    async def _reply(self) -> Generation:
        await asyncio.sleep(0.01)
        if error := self._fault(asyncio.get_running_loop().time()):
            raise error
        return Generation(self.name, "stop", 1, 1)

    async def _is_alive(self) -> bool:
        try:
            await self._reply()
        except Broken:
            return False
        return True

    async def generate(self, *_: object, **__: object) -> Generation:
        return await self.pace.send(self._reply)

    async def close(self) -> None:
        """Nothing is open."""


def refused(_: float) -> Exception:
    return Broken("refused", "cannot be reached")


def busy(_: float) -> Exception:
    return Busy("answers 503", None)


def test_a_server_that_is_busy_for_good_loses_its_requests() -> None:
    """After the patience of a run, and not for the moment of one small question."""
    lines: list[str] = []
    NOTICE.set(lines.append)

    async def work() -> list[float]:
        engine, times = ReplicatedEngine(servers), [0.0]
        for _ in range(2):
            assert await replies(engine) == ["one"] * len(PROMPTS)
            times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(5 * pace.PATIENCE_S)
        await engine.close()
        return times

    servers: Any = [Toy("one", lambda at: None), Toy("two", busy)]
    _, first, second = run_virtually(work())
    assert pace.PATIENCE_S < first < 1.2 * pace.PATIENCE_S
    assert second - first < 5.1 * pace.PATIENCE_S
    assert lines == ["two answers 503; its requests move to the other server"]


@pytest.mark.parametrize("fault", [busy, refused])
def test_a_run_stops_when_the_last_server_is_busy_for_good(fault: Callable[..., Any]) -> None:
    async def work() -> float:
        engine = ReplicatedEngine(servers)
        with pytest.raises(RunStoppedError, match="has answered no request for"):
            await replies(engine)
        await engine.close()
        return asyncio.get_running_loop().time()

    servers: Any = [Toy("one", busy), Toy("two", fault)]
    assert pace.PATIENCE_S < run_virtually(work()) < 1.3 * pace.PATIENCE_S


def test_patience_begins_when_nobody_answers() -> None:
    """Server two has been gone for longer than any patience when the other one hiccups."""
    patience = pace.PATIENCE_S

    async def work() -> None:
        engine = ReplicatedEngine(servers)
        assert await replies(engine) == ["one"] * len(PROMPTS)
        await asyncio.sleep(3 * patience)
        assert {*await replies(engine)} <= {"one", "two"}
        await asyncio.sleep(3 * patience)
        assert {*await replies(engine)} == {"one", "two"}
        await engine.close()

    servers: Any = [
        Toy("one", lambda at: refused(at) if 3 < at / patience < 3.5 else None),
        Toy("two", lambda at: refused(at) if at / patience < 4 else None),
    ]
    run_virtually(work())


async def test_a_server_that_cannot_be_reached_at_first_is_left_out() -> None:
    lines: list[str] = []
    NOTICE.set(lines.append)
    with two_servers() as (_, _, config, _):
        gone = config.model_copy(update={"replicas": ("http://127.0.0.1:9/v1",)})
        async with open_engine(gone) as engine:
            assert await replies(engine) == ["one"] * len(PROMPTS)
    assert "127.0.0.1:9" in lines[0] and "the other servers do its work" in lines[0]


async def test_servers_of_two_kinds_are_refused() -> None:
    pages = {"/version": lambda body: (200, {"version": "0.32.0"})}
    with two_servers() as (_, _, config, _), fake_endpoint(lambda n, b: (200, {}), pages) as vllm:
        mixed = config.model_copy(update={"replicas": (vllm.base_url,)})
        with pytest.raises(ConfigError, match="must be alike"):
            async with open_engine(mixed):
                pass


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("http://127.0.0.1:8000/v1/", "name a server twice"),
        ("http://sk-secret@127.0.0.1:8001/v1", "a user part"),
        ("sk-secret", "not usable"),
    ],
)
def test_addresses_are_checked(second: str, said: str) -> None:
    text = f"type: openai\nbase_url: http://127.0.0.1:8000/v1\nmodel: m\nreplicas: ['{second}']\n"
    with pytest.raises(ConfigError, match=said) as refused:
        parse_model(text, OpenAIConfig, str(Path("recipe.yaml")))
    assert "secret" not in str(refused.value)
