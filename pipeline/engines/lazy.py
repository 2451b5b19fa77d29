"""An engine that is opened at its first call, and opened again when it has died.

A resumed run whose shards are all there needs a model's fingerprint, for the manifest keys, but
never the model: nothing is loaded then.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from pipeline.config.engines import EngineSection
from pipeline.engines import ENGINES, check_engine, open_engine
from pipeline.engines.base import Engine, Forwarding, Identity
from pipeline.errors import EngineDeadError
from pipeline.types import Messages

T = TypeVar("T")
MAX_OPENINGS = 3


class LazyEngine(Forwarding):
    """An Engine that is opened at the first call; name and fingerprint are known before.

    `version` and `max_context` are those of the opened engine from then on.
    """

    def __init__(self, config: EngineSection, identity: Identity) -> None:
        self.name, self.fingerprint = identity.name, identity.fingerprint
        self.version = f"{config.type} (not opened)"
        self.max_context = 0
        self._config = config
        self._engine: Engine | None = None
        self._stack = AsyncExitStack()
        self._lock = asyncio.Lock()
        self._openings = 0

    async def opened(self) -> Engine:
        """The loaded engine.

        Raises:
            EngineDeadError: it died too often.
        """
        if self._engine is not None:
            return self._engine
        async with self._lock:
            if self._engine is None:
                if self._openings >= MAX_OPENINGS:
                    raise EngineDeadError(
                        f"the engine for {self.name} died {MAX_OPENINGS} times; the reasons of "
                        "the failed rows say how: lower its memory or concurrency, then resume"
                    )
                self._openings += 1
                engine = await self._stack.enter_async_context(open_engine(self._config))
                self.version, self.max_context = engine.version, engine.max_context
                self._engine = engine
        return self._engine

    async def close(self) -> None:
        """Release the model if it was loaded."""
        self._engine = None
        await self._stack.aclose()

    async def _ask(self, messages: Messages, call: Callable[[Engine], Awaitable[T]]) -> T:
        engine = self._engine or await self.opened()
        try:
            return await call(engine)
        except EngineDeadError:
            # The first caller to notice drops the dead engine; the runner's retry opens a new one.
            async with self._lock:
                if self._engine is engine:
                    self._engine = None
                    await self._stack.aclose()
            raise


def unopened_engine(config: EngineSection) -> LazyEngine | None:
    """The engine before its first call; None where only the opened one knows its fingerprint.

    Raises:
        ConfigError, MachineError: as `check_engine`.
    """
    check_engine(config)
    identify = ENGINES[config.type].identify
    return LazyEngine(config, identify(config)) if identify else None


@asynccontextmanager
async def lazy_engine(config: EngineSection) -> AsyncIterator[Engine]:
    """An engine that is opened at its first call where that can wait, and closed at the end."""
    unopened = unopened_engine(config)
    if unopened is None:
        async with open_engine(config) as engine:
            yield engine
    else:
        try:
            yield unopened
        finally:
            await unopened.close()
