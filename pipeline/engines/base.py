"""The seam to models: generate text, or score given strings as the start of a reply.

Three implementations: vLLM in this program (`vllm/`), any OpenAI-compatible endpoint (`openai/`),
and a scripted one for tests (`scripted.py`), which is public. Stages see only this protocol; they
open, limit and retry nothing.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, Protocol, TypeVar, runtime_checkable

from pipeline.config.engines import EngineSection
from pipeline.errors import ConfigError, EngineError
from pipeline.types import FinishReason, Generation, Messages, OptionScores, SamplingParams

T = TypeVar("T")
NOTICE: ContextVar[Callable[[str], object]] = ContextVar("notice", default=lambda line: None)
"""Takes the lines that an engine has for the person who waits for it; the runner shows them."""
FINISHED = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence"})
CUT = frozenset({"length", "max_tokens", "model_length", "content_filter", "repetition"})
"""Ends that leave half a text; a filter cuts one as a limit does."""


def finish_reason(reason: str | None) -> FinishReason:
    """How a generation ended, from the word of a server or of vLLM.

    Raises:
        EngineError: it was aborted, called a tool or ended in a way that is not known; its text
            must not pass as a reply.
    """
    word = reason.lower() if isinstance(reason, str) else ""
    if word in FINISHED:
        return "stop"
    if word in CUT:
        return "length"
    raise EngineError(f"the reply ended with {reason!r}, so its text is not a finished reply")


@runtime_checkable
class Engine(Protocol):
    """A model that answers requests. Safe to call from many coroutines of one event loop."""

    name: str
    """What a person calls the model: path or endpoint model name."""
    fingerprint: str
    """Hash of all that determines the answers: weights, tokenizer, chat template, dtype."""
    version: str
    """Engine and version, such as 'vllm 0.32.0'; part of the lineage, not of the fingerprint."""
    max_context: int
    """Most tokens of prompt and reply together."""

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
        longest option that it begins with: '10' is not also a '1', whatever its tokens. A reply
        that says nothing about the options is a value, never a VerdictError: its reason is in
        `OptionScores.unreadable`, and the tokens it cost are counted.

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

    async def reward(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """The raw score of a reward model for the LAST message, an assistant's reply, and the
        number of tokens read: the whole conversation, as the chat template renders it.

        The score has no unit and no range, and may be NaN.

        Raises:
            PromptTooLongError, EngineError: as `generate`.
            ConfigError: the model is not a reward model.
        """
        ...

    async def close(self) -> None:
        """Release the model; calling twice is harmless."""
        ...


class Forwarding:
    """The calls of an Engine, each passed on to another engine by `_ask`."""

    async def _ask(self, messages: Messages, call: Callable[[Engine], Awaitable[T]]) -> T:
        """`call` with the engine that answers requests about `messages`."""
        raise NotImplementedError

    async def generate(
        self, messages: Messages, sampling: SamplingParams, *, seed: int, request_id: str
    ) -> Generation:
        """See Engine.generate."""
        return await self._ask(
            messages,
            lambda engine: engine.generate(messages, sampling, seed=seed, request_id=request_id),
        )

    async def score(
        self, messages: Messages, options: Sequence[str], *, request_id: str, reply_prefix: str = ""
    ) -> OptionScores:
        """See Engine.score."""
        wanted = {"request_id": request_id, "reply_prefix": reply_prefix}
        return await self._ask(messages, lambda engine: engine.score(messages, options, **wanted))

    async def score_reply(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """See Engine.score_reply."""
        return await self._ask(
            messages, lambda engine: engine.score_reply(messages, request_id=request_id)
        )

    async def reward(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """See Engine.reward."""
        return await self._ask(
            messages, lambda engine: engine.reward(messages, request_id=request_id)
        )


Settings = TypeVar("Settings", bound=EngineSection)
Use = Literal["replies", "options", "texts"]
"""What a run wants of a model: replies; scores of options; scores of given texts."""


@dataclass(frozen=True)
class Identity:
    """What is known of an engine before it is opened."""

    name: str
    """`Engine.name`."""
    fingerprint: str
    """`Engine.fingerprint`."""


@dataclass(frozen=True)
class StartingModel:
    """What a training starts from."""

    folder: Path
    """Folder with the weights and the tokenizer."""
    chat_template: Path | None
    """Jinja file that replaces the tokenizer's template."""
    chat_template_args: dict[str, Any]
    """Extra variables of the chat template."""


def no_rewards(name: str) -> NoReturn:
    """Refuse to give rewards. Raises ConfigError."""
    raise ConfigError(
        f"engine '{name}' is not a reward model, so it has no score for a response; name a "
        "sequence classifier with one label in preference.reward_model.engine"
    )


def _not_trainable(settings: EngineSection, *_: Path) -> NoReturn:
    raise ConfigError(
        f"an engine of type '{settings.type}' has no weights here that could be trained; "
        "use a local model (type: vllm)"
    )


@dataclass(frozen=True)
class EngineKind(Generic[Settings]):
    """One kind of engine: what can be done with its settings, from checking them to training."""

    check: Callable[[Settings], None]
    """Raise ConfigError or MachineError for what a person must correct; imports nothing heavy."""
    open: Callable[[Settings], Awaitable[Engine]]
    """Load or connect."""
    ask: Callable[[Settings, Use], Coroutine[Any, Any, str]] | None = None
    """Ask a running server one small question, as a check; None for a kind without a server."""
    identify: Callable[[Settings], Identity] | None = None
    """Name and fingerprint without opening; None where only the opened engine knows them."""
    resolve: Callable[[Settings], Settings] = lambda settings: settings
    """The settings with their files below the working directory or the project root."""
    starting_model: Callable[[Settings], StartingModel] = _not_trainable
    """The files to train; refused by a kind whose settings are not `trainable`."""
    with_trained: Callable[[Settings, Path], Settings] = _not_trainable
    """The settings for a model folder that training wrote; refused as by `starting_model`."""
