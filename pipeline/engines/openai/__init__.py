"""Models behind OpenAI-compatible endpoints."""

import os

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.base import Engine, EngineKind
from pipeline.errors import ConfigError


def check(config: OpenAIConfig) -> None:
    """The key's environment variable.

    Raises:
        ConfigError: the variable is not set.
    """
    if config.api_key_env is not None and not os.environ.get(config.api_key_env):
        raise ConfigError(
            f"environment variable {config.api_key_env} is not set, and the endpoint "
            f"{config.base_url} needs its key there; export {config.api_key_env}=..."
        )


async def _open(config: OpenAIConfig) -> Engine:
    from pipeline.engines.openai.engine import open_openai

    return await open_openai(config)


# No identity: whether a vLLM server answers, which is part of the fingerprint, only a call tells.
OPENAI = EngineKind(check=check, open=_open)
