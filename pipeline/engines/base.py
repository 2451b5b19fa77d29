"""The seam to models: generate text, or score given strings as the start of a reply.

Three implementations: vLLM started by us (`vllm_local`), any OpenAI-compatible endpoint
(`openai_http`), and a scripted one for tests (`scripted`), which is public. Stages see only this
protocol; who opens, counts, limits or retries is not their business.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from pipeline.errors import EngineError
from pipeline.types import (
    EngineStats,
    FinishReason,
    Generation,
    Messages,
    OptionScores,
    SamplingParams,
)

FINISHED = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence"})
CUT = frozenset({"length", "max_tokens", "content_filter", "repetition"})
"""Ends that leave half a text: what was cut by a filter is no more finished than by a limit."""


def finish_reason(said: str | None) -> FinishReason:
    """How a generation ended, from the word of a server or of vLLM.

    Raises:
        EngineError: it was aborted, called a tool or ended in a way that is not known; its text
            must not pass as a reply.
    """
    if said in FINISHED:
        return "stop"
    if said in CUT:
        return "length"
    raise EngineError(f"the reply ended with '{said}', so its text is no finished reply")


@runtime_checkable
class Engine(Protocol):
    """A model that can be asked. Safe to call from many coroutines of one event loop."""

    name: str
    """What a person calls the model: path or endpoint model name."""
    fingerprint: str
    """Hash of all that determines the answers: weights, tokenizer, chat template, dtype."""
    version: str
    """Engine and version, such as 'vllm 0.32.0'; part of the lineage, not of the fingerprint."""
    max_context: int
    """Most tokens of prompt and reply together."""
    stats: EngineStats

    async def generate(
        self, messages: Messages, sampling: SamplingParams, *, seed: int, request_id: str
    ) -> Generation:
        """Draw one reply.

        Raises:
            PromptTooLongError: prompt plus `max_tokens` exceeds `max_context`.
            EngineError: the call failed and may be tried again.
        """
        ...

    async def score(
        self, messages: Messages, options: Sequence[str], *, request_id: str, reply_prefix: str = ""
    ) -> OptionScores:
        """Log-probability (nats) of each whole option string as the continuation of the reply.

        The reply starts with `reply_prefix`, which is given, not scored. Exact for any
        tokenizer: an option of several tokens is scored over all of them, and prompt plus option
        must tokenize as prompt followed by option, else ConfigError. A reply counts for the
        longest option that it begins with: '10' is not also a '1', whatever its tokens.

        Raises:
            PromptTooLongError, EngineError: as `generate`.
            ConfigError: two options are the same tokens, or the endpoint cannot tell them apart.
        """
        ...

    async def score_reply(self, messages: Messages, *, request_id: str) -> "tuple[float, int]":
        """Sum of log-probabilities (nats) and number of tokens of the LAST message's content.

        For follow-ups and ratings: the last message, of any role, is scored given all before it;
        template tokens around it are not scored.
        """
        ...

    async def close(self) -> None:
        """Release the model; calling twice is harmless."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
