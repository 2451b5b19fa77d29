"""An engine that is opened when it is first asked, and opened anew when it has died.

A resumed run whose shards are all there needs a model's fingerprint, for the manifest keys, but
never the model: nothing is loaded then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

from pipeline.config.engines import EngineConfig, VllmConfig
from pipeline.engines import check_engine, open_engine
from pipeline.engines.base import Engine
from pipeline.engines.checks import dtype_for, model_folder
from pipeline.engines.fingerprint import model_fingerprint
from pipeline.errors import EngineDeadError
from pipeline.types import EngineStats, Generation, Messages, OptionScores, SamplingParams

T = TypeVar("T")
MAX_OPENINGS = 3


def vllm_fingerprint(config: VllmConfig) -> str:
    """The fingerprint that the opened engine will have, from its files alone."""
    return model_fingerprint(
        model_folder(config),
        dtype=dtype_for(config),
        adapter=config.adapter,
        chat_template=config.chat_template,
        chat_template_args=config.chat_template_args,
    )


class LazyEngine:
    """An Engine over a local model that is loaded at the first call."""

    def __init__(self, config: VllmConfig, on_open: Callable[[str], None] | None = None) -> None:
        check_engine(config)
        self.name = config.model
        self.fingerprint = vllm_fingerprint(config)
        self.version = "vllm (not opened)"
        self.max_context = config.max_context or 0
        self.stats = EngineStats()
        self._config = config
        self._on_open = on_open or (lambda name: None)
        self._engine: Engine | None = None
        self._stack = AsyncExitStack()
        self._lock = asyncio.Lock()
        self._openings = 0

    async def generate(
        self, messages: Messages, sampling: SamplingParams, *, seed: int, request_id: str
    ) -> Generation:
        """See Engine.generate."""
        return await self._ask(
            lambda engine: engine.generate(messages, sampling, seed=seed, request_id=request_id)
        )

    async def score(
        self, messages: Messages, options: Sequence[str], *, request_id: str, reply_prefix: str = ""
    ) -> OptionScores:
        """See Engine.score."""
        return await self._ask(
            lambda engine: engine.score(
                messages, options, request_id=request_id, reply_prefix=reply_prefix
            )
        )

    async def score_reply(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """See Engine.score_reply."""
        return await self._ask(lambda engine: engine.score_reply(messages, request_id=request_id))

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
                    raise EngineDeadError(f"the engine for {self.name} died {MAX_OPENINGS} times")
                self._openings += 1
                self._on_open(self.name)
                engine = await self._stack.enter_async_context(open_engine(self._config))
                self.version, self.max_context = engine.version, engine.max_context
                self.stats = engine.stats
                self._engine = engine
        return self._engine

    async def close(self) -> None:
        """Release the model if it was loaded."""
        self._engine = None
        await self._stack.aclose()

    async def _ask(self, call: Callable[[Engine], Awaitable[T]]) -> T:
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def lazy_engine(
    config: EngineConfig, on_open: Callable[[str], None] | None = None
) -> AbstractAsyncContextManager[Engine]:
    """An async context manager that gives an engine; a local model is loaded at its first call."""
    return LazyEngine(config, on_open) if isinstance(config, VllmConfig) else open_engine(config)
