"""Behavior of a toy engine kind: the second of the two files that a new kind needs."""

from collections.abc import Sequence

import pytest

from pipeline.config import recipe
from pipeline.engines import ENGINES
from pipeline.engines.base import EngineKind, Identity, no_rewards
from pipeline.errors import ConfigError
from pipeline.ids import content_hash
from pipeline.types import Generation, Messages, OptionScores, SamplingParams
from tests.engines.toy_settings import RecipeWithToy, ToyConfig


class ToyEngine:
    """Writes its word in every second reply and prefers the response that contains it."""

    version = "toy 1"
    max_context = 4096

    def __init__(self, config: ToyConfig) -> None:
        self.name, self.fingerprint = identity(config).name, identity(config).fingerprint
        self._word = config.word

    async def generate(
        self, messages: Messages, sampling: SamplingParams, *, seed: int, request_id: str
    ) -> Generation:
        """A few words that depend on the seed."""
        text = f"reply {seed}, {self._word if seed % 2 else 'blunt'} and short"
        return Generation(text, "stop", len(messages), len(text.split()))

    async def score(
        self, messages: Messages, options: Sequence[str], *, request_id: str, reply_prefix: str = ""
    ) -> OptionScores:
        """-0.5 nats for the first option where the word comes first in the last message, else
        -1.
        """
        slot_a, slot_b = messages[-1].content.split("(A)")[1].split("(B)")
        likes_a = (self._word in slot_a) >= (self._word in slot_b)
        return OptionScores((-0.5, -1.0) if likes_a else (-1.0, -0.5))

    async def score_reply(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """-1 nat for each word of the last message."""
        num_words = len(messages[-1].content.split())
        return -float(num_words), num_words

    async def reward(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """A toy writes; it has no classification head."""
        no_rewards(self.name)

    async def close(self) -> None:
        """A toy holds nothing."""


def identity(config: ToyConfig) -> Identity:
    """The word is all there is to a toy."""
    return Identity("toy", content_hash(["toy", config.word]))


def check(config: ToyConfig) -> None:
    """Raises ConfigError without a word."""
    if not config.word:
        raise ConfigError("the toy's `word` is empty; give it one")


async def open_toy(config: ToyConfig) -> ToyEngine:
    """A toy loads nothing."""
    return ToyEngine(config)


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the toy into the table of kinds and into the union of settings."""
    patch.setitem(ENGINES, "toy", TOY)
    patch.setattr(recipe, "RunConfig", RecipeWithToy)


TOY = EngineKind(check=check, open=open_toy, identify=identity)
