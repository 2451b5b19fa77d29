"""The values that pass between a stage and an engine: messages in, text or scores out.

Plain frozen values, no behavior, no third-party import, so that every layer can use them.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """The shape that chat templates and chat APIs take."""
        return {"role": self.role, "content": self.content}


Messages = tuple[Message, ...]
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs without a shape: fillers of Hangul, and the Braille cell without dots."""


def is_blank(text: str) -> bool:
    """True without a visible character: spaces, controls and zero-width characters show nothing."""
    return all(c in _FILLERS or unicodedata.category(c)[0] in "ZC" for c in text)


def user(content: str) -> Message:
    """A user turn."""
    return Message("user", content)


def assistant(content: str) -> Message:
    """An assistant turn."""
    return Message("assistant", content)


def with_system(messages: Messages, text: str) -> Messages:
    """The conversation with `text` in its system message, after what that says already."""
    if messages and messages[0].role == "system":
        return (Message("system", f"{messages[0].content}\n\n{text}"), *messages[1:])
    return (Message("system", text), *messages)


def messages_from(dicts: Sequence[dict[str, str]]) -> Messages:
    """Messages from dictionaries with `role` and `content`."""
    return tuple(Message(d["role"], d["content"]) for d in dicts)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw text. Field names are vLLM's."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 means all tokens."""
    max_tokens: int = 256
    """Upper limit of generated tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; they are not part of it."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One drawn text."""

    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    """Generated tokens, the end-of-turn token included."""
    num_cached_tokens: int = 0
    """Prompt tokens whose keys and values came from the prefix cache."""
    thought: str = ""
    """What the model thought before the text; never part of it."""
    num_thought_tokens: int | None = None
    """Of the generated tokens, those of the thought; None where that is not known."""

    def costs(self) -> dict[str, Any]:
        """How the text ended, what came before it and what it cost, by the columns of a row."""
        return {
            "finish_reason": self.finish_reason,
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_cached_tokens": self.num_cached_tokens,
            "num_tokens": self.num_tokens,
            "thoughts": (self.thought,) if self.thought else None,
            "num_thought_tokens": self.num_thought_tokens,
        }


@dataclass(frozen=True, slots=True)
class OptionScores:
    """Log-probabilities (nats) of whole strings as the start of the assistant reply."""

    logprobs: tuple[float | None, ...]
    """One per option, in the order asked; None when the endpoint did not report the option."""
    upper_bound: float | None = None
    """For options that are None: their log-probability is at most this (the k-th best token's)."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_calls: int = 1
    unreadable: str = ""
    """Why the reply says nothing about the options; empty for one that does."""

    @property
    def measured(self) -> tuple[float, ...]:
        """The log-probabilities for a column of numbers: NaN where there is none."""
        return tuple(math.nan if value is None else value for value in self.logprobs)

    @property
    def exact(self) -> bool:
        """True when every option has its own measured value."""
        return all(value is not None for value in self.logprobs)
