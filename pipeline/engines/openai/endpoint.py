"""Requests to one endpoint: limited in number, every failure turned into an error of ours.

Transport faults, 429 and 5xx are tried again with exponential backoff by the client, at most
`max_retries` times; nothing else is. The key is read from the environment by its name and is kept
nowhere.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import openai

from pipeline.config.engines import OpenAIConfig
from pipeline.errors import ConfigError, EngineDeadError, EngineError, PromptTooLongError

T = TypeVar("T")
_TOO_LONG = (
    "context length",
    "context_length",
    "maximum model length",
    "too many tokens",
    "max_model_len",
    "longer than the maximum",
)


class Usage(NamedTuple):
    """Tokens of one reply, as the endpoint reports them; 0 where it does not."""

    prompt: int
    reply: int
    cached: int
    """Prompt tokens from the prefix cache."""


class Endpoint:
    """An OpenAI-compatible endpoint and how to talk to it."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.root = config.base_url.rstrip("/").removesuffix("/v1")
        self.client = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=os.environ[config.api_key_env] if config.api_key_env else "none",
            timeout=config.timeout_s,
            max_retries=config.max_retries,
        )
        self._gate = asyncio.Semaphore(config.max_concurrency)

    async def call(self, request: Callable[[], Awaitable[T]]) -> T:
        """One request within the concurrency limit.

        Raises:
            EngineDeadError: the endpoint is closed.
            ConfigError: the key is refused, or the model or the address unknown.
            PromptTooLongError, EngineError: as `Engine.generate`.
        """
        async with self._gate:
            if self.client.is_closed():
                raise EngineDeadError(f"engine '{self.config.model}' is closed; open it again")
            try:
                return await request()
            except openai.APIError as error:
                raise self._named(error) from error

    async def close(self) -> None:
        """Close the connections; calling twice is harmless."""
        await self.client.close()

    def _named(self, error: openai.APIError) -> Exception:
        """Our error for a failed request: which of them a retry may cure."""
        line, where = one_line(error), f"endpoint {self.config.base_url}"
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return ConfigError(
                f"{where} refused the key ({line}); set `api_key_env` to the right one"
            )
        if isinstance(error, openai.NotFoundError):
            return ConfigError(f"{where} does not know the model or the address ({line})")
        if isinstance(error, openai.BadRequestError) and any(s in line.lower() for s in _TOO_LONG):
            return PromptTooLongError(f"{where} refused a prompt as too long: {line}")
        return EngineError(f"{where} failed: {type(error).__name__}: {line}")


def usage_of(reply: Any) -> Usage:
    """Tokens that a reply of the API reports."""
    usage = reply.usage
    details = getattr(usage, "prompt_tokens_details", None)
    return Usage(
        int(getattr(usage, "prompt_tokens", 0) or 0),
        int(getattr(usage, "completion_tokens", 0) or 0),
        int(getattr(details, "cached_tokens", 0) or 0),
    )


def one_line(error: Exception) -> str:
    """The start of an error's message, on one line."""
    return " ".join(str(error).split())[:300]
