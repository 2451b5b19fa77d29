"""What a vLLM server can do beyond the OpenAI API: exact scores of whole options and of texts.

In:  messages; the server renders and tokenizes them (`/tokenize`)
Out: log-probabilities of given tokens (`logprob_token_ids`, `prompt_logprobs`)

A score is one chat completion once the options' tokens are known; its answer has the prompt's
tokens, by which its end is checked. Where a server does not tell so much, prompts are tokenized and
sent back to `/completions` as token ids. On the CPU, start such a server
with `--no-enable-chunked-prefill`: vLLM 0.32 dies there when a seeded prompt is split.
"""

import asyncio
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import openai

from pipeline.engines.base import Use
from pipeline.engines.openai.endpoint import Endpoint, as_sent, log_probability, usage_of
from pipeline.engines.openai.pace import Broken
from pipeline.engines.options import (
    TokenIds,
    check_distinct,
    continuation,
    longest_only,
    option_nodes,
    rewritten,
    sum_along,
)
from pipeline.engines.reply import whole_text
from pipeline.engines.spellings import TOP_TOKENS, forms_may_matter, other_forms
from pipeline.errors import ConfigError, FinalCallError, PromptTooLongError
from pipeline.types import Message, Messages, OptionScores, SamplingParams, user

T = TypeVar("T")
_TAIL = 32
"""Tokens at the end of a prompt that decide how an option after it is tokenized, where those of the
template do not."""
_NO_PATH = (404, 405, 501)


async def find_vllm_server(endpoint: Endpoint) -> "VllmServer | None":
    """The endpoint's server if it is vLLM, else None.

    Raises:
        ConfigError: `flavor: vllm` and it is not, or `chat_template_args` for another server.
    """
    config, version = endpoint.config, None
    if config.flavor != "openai":
        version = await endpoint.look_up(
            lambda: endpoint.client.get(f"{endpoint.root}/version", cast_to=object),
            lambda answer: answer.get("version") if isinstance(answer, dict) else None,
        )
    if version is None and config.flavor == "vllm":
        raise ConfigError(
            f"`flavor: vllm`, but {config.base_url} does not answer as a vLLM server; "
            "use `flavor: auto` or correct `base_url`"
        )
    if version is None and config.chat_template_args:
        raise ConfigError(
            "`chat_template_args` needs a vLLM server; leave it out for other endpoints"
        )
    return VllmServer(endpoint, whole_text(str(version))) if version is not None else None


class VllmServer:
    """The extra abilities of one server and model."""

    def __init__(self, endpoint: Endpoint, version: str) -> None:
        self.version = version
        self._endpoint, self._config = endpoint, endpoint.config
        self._has_scored = False
        self.num_top = TOP_TOKENS
        """First tokens that the server lists; fewer where it refuses more."""
        self._texts: dict[TokenIds, str] = {}
        self._options: dict[tuple[TokenIds, str, tuple[str, ...]], tuple[TokenIds, ...]] = {}
        self._endings: dict[tuple[str, tuple[str, ...]], tuple[TokenIds, tuple[TokenIds, ...]]] = {}
        self._asking = asyncio.Lock()
        self._scores_chats: bool | None = None
        """Whether a chat completion has the log-probabilities of given tokens; None: not known."""

    def sampling_extra(self, sampling: SamplingParams) -> dict[str, Any]:
        """Body fields beyond the OpenAI API for a sampled reply."""
        extra: dict[str, Any] = {"top_k": sampling.top_k}
        if self._config.chat_template_args:
            extra["chat_template_kwargs"] = self._config.chat_template_args
        return extra

    async def score(
        self, messages: Messages, options: Sequence[str], reply_prefix: str
    ) -> OptionScores:
        """Exact log-probability of each whole option; see `Engine.score`."""
        chosen, values, cached = tuple(options), dict[TokenIds, dict[int, float]](), 0
        ending, ids = await self._usual_ending(messages, chosen, reply_prefix)
        found = await self._score_chat(messages, reply_prefix, ending, ids)
        if found is not None:
            prompt, values[()], cached = found
        else:
            prompt = await self._tokens_before_reply(messages, reply_prefix)
            if not ends_with(prompt, ending):
                ids = await self._option_ids(messages, prompt, chosen, reply_prefix)
        nodes = option_nodes(ids)
        for start, following in nodes.items():
            if start in values:
                continue

            def read(reply: Any, following: tuple[int, ...] = following) -> dict[int, float]:
                nonlocal cached
                listed = self._listed(reply, following)
                cached = cached or usage_of(reply).cached
                self._has_scored = True
                return {i: log_probability(listed[f"token_id:{i}"]) for i in following}

            values[start] = await self._complete(
                [*prompt, *start],
                read,
                logprobs=1,
                logprob_token_ids=list(following),
                return_tokens_as_token_ids=True,
            )
        logprobs = longest_only(ids, sum_along(ids, values))
        own = sum(math.exp(value) for value in logprobs)
        scores = OptionScores(logprobs, None, len(prompt), cached, len(nodes))
        if not forms_may_matter(own):
            return scores
        listed = await self._first_tokens(prompt, ids)
        return replace(
            scores, num_calls=len(nodes) + 1, unreadable=other_forms(options, own, listed)
        )

    async def _first_tokens(self, prompt: list[int], ids: tuple[TokenIds, ...]) -> dict[str, float]:
        """Log-probabilities (nats) of the most probable first tokens that begin no option."""
        begin = {option[0] for option in ids}

        def read(reply: Any) -> dict[int, float]:
            listed = reply.choices[0].logprobs.top_logprobs[0]
            return {int(k.removeprefix("token_id:")): log_probability(listed[k]) for k in listed}

        while True:
            num_top = self.num_top
            try:
                top = await self._complete(
                    prompt, read, logprobs=num_top, return_tokens_as_token_ids=True
                )
                break
            except FinalCallError as error:
                # Servers may allow fewer (`--max-logprobs`).
                if num_top == 1 or "logprobs" not in str(error):
                    raise
                self.num_top = min(self.num_top, num_top // 2)
        texts: dict[str, float] = {}
        for token_id, logprob in top.items():
            if token_id not in begin:
                text = await self._text_after(ids[0][0], token_id)
                texts[text] = max(logprob, texts.get(text, -math.inf))
        return texts

    async def _text_after(self, before: int, token_id: int) -> str:
        """Text of a token in the middle of a text, where a space at its beginning shows."""
        for tokens in ((before,), (before, token_id)):
            if tokens not in self._texts:
                self._texts[tokens] = await self._detokenize(tokens)
        return self._texts[before, token_id].removeprefix(self._texts[(before,)])

    async def _detokenize(self, tokens: TokenIds) -> str:
        body = {"model": self._config.model, "tokens": list(tokens)}
        return await self._post("detokenize", body, lambda answer: str(answer["prompt"]))

    async def _post(self, path: str, body: Any, read: Callable[[Any], T]) -> T:
        """What `read` makes of the answer to a request that only vLLM servers take."""
        endpoint = self._endpoint
        try:
            return await endpoint.call(
                lambda: endpoint.client.post(f"{endpoint.root}/{path}", body=body, cast_to=object),
                read,
            )
        except (ConfigError, FinalCallError) as error:
            refusal = error.__cause__
            if not isinstance(refusal, openai.APIStatusError):
                raise
            # Of a model that is not served vLLM says so.
            if refusal.status_code not in _NO_PATH or "does not exist" in refusal.response.text:
                raise
            raise self._no_scores(f"/{path}", "label") from error

    async def score_reply(self, messages: Messages) -> tuple[float, int]:
        """Log-probability and tokens of the last message; see `Engine.score_reply`."""
        *before, last = messages
        if as_sent((last,))[0]["content"] != last.content:
            raise FinalCallError(
                "the text to score spells a control token of a chat template, which this server "
                "would take for the token itself; use `type: vllm`"
            )
        full = await self._tokenize(messages, open_ended=True)
        # The header of the last message is what two different contents have in common.
        one, other = [
            await self._tokenize((*before, Message(last.role, text)), open_ended=True)
            for text in ("a", "0")
        ]
        num_head = next(
            (n for n, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), len(one)
        )
        if full[:num_head] != one[:num_head]:
            raise rewritten(last.role)

        def read(reply: Any) -> float:
            listed: Any = getattr(reply.choices[0], "prompt_logprobs", None)
            if not self._has_scored and listed is None:
                raise self._no_scores("`prompt_logprobs` of /v1/completions", "score of a text")
            self._has_scored = True
            return sum(
                log_probability(listed[n][str(full[n])]["logprob"])
                for n in range(num_head, len(full))
            )

        total = await self._complete(full, read, prompt_logprobs=0)
        return total, len(full) - num_head

    async def check_scores(self, use: Use) -> None:
        """Score a made-up text, or options with what a doubtful verdict needs besides.

        Raises:
            ConfigError: as `score`.
        """
        question = user("Answer with A or B.")
        if use == "texts":
            await self.score_reply((question, Message("assistant", "A")))
            return
        await self.score((question,), ("A", "B"), "")
        await self._detokenize((0,))

    def _listed(self, reply: Any, wanted: Sequence[int]) -> Any:
        """The log-probabilities of an answer, by token.

        Raises:
            ConfigError: those of the wanted tokens are not there, and never were.
        """
        listed: Any = getattr(reply.choices[0].logprobs, "top_logprobs", None)
        missing = not listed or any(f"token_id:{token}" not in listed[0] for token in wanted)
        if missing and not self._has_scored:
            raise self._no_scores("`logprob_token_ids` of /v1/completions", "label")
        return listed[0]

    def _no_scores(self, ability: str, use: str, words: str = "") -> ConfigError:
        return ConfigError(
            f"endpoint {self._config.base_url} (vLLM {self.version}) does not answer {ability}"
            f"{f' ({words})' if words else ''}, and an exact {use} needs it; use a newer vLLM "
            "server, or `flavor: openai` for labels from the most probable first tokens"
        )

    async def _complete(self, prompt: list[int], read: Callable[[Any], T], **arguments: Any) -> T:
        """What `read` makes of one token after a prompt of token ids, with log-probabilities."""
        try:
            return await self._endpoint.call(
                lambda: self._endpoint.complete(
                    prompt=prompt,
                    max_tokens=1,
                    temperature=0,
                    add_special_tokens=False,
                    **arguments,
                ),
                read,
            )
        except PromptTooLongError:
            raise
        except FinalCallError as error:
            refusal = error.__cause__
            if self._has_scored or not isinstance(refusal, openai.APIStatusError):
                raise
            # Older servers name the field, or take no prompt of token ids.
            if re.search(r"logprob|extra|prompt", refusal.response.text):
                words = self._endpoint.one_line(refusal)
                raise self._no_scores("exact log-probabilities", "score", words) from error
            raise

    async def _tokens_before_reply(self, messages: Messages, reply_prefix: str) -> list[int]:
        started = self._with_prefix(messages, reply_prefix)
        return await self._tokenize(started, open_ended=bool(reply_prefix))

    @staticmethod
    def _with_prefix(messages: Messages, reply_prefix: str) -> Messages:
        return (*messages, Message("assistant", reply_prefix)) if reply_prefix else messages

    async def _score_chat(
        self, messages: Messages, reply_prefix: str, ending: TokenIds, ids: tuple[TokenIds, ...]
    ) -> tuple[list[int], dict[int, float], int] | None:
        """The tokens of a prompt, the log-probabilities (nats) of the first tokens of its options,
        and how many tokens came from the cache, all by one request. None where that is not told or
        where the prompt ends in another way than `ending`.
        """
        async with self._asking:
            if ending and self._scores_chats is None:
                # The first tells whether the others ask.
                found = await self._ask_chat(messages, reply_prefix, ending, ids)
                self._scores_chats = found is not None
                return found
        if not (ending and self._scores_chats):
            return None
        return await self._ask_chat(messages, reply_prefix, ending, ids)

    async def _ask_chat(
        self, messages: Messages, reply_prefix: str, ending: TokenIds, ids: tuple[TokenIds, ...]
    ) -> tuple[list[int], dict[int, float], int] | None:
        first = option_nodes(ids)[()]

        def read(reply: Any) -> tuple[list[int], dict[int, float], int] | None:
            prompt: Any = getattr(reply, "prompt_token_ids", None)
            content: Any = getattr(reply.choices[0].logprobs, "content", None)
            if not prompt or not content or not ends_with(prompt, ending):
                return None
            listed = {each.token: each.logprob for each in content[0].top_logprobs}
            if any(f"token_id:{token}" not in listed for token in first):
                return None
            values = {token: log_probability(listed[f"token_id:{token}"]) for token in first}
            return list(prompt), values, usage_of(reply).cached

        body = self._conversation(self._with_prefix(messages, reply_prefix), bool(reply_prefix))
        try:
            return await self._endpoint.call(
                lambda: self._endpoint.chat(
                    **body,
                    max_tokens=1,
                    temperature=0,
                    logprobs=True,
                    logprob_token_ids=list(first),
                    return_tokens_as_token_ids=True,
                    return_token_ids=True,
                ),
                read,
            )
        except PromptTooLongError:
            raise
        except FinalCallError as error:
            # An older server may refuse what it does not know, or fail over it.
            fault = error.__cause__
            refusal = fault.__cause__ if isinstance(fault, Broken) else fault
            if self._scores_chats or not isinstance(refusal, openai.APIStatusError):
                raise
            return None

    async def _usual_ending(
        self, messages: Messages, options: tuple[str, ...], reply_prefix: str
    ) -> tuple[TokenIds, tuple[TokenIds, ...]]:
        """The tokens that the template writes after a last message, whatever it says, and the
        options' after them; empty where the tokens of an option depend on what comes before them.
        """
        # Prompts come by the dozen at once: one asks, the others find its answer.
        async with self._asking:
            key = (reply_prefix, options)
            if key not in self._endings:
                self._endings[key] = await self._ending(messages, options, reply_prefix)
            return self._endings[key]

    async def _ending(
        self, messages: Messages, options: tuple[str, ...], reply_prefix: str
    ) -> tuple[TokenIds, tuple[TokenIds, ...]]:
        *before, last = messages
        prompts, ids = [], set()
        for content in ("a", "0", "."):
            turns = (*before, Message(last.role, content))
            prompts.append(await self._tokens_before_reply(turns, reply_prefix))
            ids.add(await self._ids_after(turns, prompts[-1], options, reply_prefix))
        backwards = zip(*map(reversed, prompts), strict=False)
        common = [each[0] for each in itertools.takewhile(lambda t: len({*t}) == 1, backwards)]
        return (tuple(reversed(common)), ids.pop()) if common and len(ids) == 1 else ((), ())

    async def _option_ids(
        self, messages: Messages, prompt: list[int], options: tuple[str, ...], reply_prefix: str
    ) -> tuple[TokenIds, ...]:
        async with self._asking:
            key = (tuple(prompt[-_TAIL:]), reply_prefix, options)
            if key not in self._options:
                self._options[key] = await self._ids_after(messages, prompt, options, reply_prefix)
            return self._options[key]

    async def _ids_after(
        self, messages: Messages, prompt: list[int], options: tuple[str, ...], reply_prefix: str
    ) -> tuple[TokenIds, ...]:
        ids: list[TokenIds] = []
        for option in options:
            whole = (*messages, Message("assistant", reply_prefix + option))
            together = await self._tokenize(whole, open_ended=True)
            ids.append(continuation(option, prompt, together))
        check_distinct(options, ids)
        return tuple(ids)

    async def _tokenize(self, messages: Messages, *, open_ended: bool = False) -> list[int]:
        body = {"model": self._config.model, **self._conversation(messages, open_ended)}

        def read(answer: Any) -> list[int]:
            tokens = answer["tokens"]
            if not all(isinstance(token, int) for token in tokens):
                raise TypeError(f"tokens are {tokens!r}")
            return list(tokens)

        return await self._post("tokenize", body, read)

    def _conversation(self, messages: Messages, open_ended: bool) -> dict[str, Any]:
        """The messages, and how the server makes a prompt of them."""
        # An open reply ends with what is scored, which has to stay as it is.
        sent = as_sent(messages)
        if open_ended:
            sent[-1]["content"] = messages[-1].content
        body: dict[str, Any] = {
            "messages": sent,
            "add_generation_prompt": not open_ended,
            "continue_final_message": open_ended,
        }
        if self._config.chat_template_args:
            body["chat_template_kwargs"] = self._config.chat_template_args
        return body


def ends_with(prompt: Sequence[int], ending: TokenIds) -> bool:
    """Whether a prompt ends with these tokens, of which there is at least one."""
    return bool(ending) and tuple(prompt[-len(ending) :]) == ending
