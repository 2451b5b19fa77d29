"""Requests to one endpoint: every failure is an error of ours, and says whether it may pass.

`pace.py` decides when a request is sent and whether again. The key is read from the environment by
its name and is kept nowhere: what a server says of a failure is cleared of it, since some repeat
the request's headers. An answer has `timeout_s` for all of it and is read up to `MOST_BYTES`.

Does not: follow redirects to another host, use a proxy for loopback, or send what the shell holds
for other services (`OPENAI_ORG_ID`, `OPENAI_CUSTOM_HEADERS` and the like).
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import httpx2
import openai
from openai.types import Completion
from openai.types.chat import ChatCompletion

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.openai import is_loopback, named_variables, read_key
from pipeline.engines.openai.pace import Broken, Busy, Pace
from pipeline.engines.openai.retry_after import asked_wait
from pipeline.engines.reply import whole_text
from pipeline.errors import (
    ConfigError,
    EngineDeadError,
    EngineError,
    FinalCallError,
    PromptTooLongError,
)
from pipeline.prompting.neutralize import break_tokens
from pipeline.types import Messages

T = TypeVar("T")
R = TypeVar("R")
ODD_ANSWER = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What reading an answer of another shape raises: cut JSON, a page, a missing field, a text where
a number belongs."""
_MOST_TOKENS = 2**31
MOST_BYTES = 32 * 2**20
"""A longer answer is cut off and counts as none; the longest replies have a hundredth of it."""
_MOST_PACKED = 512 * 2**10
"""A compressed answer may unpack to a thousand times its size."""
_CONNECT_S = 20.0
_LOOK_UP_S = 30.0
_BUSY = (429, 503, 529)
_MAY_PASS = (408, 409, 425)
"""In addition to 5xx."""
_NO_CREDIT = ("insufficient_quota", "exceeded your current quota", "insufficient balance")
_SHOWN = (1600, 400)
"""Characters from the beginning and from the end of a long message."""
_PAGE = re.compile(r"(?is)<(script|style)\b.*?</\1>|<[^<>]+>")
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window|limit)|context the overflows|max(?:imum)?[ _]model[ _]len"
    r"|max(?:imum)? (?:prompt|input) length|prompt exceeds max|range of input length|max_seq_len"
    r"|(?:number of input tokens|prompt token count)\b.* exceed|model token limit"
    r"|max_new_tokens` must be|inputs` must have less than|prompt (?:is )?too long"
    r"|(?:prompt|input) (?:\S+ )?is (?:too long|longer than)|too many tokens"
    r"|exceeds? the (?:maximum|max|model)\b.* tokens"
)
"""How servers and hosted APIs say it, in lower case; the tests have their whole sentences."""
_KEYS = re.compile(r"(?i:\b(?:bearer|basic)\s+)[^\s'\"]+|\bsk-[\w-]+")
"""What looks like a key in a server's message."""


class Usage(NamedTuple):
    """Tokens of one reply, as the endpoint reports them; 0 where it does not."""

    prompt: int
    reply: int
    cached: int
    """Prompt tokens from the prefix cache."""
    thought: int
    """Of the reply's tokens, those of a thought."""


class Endpoint:
    """An OpenAI-compatible endpoint and how to talk to it."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self._key = read_key(config)
        self.root = config.base_url.rstrip("/").removesuffix("/v1")
        with _without_variables("OPENAI_"), named_variables(config.base_url):
            self.client = openai.AsyncOpenAI(
                base_url=config.base_url,
                api_key=self._key or "none",
                http_client=openai.DefaultAsyncHttpxClient(
                    # Also off: netrc and certificates of the shell, which loopback does not need.
                    trust_env=not is_loopback(config.base_url),
                    event_hooks={
                        "request": [self._clean],
                        "response": [_stop_foreign_redirect, _bound],
                    },
                ),
                timeout=openai.Timeout(config.timeout_s, connect=min(_CONNECT_S, config.timeout_s)),
                max_retries=0,
            )
        self.where = f"endpoint {config.base_url}"
        self.pace = Pace(self.where, config.max_concurrency, config.max_retries, self._is_alive)
        self._has_answered = False

    async def call(self, request: Callable[[], Awaitable[R]], read: Callable[[R], T]) -> T:
        """What `read` makes of the answer to a request; an odd answer is asked for again.

        Raises:
            EngineDeadError: the endpoint is closed.
            ConfigError: the key is refused, or the model or the address unknown.
            RunStoppedError: nothing that is sent here will be answered for now.
            PromptTooLongError, EngineError: as `Engine.generate`.
        """
        return await self.pace.send(lambda: self.once(request, read))

    async def once(self, request: Callable[[], Awaitable[R]], read: Callable[[R], T]) -> T:
        """One request, not repeated.

        Raises:
            Busy, Broken: it may be sent again, see `pace.py`.
            EngineError: the answer is none of the API's.
            FinalCallError, ConfigError, RunStoppedError, EngineDeadError: as `call`.
        """
        if self.client.is_closed():
            raise EngineDeadError(f"engine '{self.config.model}' is closed; open it again")
        try:
            # The client's limit is for one read: a server that drips never meets it.
            async with asyncio.timeout(self.config.timeout_s):
                value = read(await request())
        except openai.APIError as error:
            raise self._named(error) from error
        except TimeoutError as error:
            raise self._late() from error
        except ODD_ANSWER as error:
            raise self._odd(error) from error
        self._has_answered = True
        return value

    async def look_up(
        self,
        request: Callable[[], Awaitable[R]],
        read: Callable[[R], T | None],
        *,
        needs_key: bool = False,
    ) -> T | None:
        """What `read` makes of a page about the server; None from a server without that page.

        Raises:
            ConfigError: no connection, or with `needs_key` a refused key.
        """

        async def ask() -> T | None:
            try:
                async with asyncio.timeout(min(_LOOK_UP_S, self.config.timeout_s)):
                    return read(await request())
            except openai.APIStatusError as error:
                refusal = self._refused(error)
                if isinstance(refusal, Busy) or (needs_key and error.status_code in (401, 403)):
                    raise refusal from error
            except (openai.APIConnectionError, TimeoutError) as error:
                reason = self.one_line(error.__cause__ or type(error).__name__)
                remedy = "start the server, or correct `base_url` and the key"
                if "CERTIFICATE_VERIFY_FAILED" in reason:
                    remedy = "name a file with the server's certificate in SSL_CERT_FILE"
                raise ConfigError(f"{self.where} cannot be used ({reason}); {remedy}") from error
            except (openai.APIError, *ODD_ANSWER):
                pass
            return None

        return await self.pace.send(ask)

    async def chat(self, **body: Any) -> ChatCompletion:
        """Send one chat request, once.

        `client.chat.completions.create` compares the body with its types first: 0.7 ms of the
        2.3 ms that a request costs the client.

        Raises:
            openai.APIError: no answer, or a refusal.
        """
        return await self._post("/chat/completions", body, ChatCompletion)

    async def complete(self, **body: Any) -> Completion:
        """Send one completion request, once; see `chat`."""
        return await self._post("/completions", body, Completion)

    async def _post(self, path: str, body: dict[str, Any], kind: type[T]) -> T:
        options: Any = {"security": {"bearer_auth": True}}
        named = {"model": self.config.model, **body}
        return await self.client.post(path, body=named, cast_to=kind, options=options)

    async def _is_alive(self) -> bool:
        """Whether the endpoint answers a question of one token, if only to refuse it.

        Raises Busy.
        """
        try:
            await self.once(
                lambda: self.chat(messages=[{"role": "user", "content": "Hi"}], max_tokens=1),
                lambda answer: answer,
            )
        except Broken:
            return False
        except (EngineError, ConfigError):
            return True
        return True

    async def close(self) -> None:
        """Close the connections; calling twice is harmless."""
        await self.client.close()

    async def _clean(self, request: Any) -> None:
        """Remove the key that the client makes up where there is none."""
        if not self._key:
            request.headers.pop("Authorization", None)

    def one_line(self, error: object) -> str:
        """An error's message on one line, without keys and tags; of a long one both ends."""
        text = whole_text(str(error))
        if self._key:
            text = text.replace(self._key, "[key]")
        if "<html" in text[:2000].lower():
            text = _PAGE.sub(" ", text)
        text = " ".join(_KEYS.sub("[key]", text).split())
        start, end = _SHOWN
        return text if len(text) <= start + end else f"{text[:start]} [...] {text[-end:]}"

    def _odd(self, error: Exception) -> EngineError:
        return EngineError(
            f"{self.where} answered with something that is not a complete answer of its API "
            f"({type(error).__name__}: {self.one_line(error)})"
        )

    def _late(self) -> Broken:
        cause = f"gives no whole answer within {self.config.timeout_s:g} s"
        return Broken(f"{self.where} {cause} (`timeout_s`)", cause, is_timeout=True)

    def _named(self, error: openai.APIError) -> Exception:
        """Our error for a failed request: which of them may pass."""
        if isinstance(error, openai.APITimeoutError):
            return self._late()
        if isinstance(error.__cause__, httpx2.DecodingError):
            return self._odd(error.__cause__)
        if not isinstance(error, openai.APIStatusError):
            reason = self.one_line(error.__cause__ or error)
            return Broken(
                f"{self.where} failed: {type(error).__name__}: {reason}",
                f"cannot be reached ({reason[:200]})",
            )
        return self._refused(error)

    def _refused(self, error: openai.APIStatusError) -> Exception:
        status, said = error.status_code, str(error)
        if re.fullmatch(r"Error code: \d+", said):
            # The client shows a body only where it is as it expects.
            said = f"{said} - {error.response.text}"
        line = self.one_line(said)
        # An endpoint that has answered knows key and model: what it refuses now is one request.
        first = not self._has_answered
        if status == 401 and not first:
            return self.pace.stop(f"does not accept the key any more ({line})")
        if status in (401, 403) and first:
            return ConfigError(
                f"{self.where} refused the key ({line}); set `api_key_env` to the right one"
            )
        if 300 <= status < 400:
            return ConfigError(
                f"{self.where} sends requests on to another address, which is not followed; set "
                "`base_url` to the endpoint's own address"
            )
        if status == 404 and first:
            return ConfigError(f"{self.where} does not know the model or the address ({line})")
        if status == 402 or (status == 429 and any(s in line.lower() for s in _NO_CREDIT)):
            return self.pace.stop(f"asks for payment ({line})")
        if status in _BUSY:
            return Busy(f"answers {status}", asked_wait(error.response.headers, time.time()))
        if _TOO_LONG.search(line.lower()):
            return PromptTooLongError(
                f"{self.where} refused the prompt as too long for the model's context: {line}"
            )
        message = f"{self.where} failed: {type(error).__name__}: {line}"
        if status >= 500 or status in _MAY_PASS:
            return Broken(message, f"answers {status}")
        return FinalCallError(message)


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of an answer, up to a limit."""

    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream, self._most = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > self._most:
                raise ValueError(f"more than {self._most:,} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: Any) -> None:
    """Read no more of an answer than one can have."""
    packed = response.headers.get("content-encoding", "")
    # Packed twice, a kilobyte unpacks to a gigabyte.
    most = 0 if "," in packed else _MOST_PACKED if packed else MOST_BYTES
    response.stream = _Bounded(response.stream, most)


def as_sent(messages: Messages) -> list[dict[str, str]]:
    """Messages for a server that tokenizes them: control tokens that a text spells are broken."""
    return [{"role": m.role, "content": break_tokens(m.content)} for m in messages]


def usage_of(reply: Any) -> Usage:
    """Tokens that a reply of the API reports."""
    usage = getattr(reply, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    prompt, replied = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    thought = _count(getattr(usage, "completion_tokens_details", None), "reasoning_tokens")
    # Some count no thought among the tokens of the reply.
    return Usage(prompt, replied, min(prompt, _count(details, "cached_tokens")), thought)


@contextmanager
def _without_variables(beginning: str) -> Iterator[None]:
    """The process without the variables of its shell that begin so, which are for another service:
    the client would take headers, an address and certificates from them.
    """
    hidden = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith(beginning)}
    try:
        yield
    finally:
        os.environ.update(hidden)


async def _stop_foreign_redirect(response: Any) -> None:
    """Take the target from a redirect to another host, so that prompts and key stay here."""
    if response.has_redirect_location:
        origin = response.url
        try:
            target = origin.join(response.headers["location"])
        except httpx2.InvalidURL:
            target = httpx2.URL()
        same = (origin.scheme, origin.netloc) == (target.scheme, target.netloc)
        upgrade = (origin.scheme, target.scheme) == ("http", "https") and origin.host == target.host
        if not (same or (upgrade and target.port in (None, origin.port))):
            del response.headers["location"]


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 <= value < _MOST_TOKENS else 0


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
