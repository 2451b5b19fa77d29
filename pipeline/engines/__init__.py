"""Models behind one protocol: `open_engine(config)` gives an Engine, whatever kind it is.

    async with open_engine(config) as engine:
        reply = await engine.generate(messages, sampling, seed=1, request_id="r-1")

Only the implementation that is asked for is imported; importing this package loads neither torch
nor vLLM nor an HTTP client. `check_engine` finds a user's mistakes before anything is opened.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.config.engines import EngineConfig, OpenAIConfig, ScriptedConfig, VllmConfig
from pipeline.engines.base import Engine
from pipeline.engines.scripted import Call, ScriptedEngine

__all__ = ["Call", "Engine", "ScriptedEngine", "check_engine", "open_engine"]


@asynccontextmanager
async def open_engine(config: EngineConfig) -> AsyncIterator[Engine]:
    """The model that `config` describes, loaded or connected, and closed at the end.

    Raises:
        ConfigError, MachineError: as `check_engine`, which this calls first.
    """
    check_engine(config)
    engine = await _open(config)
    try:
        yield engine
    finally:
        await engine.close()


async def _open(config: EngineConfig) -> Engine:
    if isinstance(config, ScriptedConfig):
        from pipeline.engines.scripted import scripted_from_config

        return scripted_from_config(config)
    if isinstance(config, OpenAIConfig):
        from pipeline.engines.openai.engine import open_openai

        return await open_openai(config)
    from pipeline.engines.vllm.engine import open_vllm

    return await open_vllm(config)


def check_engine(config: EngineConfig) -> None:
    """Find what a person must correct, without loading a model or a heavy package.

    Raises:
        ConfigError: model folder, weights, chat template, adapter, script or key missing.
        MachineError: the device asked for is not there, or the environment cannot use it.
    """
    if isinstance(config, ScriptedConfig):
        from pipeline.engines.scripted import scripted_from_config

        scripted_from_config(config)
    elif isinstance(config, OpenAIConfig):
        from pipeline.engines.checks import check_openai

        check_openai(config)
    else:
        assert isinstance(config, VllmConfig)
        from pipeline.engines.checks import check_vllm

        check_vllm(config)
