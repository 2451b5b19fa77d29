"""What a vLLM server can do beyond the OpenAI API: exact scores of whole options and of texts.

In:  messages; the server renders and tokenizes them (`/tokenize`)
Out: log-probabilities of given tokens (`logprob_token_ids`, `prompt_logprobs` of `/completions`)

Prompts are sent back as token ids, so nothing is tokenized twice. On the CPU, start such a server
with `--no-enable-chunked-prefill`: vLLM 0.32 dies there when a seeded prompt is split.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import openai

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.options import TokenIds, check_distinct, longest_only, option_nodes, sum_along
from pipeline.errors import ConfigError
from pipeline.types import Message, Messages, OptionScores, SamplingParams

Call = Callable[[Callable[[], Any]], Any]
Count = Callable[[Any], int]
_TAIL = 32
"""Tokens at the end of a prompt that decide how an option after it is tokenized."""


class VllmServer:
    """The extra abilities of one server and model."""

    def __init__(self, config: OpenAIConfig, client: openai.AsyncOpenAI, version: str) -> None:
        self.version = version
        self._config, self._client = config, client
        self._root = config.base_url.rstrip("/").removesuffix("/v1")
        self._options: dict[tuple[TokenIds, str, tuple[str, ...]], tuple[TokenIds, ...]] = {}

    @classmethod
    async def find(cls, config: OpenAIConfig, client: openai.AsyncOpenAI) -> Self | None:
        """The server if it is vLLM, else None.

        Raises:
            ConfigError: `flavor: vllm` and it is not, or `chat_template_args` for another server.
        """
        version = None
        if config.flavor != "openai":
            root = config.base_url.rstrip("/").removesuffix("/v1")
            try:
                found = await client.with_options(max_retries=1).get(
                    f"{root}/version", cast_to=object
                )
                version = found.get("version") if isinstance(found, dict) else None
            except openai.APIStatusError:
                version = None
        if version is None and config.flavor == "vllm":
            raise ConfigError(
                f"`flavor: vllm`, but {config.base_url} does not answer as a vLLM server; "
                "use `flavor: auto` or correct `base_url`"
            )
        if version is None and config.chat_template_args:
            raise ConfigError(
                "`chat_template_args` needs a vLLM server; leave it out for other endpoints"
            )
        return cls(config, client, str(version)) if version is not None else None

    def sampling_extra(self, sampling: SamplingParams) -> dict[str, Any]:
        """Body fields beyond the OpenAI API for a sampled reply."""
        extra: dict[str, Any] = {"top_k": sampling.top_k}
        if self._config.chat_template_args:
            extra["chat_template_kwargs"] = self._config.chat_template_args
        return extra

    async def score(
        self,
        messages: Messages,
        options: Sequence[str],
        reply_prefix: str,
        call: Call,
        count: Count,
    ) -> OptionScores:
        """Exact log-probability of each whole option; see `Engine.score`."""
        prompt = await self._tokens_before_reply(messages, reply_prefix, call)
        ids = await self._option_ids(messages, prompt, tuple(options), reply_prefix, call)
        nodes = option_nodes(ids)
        values: dict[TokenIds, dict[int, float]] = {}
        cached = 0
        for start, following in nodes.items():
            reply = await call(
                lambda s=start, f=following: self._client.completions.create(
                    model=self._config.model,
                    prompt=[*prompt, *s],
                    max_tokens=1,
                    temperature=0,
                    logprobs=1,
                    extra_body={
                        "logprob_token_ids": list(f),
                        "return_tokens_as_token_ids": True,
                        "add_special_tokens": False,
                    },
                )
            )
            listed = reply.choices[0].logprobs.top_logprobs[0]
            values[start] = {i: float(listed[f"token_id:{i}"]) for i in following}
            cached_now = count(reply.usage)
            cached = cached or cached_now
        found = longest_only(ids, sum_along(ids, values))
        return OptionScores(found, None, len(prompt), cached, len(nodes))

    async def score_reply(self, messages: Messages, call: Call, count: Count) -> tuple[float, int]:
        """Log-probability and tokens of the last message; see `Engine.score_reply`."""
        *before, last = messages
        full = await self._tokenize(messages, call, open_ended=True)
        # The header of the last message is what two different contents have in common.
        one, other = [
            await self._tokenize((*before, Message(last.role, text)), call, open_ended=True)
            for text in ("a", "0")
        ]
        num_head = next(
            (n for n, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), len(one)
        )
        if full[:num_head] != one[:num_head]:
            raise ConfigError(
                f"the chat template rewrites the content of a {last.role} message, so its "
                "log-probability has no meaning; use a template that keeps the text as it is"
            )
        reply = await call(
            lambda: self._client.completions.create(
                model=self._config.model,
                prompt=full,
                max_tokens=1,
                temperature=0,
                extra_body={"prompt_logprobs": 0, "add_special_tokens": False},
            )
        )
        count(reply.usage)
        listed = reply.choices[0].prompt_logprobs
        total = sum(float(listed[n][str(full[n])]["logprob"]) for n in range(num_head, len(full)))
        return total, len(full) - num_head

    async def _tokens_before_reply(
        self, messages: Messages, reply_prefix: str, call: Call
    ) -> list[int]:
        if not reply_prefix:
            return await self._tokenize(messages, call)
        started = (*messages, Message("assistant", reply_prefix))
        return await self._tokenize(started, call, open_ended=True)

    async def _option_ids(
        self,
        messages: Messages,
        prompt: list[int],
        options: tuple[str, ...],
        reply_prefix: str,
        call: Call,
    ) -> tuple[TokenIds, ...]:
        key = (tuple(prompt[-_TAIL:]), reply_prefix, options)
        if key not in self._options:
            found = []
            for option in options:
                whole = (*messages, Message("assistant", reply_prefix + option))
                together = await self._tokenize(whole, call, open_ended=True)
                if together[: len(prompt)] != prompt or len(together) == len(prompt):
                    raise ConfigError(
                        f"option {option!r} changes the tokens of the prompt before it, or is "
                        "empty, so its score would be wrong; begin it on a token boundary, for "
                        "instance by moving a space between `reply_prefix` and the options"
                    )
                found.append(tuple(together[len(prompt) :]))
            check_distinct(options, found)
            self._options[key] = tuple(found)
        return self._options[key]

    async def _tokenize(
        self, messages: Messages, call: Call, *, open_ended: bool = False
    ) -> list[int]:
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": [message.as_dict() for message in messages],
            "add_generation_prompt": not open_ended,
            "continue_final_message": open_ended,
        }
        if self._config.chat_template_args:
            body["chat_template_kwargs"] = self._config.chat_template_args
        found = await call(
            lambda: self._client.post(f"{self._root}/tokenize", body=body, cast_to=object)
        )
        return list(found["tokens"])
