"""A fake engine whose replies come from a Python function: for tests, examples and the smoke
recipe.

In:  messages, exactly as a stage sends them
Out: `reply(messages)` as text, `scores(messages, options)` as log-probabilities

    engine = ScriptedEngine(lambda messages: "A" if "polite" in messages[-1].content else "B")

Every call is recorded in `calls`, words count as tokens, and latency, a limit of concurrent calls
and failures can be played, so that what surrounds an engine can be tested without a model.
"""

import asyncio
import contextlib
import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.engines import ScriptedConfig
from pipeline.config.factories import check_arguments, find_factory
from pipeline.engines.base import Engine, EngineKind, Identity, no_rewards
from pipeline.engines.options import check_distinct
from pipeline.engines.reply import make_generation
from pipeline.errors import ConfigError, EngineError, PromptTooLongError
from pipeline.types import FinishReason, Generation, Messages, OptionScores, SamplingParams

ReplyFunction = Callable[..., str]
"""`reply(messages)`, or `reply(messages, seed)` when it takes two arguments."""
ScoresFunction = Callable[[Messages, Sequence[str]], Sequence[float | None]]
FailureFunction = Callable[["Call"], Exception | None]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrived."""

    kind: Literal["generate", "score", "score_reply", "reward"]
    request_id: str
    messages: Messages
    seed: int | None = None
    sampling: SamplingParams | None = None
    options: tuple[str, ...] = ()
    reply_prefix: str = ""


def count_words(messages: Messages) -> int:
    """Number of words in all messages; this engine's token count."""
    return sum(len(message.content.split()) for message in messages)


class ScriptedEngine:
    """Answers from functions instead of a model.

    Args:
        reply: text of a reply; called with messages, and with the seed if it takes two arguments.
        scores: log-probabilities (nats) of options; without it `score` raises ConfigError.
        score_replies: (sum of log-probabilities, tokens) of the last message's content.
        rewards: score of the last message; without it `reward` raises ConfigError.
        name: what a person calls this model, also the base of its fingerprint.
        latency_s: seconds that every call takes.
        max_concurrency: calls that are answered at the same time; None means all.
        max_context: most words of prompt and reply together.
        failure: returns the exception that a call is to raise, or None.
        keep_calls: False keeps `calls` empty, for runs with very many rows.
    """

    def __init__(
        self,
        reply: ReplyFunction,
        scores: ScoresFunction | None = None,
        *,
        score_replies: Callable[[Messages], tuple[float, int]] | None = None,
        rewards: Callable[[Messages], float] | None = None,
        name: str = "scripted",
        latency_s: float = 0.0,
        max_concurrency: int | None = None,
        max_context: int = 4096,
        failure: FailureFunction | None = None,
        keep_calls: bool = True,
    ) -> None:
        self.name = name
        self.version = "scripted 1"
        self.fingerprint = hashlib.sha256(f"scripted:{name}".encode()).hexdigest()
        self.max_context = max_context
        self.calls: list[Call] = []
        self.most_in_flight = 0
        self._reply, self._scores, self._score_replies = reply, scores, score_replies
        self._rewards = rewards
        self._takes_seed = _positional_arguments(reply) >= 2
        self._latency_s, self._failure, self._keep_calls = latency_s, failure, keep_calls
        self._gate: asyncio.Semaphore | contextlib.nullcontext[None] = (
            contextlib.nullcontext()
            if max_concurrency is None
            else asyncio.Semaphore(max_concurrency)
        )
        self._in_flight = 0
        self._closed = False

    async def generate(
        self, messages: Messages, sampling: SamplingParams, *, seed: int, request_id: str
    ) -> Generation:
        """One reply, cut at the first stop string and at `max_tokens` words."""
        await self._admit(
            Call("generate", request_id, messages, seed=seed, sampling=sampling),
            sampling.max_tokens,
        )
        text = self._reply(messages, seed) if self._takes_seed else self._reply(messages)
        text, reason = _cut(text, sampling)
        num_tokens = max(1, len(text.split()))
        return make_generation(
            text,
            reason,
            count_words(messages),
            num_tokens,
            count_thought=lambda thought: len(thought.split()) or None,
        )

    async def score(
        self, messages: Messages, options: Sequence[str], *, request_id: str, reply_prefix: str = ""
    ) -> OptionScores:
        """What `scores` says about the options."""
        await self._admit(
            Call("score", request_id, messages, options=tuple(options), reply_prefix=reply_prefix),
            1,
        )
        check_distinct(options, [option.split() for option in options])
        if self._scores is None:
            raise ConfigError(
                f"engine '{self.name}' has no function for scores, and a judge needs one; "
                "pass scores=... to ScriptedEngine"
            )
        values = tuple(self._scores(messages, options))
        if len(values) != len(options):
            raise ConfigError(
                f"the scores function of engine '{self.name}' returned {len(values)} values "
                f"for {len(options)} options; return one for each"
            )
        known = [value for value in values if value is not None]
        return OptionScores(
            values,
            upper_bound=min(known, default=0.0) if len(known) < len(values) else None,
            num_prompt_tokens=count_words(messages),
        )

    async def score_reply(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """What `score_replies` says; without it, each word counts -1 nat."""
        await self._admit(Call("score_reply", request_id, messages), 0)
        if self._score_replies is not None:
            return self._score_replies(messages)
        num_words = len(messages[-1].content.split())
        return -float(num_words), num_words

    async def reward(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """What `rewards` says."""
        await self._admit(Call("reward", request_id, messages), 0)
        if self._rewards is None:
            no_rewards(self.name)
        return self._rewards(messages), count_words(messages)

    async def close(self) -> None:
        """Refuse further calls."""
        self._closed = True

    async def _admit(self, call: Call, num_reply_tokens: int) -> None:
        if self._closed:
            raise EngineError(f"engine '{self.name}' is closed; open it again")
        needed = count_words(call.messages) + num_reply_tokens
        if needed > self.max_context:
            raise PromptTooLongError(
                f"the request needs {needed} tokens and engine '{self.name}' has a context of "
                f"{self.max_context}; shorten the prompt or lower max_tokens"
            )
        if self._keep_calls:
            self.calls.append(call)
        async with self._gate:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            try:
                await asyncio.sleep(self._latency_s)
            finally:
                self._in_flight -= 1
        error = self._failure(call) if self._failure is not None else None
        if error is not None:
            raise error


def scripted_from_config(config: ScriptedConfig) -> ScriptedEngine:
    """Call the factory that `script` names.

    Raises:
        ConfigError: as `_factory`, or the factory returned no engine.
    """
    engine = _factory(config)(**config.args)
    if not isinstance(engine, ScriptedEngine):
        raise ConfigError(
            f"engine script '{config.script}' returned {type(engine).__name__}; "
            "it must return a ScriptedEngine"
        )
    return engine


def _factory(config: ScriptedConfig) -> Callable[..., Any]:
    """The factory. Raises ConfigError when it is missing, unmarked or refuses `args`."""
    factory = find_factory(config.script, "engine script")
    check_arguments(factory, config.args, f"engine script '{config.script}'")
    return factory


async def _open(config: ScriptedConfig) -> Engine:
    return scripted_from_config(config)


def _check(config: ScriptedConfig) -> None:
    _factory(config)


def _identity(config: ScriptedConfig) -> Identity:
    engine = scripted_from_config(config)
    return Identity(engine.name, engine.fingerprint)


SCRIPTED = EngineKind(check=_check, open=_open, identify=_identity)


def _positional_arguments(function: Callable[..., str]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds for p in inspect.signature(function).parameters.values())


def _cut(text: str, sampling: SamplingParams) -> tuple[str, FinishReason]:
    """Text up to the first stop string, at most `max_tokens` words."""
    ends = [position for stop in sampling.stop if (position := text.find(stop)) >= 0]
    if ends:
        text = text[: min(ends)]
    words = text.split()
    if len(words) > sampling.max_tokens:
        return " ".join(words[: sampling.max_tokens]), "length"
    return text, "stop"
