"""Models behind one protocol: `open_engine(config)` gives an Engine, whatever kind it is.

    async with open_engine(config) as engine:
        reply = await engine.generate(messages, sampling, seed=1, request_id="r-1")

`ENGINES` is the table of kinds. A new kind needs its settings (`pipeline/config/engines.py`), its
behavior (a module with an `EngineKind`) and a line here. Importing this package loads neither
torch nor vLLM nor an HTTP client: a kind imports its engine when it opens one.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from pipeline.config.engines import EngineSection
from pipeline.engines.base import Engine, EngineKind, Use
from pipeline.engines.openai import OPENAI
from pipeline.engines.scripted import SCRIPTED, Call, ScriptedEngine
from pipeline.engines.vllm import REWARD_MODEL, VLLM

__all__ = [
    "ENGINES",
    "Call",
    "Engine",
    "ScriptedEngine",
    "ask_engine",
    "check_engine",
    "open_engine",
]

ENGINES: dict[str, EngineKind[Any]] = {
    "vllm": VLLM,
    "openai": OPENAI,
    "scripted": SCRIPTED,
    "reward_model": REWARD_MODEL,
}
"""Engine kinds by the `type` of their settings."""


@asynccontextmanager
async def open_engine(config: EngineSection) -> AsyncIterator[Engine]:
    """The model that `config` describes, loaded or connected, and closed at the end.

    Raises:
        ConfigError, MachineError: as `check_engine`, which this calls first.
    """
    check_engine(config)
    engine = await ENGINES[config.type].open(config)
    try:
        yield engine
    finally:
        await engine.close()


def check_engine(config: EngineSection) -> None:
    """Find what a person must correct, without loading a model or a heavy package.

    Raises:
        ConfigError: model folder, weights, chat template, adapter, script or key missing.
        MachineError: the device asked for is not there, or the environment cannot use it.
    """
    ENGINES[config.type].check(config)


def ask_engine(config: EngineSection, use: Use) -> str | None:
    """What a model's server answers to one small question; None for a model without a server.

    At most two requests that are paid for, of one token each.

    Raises:
        ConfigError: not reachable, key refused, model unknown, or not fit for this use.
    """
    ask = ENGINES[config.type].ask
    if ask is None:
        return None
    # In a thread of its own: the caller may be a flow, whose event loop is running.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(ask(config, use))).result()
