"""Several servers with one model as one engine: a server that stops answering loses its requests.

In:  the settings of an endpoint that names further addresses (`replicas`)
Out: an Engine; all requests about one prompt go to one server, for its prefix cache

Prompts are spread evenly, by hash. Each server has a pace of its own (`pace.py`). One that does not
answer, or is busy for too long, is named, its requests move to the others, and it is asked small
questions until it answers again. The run's patience begins when the last of them stops answering.

Does not: balance by load.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.base import NOTICE, Forwarding
from pipeline.engines.openai.engine import OpenAIEngine, open_openai
from pipeline.errors import ConfigError, RunStoppedError
from pipeline.ids import content_hash, uniform
from pipeline.types import Messages

T = TypeVar("T")


class ReplicatedEngine(Forwarding):
    """An Engine over several servers; safe to call from many coroutines of one event loop.

    Args:
        engines: one for each server, all with one fingerprint.
    """

    def __init__(self, engines: Sequence[OpenAIEngine]) -> None:
        first = engines[0]
        self.name, self.fingerprint, self.version = first.name, first.fingerprint, first.version
        self.max_context = min(engine.max_context for engine in engines)
        self._engines = tuple(engines)
        self._gone: dict[OpenAIEngine, asyncio.Task[None]] = {}
        """Servers that do not answer, and who asks them whether they do again."""
        self._change = asyncio.get_running_loop().create_future()
        """Done when a server stops answering or begins again; then there is another one."""
        for engine in engines:
            engine.pace.on_silence = partial(self._lose, engine)
            engine.pace.nobody_since = self._nobody_since

    async def close(self) -> None:
        """Close the connections; calling twice is harmless."""
        for task in self._gone.values():
            task.cancel()
        await asyncio.gather(*self._gone.values(), return_exceptions=True)
        await asyncio.gather(*(engine.close() for engine in self._engines))

    async def _ask(self, messages: Messages, call: Callable[[OpenAIEngine], Awaitable[T]]) -> T:
        """The answer of the prompt's server, or of the next one that answers.

        Raises:
            RunStoppedError: no server will answer for now.
        """
        order = self._order(messages)
        while True:
            answering = (each for each in order if each not in self._gone)
            engine = next(answering, None) or [*self._gone][-1]
            work = asyncio.ensure_future(call(engine))
            try:
                while not work.done() and not self._should_move(engine):
                    await asyncio.wait({work, self._change}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    answer = work.result()
                    self.version = engine.version
                    return answer
            except RunStoppedError:
                self._lose(engine)
                if not self._should_move(engine):
                    raise
            finally:
                if not work.done():
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)

    def _order(self, messages: Messages) -> list[OpenAIEngine]:
        """All servers, the prompt's own first: what begins with the same turn goes together."""
        first = next((i for i, message in enumerate(messages) if message.role == "user"), 0)
        prompt = content_hash([message.as_dict() for message in messages[: first + 1]])
        return sorted(self._engines, key=lambda each: uniform("server", prompt, each.pace.name))

    def _should_move(self, engine: OpenAIEngine) -> bool:
        return engine in self._gone and not self._all_gone()

    def _all_gone(self) -> bool:
        return len(self._gone) == len(self._engines)

    def _nobody_since(self) -> float | None:
        """When the last server stopped answering; None while one answers."""
        times = (engine.pace.trouble_since for engine in self._engines if self._all_gone())
        return max((time for time in times if time is not None), default=None)

    def _lose(self, engine: OpenAIEngine) -> None:
        """Send nothing more to a server until it answers again."""
        if engine in self._gone:
            return
        self._gone[engine] = asyncio.create_task(self._watch(engine))
        left = len(self._engines) - len(self._gone)
        if left:
            does = engine.pace.trouble or "takes no more requests"
            NOTICE.get()(
                f"{engine.pace.name} {does}; its requests move to the other "
                f"{f'{left} servers' if left > 1 else 'server'}"
            )
        self._tell()

    def _tell(self) -> None:
        self._change.set_result(None)
        self._change = asyncio.get_running_loop().create_future()

    async def _watch(self, engine: OpenAIEngine) -> None:
        try:
            await engine.pace.revive()
        except RunStoppedError:
            return  # for this run it stays out
        del self._gone[engine]
        self._tell()
        NOTICE.get()(f"{engine.pace.name} answers again and gets its requests back")


def servers_of(config: OpenAIConfig) -> list[OpenAIConfig]:
    """The settings of each server alone."""
    urls = (config.base_url, *config.replicas)
    return [config.model_copy(update={"base_url": url, "replicas": ()}) for url in urls]


async def open_replicas(config: OpenAIConfig) -> ReplicatedEngine:
    """Connect to all servers; one that cannot be reached is named, and the others do its work.

    Raises:
        ConfigError: none can be used, or they are of different kinds.
    """
    found = await asyncio.gather(
        *(open_openai(each) for each in servers_of(config)), return_exceptions=True
    )
    engines = [each for each in found if isinstance(each, OpenAIEngine)]
    faults = [each for each in found if isinstance(each, BaseException)]
    try:
        for fault in faults:
            if not engines or not isinstance(fault, ConfigError):
                raise fault
            NOTICE.get()(f"{fault}; until then the other servers do its work")
        kinds = {engine.fingerprint: engine for engine in engines}
        if len(kinds) > 1:
            one, other = list(kinds.values())[:2]
            raise ConfigError(
                f"{one.pace.name} is {one.version}, and {other.pace.name} is {other.version}, but "
                "the servers of one engine must be alike; correct `replicas`, or set `flavor`"
            )
    except BaseException:
        await asyncio.gather(*(engine.close() for engine in engines))
        raise
    return ReplicatedEngine(engines)
