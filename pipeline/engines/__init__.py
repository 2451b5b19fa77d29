"""Models behind one protocol: `open_engine(config)` gives an Engine, whatever kind it is.

    async with open_engine(config) as engine:
        reply = await engine.generate(messages, sampling, seed=1, request_id="r-1")

`ENGINES` is the table of kinds. A new kind needs its settings (`pipeline/config/engines.py`), its
behavior (a module with an `EngineKind`) and a line here. Importing this package loads neither
torch nor vLLM nor an HTTP client: a kind imports its engine when it opens one.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pipeline.config.engines import EngineSection
from pipeline.engines.base import Engine, EngineKind
from pipeline.engines.openai import OPENAI
from pipeline.engines.scripted import SCRIPTED, Call, ScriptedEngine
from pipeline.engines.vllm import VLLM

__all__ = ["ENGINES", "Call", "Engine", "ScriptedEngine", "check_engine", "open_engine"]

ENGINES: dict[str, EngineKind[Any]] = {"vllm": VLLM, "openai": OPENAI, "scripted": SCRIPTED}
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
