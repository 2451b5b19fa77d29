"""Any OpenAI-compatible endpoint: text from all of them, exact scores from vLLM servers.

In:  messages, over HTTP
Out: text, or log-probabilities of options

A vLLM server scores whole options exactly (`vllm_server`). Any other endpoint gives at most the
20 most probable first tokens: an option that is not among them has no value but an upper bound,
never 0. The key is read from the environment by its name and is kept nowhere.

Transport faults, 429 and 5xx are tried again with exponential backoff by the client, at most
`max_retries` times; nothing else is.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import openai

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.base import finish_reason
from pipeline.engines.openai.top_tokens import scores_from_top_tokens
from pipeline.engines.openai.vllm_server import VllmServer
from pipeline.errors import ConfigError, EngineDeadError, EngineError, PromptTooLongError
from pipeline.ids import content_hash
from pipeline.types import EngineStats, Generation, Messages, OptionScores, SamplingParams

T = TypeVar("T")
TOP_LOGPROBS = 20
"""Most alternatives that the API returns."""
_UNKNOWN_CONTEXT = 1_000_000
_TOO_LONG = (
    "context length",
    "context_length",
    "maximum model length",
    "too many tokens",
    "max_model_len",
    "longer than the maximum",
)


class OpenAIEngine:
    """An Engine over HTTP; `server` is set when the endpoint is a vLLM server."""

    def __init__(
        self,
        config: OpenAIConfig,
        client: openai.AsyncOpenAI,
        server: VllmServer | None,
        max_context: int,
    ) -> None:
        self.name = config.model
        # All that is known of what answers: the weights behind the name are the provider's affair.
        self.fingerprint = content_hash(
            ["endpoint", config.model, config.chat_template_args, server is not None]
        )
        self.version = (
            f"vllm {server.version} (endpoint)" if server else "OpenAI-compatible endpoint"
        )
        self.max_context = max_context
        self.stats = EngineStats()
        self._config, self._client, self._server = config, client, server
        self._gate = asyncio.Semaphore(config.max_concurrency)
        self._closed = False

    async def generate(
        self, messages: Messages, sampling: SamplingParams, *, seed: int, request_id: str
    ) -> Generation:
        """One reply; see `Engine.generate`."""
        if sampling.top_k and self._server is None:
            raise ConfigError(
                f"`top_k` is {sampling.top_k}, which endpoint {self._config.base_url} does not "
                "take; set it to 0, or `flavor: vllm` if the server is vLLM"
            )
        extra = self._server.sampling_extra(sampling) if self._server else {}
        reply = await self._call(
            lambda: self._client.chat.completions.create(
                model=self._config.model,
                messages=_as_dicts(messages),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                stop=list(sampling.stop) or openai.NOT_GIVEN,
                seed=seed & (2**63 - 1 if self._server else 2**31 - 1),
                extra_body=extra,
            )
        )
        choice = _first_choice(reply, self._config)
        cached = self._count(reply.usage)
        reason = finish_reason(choice.finish_reason)
        num_prompt, num_tokens = _tokens(reply.usage)
        return Generation(choice.message.content or "", reason, num_prompt, num_tokens, cached)

    async def score(
        self, messages: Messages, options: Sequence[str], *, request_id: str, reply_prefix: str = ""
    ) -> OptionScores:
        """Log-probabilities of options; exact on vLLM servers, else from the top tokens."""
        if self._server is not None:
            server = self._server
            return await server.score(messages, options, reply_prefix, self._call, self._count)
        if reply_prefix:
            raise ConfigError(
                f"`reply_prefix` is {reply_prefix!r}, and endpoint {self._config.base_url} cannot "
                "continue a given reply; leave it empty, or use a vLLM server"
            )
        try:
            reply = await self._call(
                lambda: self._client.chat.completions.create(
                    model=self._config.model,
                    messages=_as_dicts(messages),
                    max_tokens=1,
                    # Servers that scale by temperature first would list a one-hot vector at 0.
                    temperature=1,
                    logprobs=True,
                    top_logprobs=TOP_LOGPROBS,
                )
            )
        except EngineError as error:
            if "logprob" in str(error):
                raise _no_logprobs(self._config) from error
            raise
        content = getattr(_first_choice(reply, self._config).logprobs, "content", None)
        if not content or not content[0].top_logprobs:
            raise _no_logprobs(self._config)
        cached = self._count(reply.usage)
        top = [(token.token, token.logprob) for token in content[0].top_logprobs]
        return replace(
            scores_from_top_tokens(options, top),
            num_prompt_tokens=_tokens(reply.usage)[0],
            num_cached_tokens=cached,
        )

    async def score_reply(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """Log-probability and tokens of the last message; only vLLM servers can tell."""
        if self._server is None:
            raise ConfigError(
                f"endpoint {self._config.base_url} cannot score a given text; "
                "use a vLLM server, or `type: vllm`"
            )
        return await self._server.score_reply(messages, self._call, self._count)

    async def close(self) -> None:
        """Close the connections; calling twice is harmless."""
        self._closed = True
        await self._client.close()

    async def _call(self, request: Callable[[], Awaitable[T]]) -> T:
        """One HTTP request within the concurrency limit, with its failures named."""
        if self._closed:
            raise EngineDeadError(f"engine '{self.name}' is closed; open it again")
        async with self._gate:
            try:
                return await request()
            except openai.APIError as error:
                self.stats.failures += 1
                raise _named(error, self._config) from error

    def _count(self, usage: Any) -> int:
        """Add one reply to the totals; returns its cached prompt tokens."""
        num_prompt, num_tokens = _tokens(usage)
        details = getattr(usage, "prompt_tokens_details", None)
        cached = int(getattr(details, "cached_tokens", 0) or 0)
        self.stats.requests += 1
        self.stats.prompt_tokens += num_prompt
        self.stats.cached_tokens += cached
        self.stats.generated_tokens += num_tokens
        return cached


async def open_openai(config: OpenAIConfig) -> OpenAIEngine:
    """Connect, and find out whether the endpoint is a vLLM server.

    Raises:
        ConfigError: endpoint not reachable, key refused, or model not served.
    """
    key = os.environ[config.api_key_env] if config.api_key_env else "none"
    client = openai.AsyncOpenAI(
        base_url=config.base_url,
        api_key=key,
        timeout=config.timeout_s,
        max_retries=config.max_retries,
    )
    try:
        server = await VllmServer.find(config, client)
        context = await _served_context(config, client)
    except openai.APIError as error:
        await client.close()
        raise ConfigError(
            f"endpoint {config.base_url} cannot be used ({_line(error)}); "
            "start the server, or correct `base_url` and the key"
        ) from error
    except BaseException:
        await client.close()
        raise
    return OpenAIEngine(config, client, server, config.max_context or context or _UNKNOWN_CONTEXT)


async def _served_context(config: OpenAIConfig, client: openai.AsyncOpenAI) -> int | None:
    """Context length that the server lists for the model, if it lists one."""
    try:
        page = await client.with_options(max_retries=1).models.list()
    except openai.NotFoundError:
        return None  # an endpoint without a list of models
    served = {model.id: model for model in page.data}
    if served and config.model not in served:
        raise ConfigError(
            f"endpoint {config.base_url} does not serve '{config.model}' but "
            f"{', '.join(sorted(served)[:5])}; correct `model`"
        )
    return getattr(served.get(config.model), "max_model_len", None)


def _as_dicts(messages: Messages) -> Any:
    return [message.as_dict() for message in messages]


def _tokens(usage: Any) -> tuple[int, int]:
    return (
        int(getattr(usage, "prompt_tokens", 0) or 0),
        int(getattr(usage, "completion_tokens", 0) or 0),
    )


def _first_choice(reply: Any, config: OpenAIConfig) -> Any:
    if not getattr(reply, "choices", None):
        raise EngineError(f"endpoint {config.base_url} answered without a choice")
    return reply.choices[0]


def _no_logprobs(config: OpenAIConfig) -> ConfigError:
    return ConfigError(
        f"endpoint {config.base_url} returns no log-probabilities for '{config.model}', and "
        "labels need them; use a model with `logprobs`, a vLLM server, or `type: vllm`"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _named(error: openai.APIError, config: OpenAIConfig) -> Exception:
    """Our error for a failed request: which of them a retry may cure."""
    line = _line(error)
    where = f"endpoint {config.base_url}"
    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        return ConfigError(f"{where} refused the key ({line}); set `api_key_env` to the right one")
    if isinstance(error, openai.NotFoundError):
        return ConfigError(f"{where} does not know the model or the address ({line})")
    if isinstance(error, openai.BadRequestError) and any(s in line.lower() for s in _TOO_LONG):
        return PromptTooLongError(f"{where} refused a prompt as too long: {line}")
    return EngineError(f"{where} failed: {type(error).__name__}: {line}")
