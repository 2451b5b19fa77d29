"""Any OpenAI-compatible endpoint: text from all of them, exact scores from vLLM servers.

In:  messages, over HTTP
Out: text, or log-probabilities of options

A vLLM server scores whole options exactly (`vllm_server.py`). Any other endpoint gives at most the
20 most probable first tokens: an option that is not among them has no value but an upper bound,
never 0.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.base import NOTICE, Use, finish_reason, no_rewards
from pipeline.engines.openai.endpoint import Endpoint, as_sent, log_probability, usage_of
from pipeline.engines.openai.top_tokens import check_distribution, scores_from_top_tokens
from pipeline.engines.openai.vllm_server import VllmServer, find_vllm_server
from pipeline.engines.reply import make_generation, whole_text
from pipeline.errors import ConfigError, EngineError, FinalCallError, PromptTooLongError
from pipeline.ids import content_hash
from pipeline.types import Generation, Messages, OptionScores, SamplingParams

T = TypeVar("T")
TOP_LOGPROBS = 20
"""Most alternatives that the API returns."""
FEW_LOGPROBS = 5
"""What is asked for when a server refuses more and does not say how many it gives."""
_UNKNOWN_CONTEXT = 1_000_000
_NO_TOP_P = re.compile(
    r"top_p.*both be specified|unsupported[^.]*top_p|top_p[^.]*not (?:supported|permitted|allowed)"
)


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
        self._limit_name = "max_tokens"
        self._num_top = TOP_LOGPROBS
        self._refused: set[str] = set()
        """Arguments that this endpoint does not take."""
        self.pace, self.server = endpoint.pace, server
        self._config, self._endpoint = config, endpoint

    async def generate(
        self, messages: Messages, sampling: SamplingParams, *, seed: int, request_id: str
    ) -> Generation:
        """One reply; see `Engine.generate`."""
        if sampling.top_k and self.server is None:
            raise ConfigError(
                f"`top_k` is {sampling.top_k}, which endpoint {self._config.base_url} does not "
                "take; set it to 0, or `flavor: vllm` if the server is vLLM"
            )
        extra = self.server.sampling_extra(sampling) if self.server else {}
        if sampling.stop:
            extra["stop"] = list(sampling.stop)

        def read(reply: Any) -> Generation:
            choice, usage = reply.choices[0], usage_of(reply)
            text, instead = _text_of(choice.message)
            # A call of a tool is named by what was sent, not by how it ended.
            reason = finish_reason("stop" if instead and not text else choice.finish_reason)
            return make_generation(
                text,
                reason,
                usage.prompt,
                usage.reply,
                usage.cached,
                instead=instead,
                thought=_thought_of(choice.message),
                # Hosted models report the tokens of thoughts that they do not show.
                count_thought=lambda _: usage.thought or None,
            )

        return await self._chat(
            messages,
            read,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=seed & (2**63 - 1 if self.server else 2**31 - 1),
            **extra,
        )

    async def score(
        self, messages: Messages, options: Sequence[str], *, request_id: str, reply_prefix: str = ""
    ) -> OptionScores:
        """Log-probabilities of options; exact on vLLM servers, else from the top tokens."""
        if self.server is not None:
            scores = await self.server.score(messages, options, reply_prefix)
            self._use_fewer(self.server.num_top)
            return scores
        if reply_prefix:
            raise ConfigError(
                f"`reply_prefix` is {reply_prefix!r}, and endpoint {self._config.base_url} cannot "
                "continue a given reply; leave it empty, or use a vLLM server"
            )

        def read(reply: Any) -> OptionScores:
            content: Any = getattr(reply.choices[0].logprobs, "content", None)
            if not self._has_scored and not (content and content[0].top_logprobs):
                raise self._no_logprobs()
            top = [
                (str(token.token), log_probability(token.logprob))
                for token in content[0].top_logprobs
            ]
            check_distribution(top, content[0])
            usage = usage_of(reply)
            self._has_scored = True
            return replace(
                scores_from_top_tokens(options, top),
                num_prompt_tokens=usage.prompt,
                num_cached_tokens=usage.cached,
            )

        # Servers that scale by temperature first would list a one-hot vector at 0.
        return await self._chat(
            messages, read, max_tokens=1, temperature=1, logprobs=True, top_logprobs=TOP_LOGPROBS
        )

    async def score_reply(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """Log-probability and tokens of the last message; only vLLM servers can tell."""
        if self.server is None:
            raise self._scores_no_text()
        return await self.server.score_reply(messages)

    async def check_exact(self, use: Use) -> None:
        """One request that shows whether options or texts can be scored exactly.

        Raises:
            ConfigError: they cannot.
        """
        if self.server is None:
            raise self._scores_no_text()
        await self.server.check_scores(use)

    async def reward(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """Refused: an endpoint is asked for replies and their probabilities alone."""
        no_rewards(self.name)

    async def close(self) -> None:
        """Close the connections; calling twice is harmless."""
        await self._endpoint.close()

    async def _chat(self, messages: Messages, read: Callable[[Any], T], **arguments: Any) -> T:
        """What `read` makes of a chat completion with at least one choice."""
        dicts = as_sent(messages)
        sent = self._adapted(arguments)

        def read_choice(reply: Any) -> T:
            # An error beside a choice is the reason why the choice is not whole.
            said = getattr(reply, "error", None)
            if said or not getattr(reply, "choices", None):
                told = said or getattr(reply, "detail", None) or getattr(reply, "message", None)
                what = "with an error" if said else "without a choice"
                what += f": {self._endpoint.one_line(told)}" if told else ""
                raise EngineError(f"{self._endpoint.where} answered {what}")
            return read(reply)

        try:
            return await self._endpoint.call(
                lambda: self._endpoint.chat(messages=dicts, **sent), read_choice
            )
        except PromptTooLongError:
            raise
        except FinalCallError as error:
            # The server's own words: an odd answer teaches nothing.
            refusal = error.__cause__
            if not (isinstance(refusal, openai.APIStatusError) and self._learns(refusal, sent)):
                raise
        return await self._chat(messages, read, **arguments)

    def _adapted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as this endpoint takes them, from what it has refused so far."""
        sent = {self._limit_name if k == "max_tokens" else k: v for k, v in arguments.items()}
        if "top_logprobs" in sent:
            sent["top_logprobs"] = self._num_top
        # A smaller top_p is what was asked for, and is refused each time.
        kept = {"top_p"} if sent.get("top_p") != 1 else set()
        return {k: v for k, v in sent.items() if k in kept or k not in self._refused}

    def _learns(self, error: openai.APIStatusError, sent: dict[str, Any]) -> bool:
        """Whether a refusal says how to ask instead; from then on all requests do.

        Raises:
            ConfigError: it takes no log-probabilities at all.
        """
        refusal = error.response.text
        if "max_completion_tokens" in refusal and "max_tokens" in sent:
            # Newer models of OpenAI refuse the older name and say which one they take.
            self._limit_name = "max_completion_tokens"
        elif "logprob" in refusal and "top_logprobs" in sent:
            num_top = fewer_logprobs(refusal, sent["top_logprobs"])
            if not num_top and self._has_scored:
                return False
            if not num_top:
                raise self._no_logprobs()
            self._use_fewer(num_top)
        elif "seed" in sent and re.search(r"['\"`]seed['\"`]", refusal):
            if "seed" not in self._refused:
                NOTICE.get()(f"{self._endpoint.where} takes no seed: its replies do not repeat")
            self._refused.add("seed")
        elif sent.get("top_p") == 1 and _NO_TOP_P.search(refusal):
            # All tokens is what such models draw from without it.
            self._refused.add("top_p")
        else:
            return False
        return True

    def _use_fewer(self, num_top: int) -> None:
        """Ask for fewer first tokens; the manifests of the rows and the card say so."""
        if not 0 < num_top < self._num_top:
            return
        self._num_top = num_top
        self.version = f"{self.version.partition(', ')[0]}, {num_top} first tokens"
        bounds = (
            ""
            if self.server
            else "an option that is not among them counts at its upper bound, so fewer labels are "
            "exact, and "
        )
        NOTICE.get()(
            f"{self._endpoint.where} lists the {num_top} most probable first tokens, not "
            f"{TOP_LOGPROBS}: {bounds}other spellings of an option are noticed less often"
        )

    def _scores_no_text(self) -> ConfigError:
        return ConfigError(
            f"endpoint {self._config.base_url} cannot score a given text; "
            "use a vLLM server, or `type: vllm`"
        )

    def _no_logprobs(self) -> ConfigError:
        return ConfigError(
            f"endpoint {self._config.base_url} returns no log-probabilities for "
            f"'{self._config.model}', and labels need them; use a model with `logprobs`, a vLLM "
            "server, or `type: vllm`"
        )


def fewer_logprobs(refusal: str, refused: int) -> int:
    """How many alternatives to ask for after a refusal: the number that it names, else few, else 0.

    Args:
        refused: the number that was asked for.
    """
    named = [n for n in map(int, re.findall(r"\b\d{1,2}\b", refusal)) if 0 < n < refused]
    return max(named, default=FEW_LOGPROBS if refused > FEW_LOGPROBS else 0)


def _text_of(message: Any) -> tuple[str, str]:
    """The text of a chat message, and what else it holds, by name; parts of text are joined.

    Beside a refusal or the call of a tool, a text is not the reply.
    """
    if (role := getattr(message, "role", None)) in _OTHER_ROLES:
        raise TypeError(f"the reply is a turn of the role '{role}'")
    content = message.content
    if isinstance(content, list):
        if other := {part["type"] for part in content} - {"text", *_THOUGHT_PARTS}:
            raise TypeError(f"a part of the reply is of the type {min(map(str, other))!r}")
        content = "".join(part["text"] for part in content if part["type"] == "text")
    if not isinstance(content, str | None):
        raise TypeError(f"content is {type(content).__name__}")
    replaced = [name for name in _IN_PLACE if getattr(message, name, None)]
    others = [name for name in ("reasoning_content", "reasoning") if getattr(message, name, None)]
    return "" if replaced else content or "", " and ".join(replaced + others)


_OTHER_ROLES = ("user", "system", "developer", "tool", "function")
_THOUGHT_PARTS = ("thinking", "reasoning", "redacted_thinking")
_IN_PLACE = ("refusal", "tool_calls", "function_call", "audio")


def _thought_of(message: Any) -> str:
    """What a server's reasoning parser took out of the text, or sends as a part beside it."""
    parts = message.content if isinstance(message.content, list) else []
    thoughts = [getattr(message, name, None) for name in ("reasoning_content", "reasoning")]
    thoughts += [part["thinking"] for part in parts if part["type"] == "thinking"]
    for thought in thoughts:
        inner = thought if isinstance(thought, list) else []
        text = "".join(p["text"] for p in inner if isinstance(p, dict) and p.get("type") == "text")
        if text or (thought and isinstance(thought, str)):
            return text or str(thought)
    return ""


async def open_openai(config: OpenAIConfig) -> OpenAIEngine:
    """Connect, and find out whether the endpoint is a vLLM server.

    Raises:
        ConfigError: endpoint not reachable, key refused, or model not served.
    """
    endpoint = Endpoint(config)
    try:
        server = await find_vllm_server(endpoint)
        context = await _served_context(endpoint)
    except BaseException:
        await endpoint.close()
        raise
    return OpenAIEngine(endpoint, server, config.max_context or context or _UNKNOWN_CONTEXT)


async def _served_context(endpoint: Endpoint) -> int | None:
    """Context length that the server lists for the model, if it lists one."""
    config = endpoint.config

    def read(page: Any) -> int | None:
        served = {whole_text(str(model.id)): model for model in page.data}
        if served and not _is_served(config, served):
            raise ConfigError(
                f"endpoint {config.base_url} does not serve '{config.model}' but "
                f"{', '.join(sorted(served)[:5])}; correct `model`"
            )
        length = getattr(served.get(config.model), "max_model_len", None)
        return length if isinstance(length, int) and length > 0 else None

    return await endpoint.look_up(endpoint.client.models.list, read, needs_key=True)


def _is_served(config: OpenAIConfig, listed: Iterable[str]) -> bool:
    """Whether a server's list has the model, in the ways that servers write their lists.

    Any other name is refused: some servers answer whatever the name, with the model that they have.
    """
    if (urlsplit(config.base_url).hostname or "").endswith(".azure.com"):
        return True  # lists what could be deployed, and is asked for deployments
    model = config.model
    # Gemini's list, Ollama's default tag, and a router's variants (`model:free`).
    names = {model, f"models/{model}", f"{model}:latest", model.rpartition(":")[0]}
    return any(
        name in names or (name.endswith("*") and model.startswith(name[:-1])) for name in listed
    )
