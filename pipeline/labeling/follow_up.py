"""Follow-up stage: how likely is a pleased, and how likely a displeased, user's next message?

In:  PromptRow, the responses, a set of follow-ups
Out: ScoreRow: one value per category, score = their mean, `details` = every L in order

The follow-up is a USER turn after the response, and L is the mean log-probability of its tokens
alone; template tokens do not count (`follow_up_sets.py` has the formula and its source).
Conversation and response are separate turns, unchanged, as the policy wrote them.

With a neutral reply, L after that reply is subtracted, which leaves what the response adds. These
values belong to the prompt and are computed once for all its responses. They cancel in a difference
of two responses, so they change scores and their correlation with length, but no label.

Does not: use raw logits of the first position, as the authors' script does; engines give none.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config.labeling import PreferenceConfig
from pipeline.data.markdown import code_span
from pipeline.engines.base import Engine
from pipeline.errors import VerdictError
from pipeline.ids import row_id
from pipeline.labeling.comparisons import Candidate, Compared, TextStage
from pipeline.labeling.follow_up_sets import (
    FollowUpSet,
    category_values,
    follow_up_reward,
    mean_logprob,
)
from pipeline.labeling.from_scores import labels_from_scores
from pipeline.labeling.inputs import LabelingInputs
from pipeline.records import PromptRow, Row, ScoreRow
from pipeline.stages.base import Inputs, Item, Stage, dropped, read_reply
from pipeline.store.stage_names import SCORE, nth_folder
from pipeline.types import Messages, assistant, user

Likelihoods = tuple[float, ...]


@dataclass
class Once:
    """A value that the first caller computes while the others wait; a failure is not stored."""

    compute: Callable[[], Awaitable[Likelihoods]]
    _value: Likelihoods | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self) -> Likelihoods:
        """The value. Raises what `compute` raises."""
        async with self._lock:
            if self._value is None:
                self._value = await self.compute()
            return self._value


@dataclass(frozen=True)
class FollowUpStage(TextStage):
    """Scores responses by their follow-ups. One call per row and follow-up, and with a neutral
    reply one per prompt and follow-up.
    """

    engine: Engine
    follow_ups: FollowUpSet
    """Without repeated sentences, unless the recipe keeps them."""
    compared: Compared
    run_id: str
    neutral_reply: str | None = None
    folder: str = nth_folder(SCORE, 0)

    def settings(self) -> dict[str, Any]:
        """The sentences and the neutral reply."""
        return {"follow_ups": self.follow_ups.hash, "neutral_reply": self.neutral_reply}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per response, prompt after prompt."""
        return [
            self._item(prompt, side, neutral)
            for prompt, sides in self.compared.candidates(inputs)
            for neutral in [self._neutral(prompt)]
            for side in sides
        ]

    async def likelihoods(self, conversation: Messages, reply: str, request_id: str) -> Likelihoods:
        """L of each follow-up after a reply, nats per token; NaN for one without tokens."""

        async def ask(number: int, sentence: str) -> float:
            total, num_tokens = await self.engine.score_reply(
                (*conversation, assistant(reply), user(sentence)),
                request_id=f"{request_id}:{number}",
            )
            return mean_logprob(total, num_tokens)

        first, *others = enumerate(self.follow_ups.sentences)
        # The first call leaves conversation and reply in the prefix cache for the others.
        values = [await ask(*first)]
        return (*values, *await asyncio.gather(*(ask(*other) for other in others)))

    def _neutral(self, prompt: PromptRow) -> Once | None:
        """The values after the neutral reply, shared by the rows of one plan: a resumed shard
        computes them again for prompts that lack a row, with equal results.
        """
        reply = self.neutral_reply
        if reply is None:
            return None
        return Once(lambda: self.likelihoods(prompt.messages, reply, f"{prompt.row_id}:neutral"))

    def _item(self, prompt: PromptRow, side: Candidate, neutral: Once | None) -> Item:
        identity = row_id(
            "score", "follow_up", side.row_id, self.settings(), self.engine.fingerprint
        )
        draft = self.score(
            prompt,
            side,
            row_id=identity,
            model_fingerprint=self.engine.fingerprint,
            template_hash=self.follow_ups.hash,
            method="follow_up",
            parts=tuple(category.id for category in self.follow_ups.categories),
        )
        if side.status != "ok":
            return dropped(draft, f"the response is {side.status}")

        async def make() -> Row:
            after = await self.likelihoods(prompt.messages, side.text, identity)
            before = await neutral.get() if neutral else ()
            row = replace(draft, details=(*after, *before))
            return read_reply(row, lambda row: self.read(row, after, before))

        return Item(draft, make)

    def read(self, row: ScoreRow, after: Likelihoods, before: Likelihoods) -> ScoreRow:
        """The row with its score.

        Args:
            after: L of each follow-up after the response.
            before: L after the neutral reply; empty without one.

        Raises:
            VerdictError: an L is not a finite number.
        """
        if any(map(math.isnan, (*after, *before))):
            raise VerdictError("a follow-up has no tokens for this model, or no log-probability")
        if any(map(math.isinf, (*after, *before))):
            raise VerdictError("the log-probability of a follow-up is not a finite number")
        gains = tuple(a - b for a, b in zip(after, before, strict=True)) if before else after
        values = category_values(self.follow_ups, gains)
        return replace(row, values=values, score=follow_up_reward(values))


def follow_up_stages(
    inputs: LabelingInputs, engine: Engine, compared: Compared, number: int
) -> list[Stage]:
    """The follow-up scores of one judge of the panel, and the labels that they give."""
    config = inputs.config.follow_up
    assert inputs.files.follow_ups is not None
    scores = FollowUpStage(
        engine=engine,
        follow_ups=inputs.files.follow_ups,
        compared=compared,
        run_id=inputs.run_id,
        neutral_reply=config.neutral_reply,
        folder=nth_folder(SCORE, number),
    )
    return [scores, labels_from_scores(inputs, scores, compared, config.scale, "follow_up", number)]


def describe_follow_ups(config: PreferenceConfig) -> str:
    """How follow-ups make labels, for the card of a data set."""
    section = config.follow_up
    return (
        f"Each response is scored by the sentences of {code_span(section.follow_ups.name)}: mean "
        "log-probability per token, as the next user turn, of what pleased users say minus that of "
        "what displeased users say, mean over categories (after Zhang et al. 2024, "
        "arXiv:2409.13948). The soft label is sigmoid((score of first - score of second) / "
        f"{section.scale:g}), a link of this project; there are no orders. report.md says how "
        "much the scores follow length."
    )
