"""Any OpenAI-compatible endpoint: text from all of them, exact scores from vLLM servers.

In:  messages, over HTTP
Out: text, or log-probabilities of options

A vLLM server scores whole options exactly (`vllm_server.py`). Any other endpoint gives at most the
20 most probable first tokens: an option that is not among them has no value but an upper bound,
never 0.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import openai

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.base import finish_reason
from pipeline.engines.openai.endpoint import ODD_ANSWER, Endpoint, log_probability, usage_of
from pipeline.engines.openai.top_tokens import scores_from_top_tokens
from pipeline.engines.openai.vllm_server import VllmServer, find_vllm_server
from pipeline.engines.reply import make_generation, whole_text
from pipeline.errors import ConfigError, EngineError
from pipeline.ids import content_hash
from pipeline.types import Generation, Messages, OptionScores, SamplingParams

TOP_LOGPROBS = 20
"""Most alternatives that the API returns."""
_UNKNOWN_CONTEXT = 1_000_000


class OpenAIEngine:
    """An Engine over HTTP; `server` is set when the endpoint is a vLLM server."""

    def __init__(self, endpoint: Endpoint, server: VllmServer | None, max_context: int) -> None:
        config = endpoint.config
        self.name = config.model
        # All that is known of what answers: the weights behind the name are the provider's affair.
        self.fingerprint = content_hash(
            ["endpoint", config.model, config.chat_template_args, server is not None]
        )
        self.version = (
            f"vllm {server.version} (endpoint)" if server else "OpenAI-compatible endpoint"
        )
        self.max_context = max_context
        self._has_scored = False
        self._limit = "max_tokens"
        self._config, self._endpoint, self._server = config, endpoint, server

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
        reply = await self._chat(
            messages,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop) or openai.NOT_GIVEN,
            seed=seed & (2**63 - 1 if self._server else 2**31 - 1),
            extra_body=extra,
        )
        with self._endpoint.reading():
            choice, usage = reply.choices[0], usage_of(reply)
            text, instead = _text_of(choice.message)
            # A call of a tool is named by what was sent, not by how it ended.
            reason = finish_reason("stop" if instead and not text else choice.finish_reason)
        return make_generation(text, reason, *usage, instead=instead)

    async def score(
        self, messages: Messages, options: Sequence[str], *, request_id: str, reply_prefix: str = ""
    ) -> OptionScores:
        """Log-probabilities of options; exact on vLLM servers, else from the top tokens."""
        if self._server is not None:
            return await self._server.score(messages, options, reply_prefix)
        if reply_prefix:
            raise ConfigError(
                f"`reply_prefix` is {reply_prefix!r}, and endpoint {self._config.base_url} cannot "
                "continue a given reply; leave it empty, or use a vLLM server"
            )
        try:
            # Servers that scale by temperature first would list a one-hot vector at 0.
            reply = await self._chat(
                messages, max_tokens=1, temperature=1, logprobs=True, top_logprobs=TOP_LOGPROBS
            )
        except EngineError as error:
            if "logprob" in str(error):
                raise self._no_logprobs() from error
            raise
        with self._endpoint.reading():
            content: Any = getattr(reply.choices[0].logprobs, "content", None)
            if not self._has_scored and not (content and content[0].top_logprobs):
                raise self._no_logprobs()
            top = [
                (str(token.token), log_probability(token.logprob))
                for token in content[0].top_logprobs
            ]
            usage = usage_of(reply)
        self._has_scored = True
        return replace(
            scores_from_top_tokens(options, top),
            num_prompt_tokens=usage.prompt,
            num_cached_tokens=usage.cached,
        )

    async def score_reply(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """Log-probability and tokens of the last message; only vLLM servers can tell."""
        if self._server is None:
            raise ConfigError(
                f"endpoint {self._config.base_url} cannot score a given text; "
                "use a vLLM server, or `type: vllm`"
            )
        return await self._server.score_reply(messages)

    async def close(self) -> None:
        """Close the connections; calling twice is harmless."""
        await self._endpoint.close()

    def _renamed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with the limit of tokens under the name that the endpoint takes."""
        return {self._limit if k == "max_tokens" else k: v for k, v in arguments.items()}

    async def _chat(self, messages: Messages, **arguments: Any) -> Any:
        """A chat completion with at least one choice."""
        dicts: Any = [message.as_dict() for message in messages]
        create = self._endpoint.client.chat.completions.create
        sent = self._renamed(arguments)
        try:
            reply = await self._endpoint.call(
                lambda: create(model=self._config.model, messages=dicts, **sent)
            )
        except EngineError as error:
            if "max_completion_tokens" not in str(error) or "max_tokens" not in sent:
                raise
            # Newer models of OpenAI refuse the older name and say which one they take.
            self._limit = "max_completion_tokens"
            return await self._chat(messages, **arguments)
        if not getattr(reply, "choices", None):
            said = getattr(reply, "error", None)
            raise EngineError(
                f"endpoint {self._config.base_url} answered without a choice"
                + (f": {self._endpoint.one_line(said)}" if said else "")
            )
        return reply

    def _no_logprobs(self) -> ConfigError:
        return ConfigError(
            f"endpoint {self._config.base_url} returns no log-probabilities for "
            f"'{self._config.model}', and labels need them; use a model with `logprobs`, a vLLM "
            "server, or `type: vllm`"
        )


def _text_of(message: Any) -> tuple[str, str]:
    """The text of a chat message, and what else it holds, by name; parts of text are joined."""
    content = message.content
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part["type"] == "text")
    if not isinstance(content, str | None):
        raise TypeError(f"content is {type(content).__name__}")
    others = ("refusal", "tool_calls", "function_call", "reasoning_content", "reasoning", "audio")
    return content or "", " and ".join(n for n in others if getattr(message, n, None))


async def open_openai(config: OpenAIConfig) -> OpenAIEngine:
    """Connect, and find out whether the endpoint is a vLLM server.

    Raises:
        ConfigError: endpoint not reachable, key refused, or model not served.
    """
    endpoint = Endpoint(config)
    try:
        server = await find_vllm_server(endpoint)
        context = await _served_context(endpoint)
    except openai.APIError as error:
        await endpoint.close()
        raise ConfigError(
            f"endpoint {config.base_url} cannot be used ({endpoint.one_line(error)}); "
            "start the server, or correct `base_url` and the key"
        ) from error
    except BaseException:
        await endpoint.close()
        raise
    return OpenAIEngine(endpoint, server, config.max_context or context or _UNKNOWN_CONTEXT)


async def _served_context(endpoint: Endpoint) -> int | None:
    """Context length that the server lists for the model, if it lists one."""
    config = endpoint.config
    try:
        page = await endpoint.client.with_options(max_retries=1).models.list()
        served = {whole_text(str(model.id)): model for model in page.data}
    except (openai.NotFoundError, *ODD_ANSWER):
        return None  # an endpoint without a list of models
    if served and config.model not in served:
        raise ConfigError(
            f"endpoint {config.base_url} does not serve '{config.model}' but "
            f"{', '.join(sorted(served)[:5])}; correct `model`"
        )
    length = getattr(served.get(config.model), "max_model_len", None)
    return length if isinstance(length, int) and length > 0 else None
