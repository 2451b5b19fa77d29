"""Requests to one endpoint: limited in number, every failure turned into an error of ours.

Transport faults, 429 and 5xx are tried again with exponential backoff by the client, at most
`max_retries` times; nothing else is. The key is read from the environment by its name and is kept
nowhere: what a server says of a failure is cleared of it, since some repeat the request's headers.

Does not: follow redirects to another host, use a proxy for loopback, or send what the shell holds
for other services (`OPENAI_ORG_ID`, `OPENAI_PROJECT_ID`).
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import openai

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.openai import read_key
from pipeline.engines.reply import whole_text
from pipeline.errors import (
    ConfigError,
    EngineDeadError,
    EngineError,
    FinalCallError,
    PromptTooLongError,
)

T = TypeVar("T")
ODD_ANSWER = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What reading an answer of another shape raises: cut JSON, a page, a missing field, a text where
a number belongs."""
_MOST_TOKENS = 2**31
_TOO_LONG = (
    "context length",
    "context_length",
    "maximum model length",
    "too many tokens",
    "max_model_len",
    "longer than the maximum",
    "context size",
    "context window",
    "prompt is too long",
    "max_new_tokens` must be",
)


_KEYS = re.compile(r"(?i:\b(?:bearer|basic)\s+)[^\s'\"]+|\bsk-[\w-]+")
"""What looks like a key in a server's message."""
_UNSENT = ("OpenAI-Organization", "OpenAI-Project")
"""Headers that the client takes from the shell."""


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
        self._key = read_key(config)
        self.root = config.base_url.rstrip("/").removesuffix("/v1")
        self.client = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=self._key or "none",
            http_client=openai.DefaultAsyncHttpxClient(
                # Also off: netrc and certificates of the shell, which loopback has no use for.
                trust_env=not _is_loopback(config.base_url),
                event_hooks={"request": [self._clean], "response": [_stop_foreign_redirect]},
            ),
            timeout=config.timeout_s,
            max_retries=config.max_retries,
        )
        self._gate = asyncio.Semaphore(config.max_concurrency)
        self._has_answered = False

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
                with self.reading():
                    answer = await request()
            except openai.APIError as error:
                raise self._named(error) from error
        self._has_answered = True
        return answer

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around all that takes an answer apart: a status of 200 promises nothing of its shape.

        Raises:
            EngineError: the answer has another shape than the API's.
        """
        try:
            yield
        except ODD_ANSWER as error:
            raise EngineError(
                f"endpoint {self.config.base_url} answered with something that is no whole answer "
                f"of its API ({type(error).__name__}: {self.one_line(error)})"
            ) from error

    async def close(self) -> None:
        """Close the connections; calling twice is harmless."""
        await self.client.close()

    async def _clean(self, request: Any) -> None:
        """Remove what the client adds although no recipe asks for it."""
        for name in _UNSENT if self._key else (*_UNSENT, "Authorization"):
            request.headers.pop(name, None)

    def one_line(self, error: object) -> str:
        """The start of an error's message, on one line and without keys."""
        text = whole_text(str(error))
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(_KEYS.sub("[key]", text).split())[:300]

    def _named(self, error: openai.APIError) -> Exception:
        """Our error for a failed request: which of them a retry may cure."""
        line, where = self.one_line(error), f"endpoint {self.config.base_url}"
        # An endpoint that has answered knows key and model: what it refuses now is one request.
        first = not self._has_answered
        if first and isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return ConfigError(
                f"{where} refused the key ({line}); set `api_key_env` to the right one"
            )
        if isinstance(error, openai.APIStatusError) and 300 <= error.status_code < 400:
            return ConfigError(
                f"{where} sends requests on to another address, which is not followed; set "
                "`base_url` to the endpoint's own address"
            )
        if first and isinstance(error, openai.NotFoundError):
            return ConfigError(f"{where} does not know the model or the address ({line})")
        if isinstance(error, openai.APIStatusError) and any(s in line.lower() for s in _TOO_LONG):
            return PromptTooLongError(f"{where} refused a prompt as too long: {line}")
        # The client has tried again what may pass; to repeat that here would multiply its tries.
        return FinalCallError(f"{where} failed: {type(error).__name__}: {line}")


def usage_of(reply: Any) -> Usage:
    """Tokens that a reply of the API reports."""
    usage = getattr(reply, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    return Usage(
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        _count(details, "cached_tokens"),
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def _stop_foreign_redirect(response: Any) -> None:
    """Take the target from a redirect to another host, so that prompts and key stay here."""
    if response.has_redirect_location:
        origin, target = response.url, response.url.join(response.headers["location"])
        same = (origin.scheme, origin.netloc) == (target.scheme, target.netloc)
        upgrade = (origin.scheme, target.scheme) == ("http", "https") and origin.host == target.host
        if not (same or upgrade):
            del response.headers["location"]


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and 0 <= value < _MOST_TOKENS else 0


def log_probability(value: Any) -> float:
    """Nats, as an endpoint reports them; NaN is left for the reader of the verdict.

    Raises:
        TypeError, ValueError: not a number, or above 0 by more than rounding.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a log-probability is {value!r}")
    if value > 0.01:
        raise ValueError(f"a log-probability is {value}")
    return float(value)
