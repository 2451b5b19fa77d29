"""Follow-up stage: how likely is a pleased, and how likely a displeased, user's next message?

In:  PromptRow, the responses, a set of follow-ups
Out: ScoreRow: one value per category, score = their mean, `details` = every L in order

The follow-up is a USER turn after the response, and L is the mean log-probability of its tokens
alone; no template token counts (`follow_ups.py` has the formula and its source). Conversation and
response stand as turns of their own, unchanged, as the policy wrote them.

With a neutral reply, L after that reply is subtracted: what the response adds to the context. These
values belong to the prompt and are asked once for all its responses. They cancel in a difference of
two responses, so they change scores and their correlation with length, and no label.

Does not: use raw logits of the first position, as the authors' script does; engines give none.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.engines.base import Engine
from pipeline.errors import VerdictError
from pipeline.ids import row_id
from pipeline.labeling.comparisons import Candidate
from pipeline.labeling.follow_up_sets import (
    FollowUpSet,
    category_values,
    follow_up_reward,
    mean_logprob,
)
from pipeline.labeling.score import candidates_by_prompt
from pipeline.records import PromptRow, Row, ScoreRow
from pipeline.stages.base import Inputs, Item, dropped
from pipeline.stages.sample import conversation_hash
from pipeline.types import Messages, assistant, user

Likelihoods = tuple[float, ...]


@dataclass
class Once:
    """A value that the first caller computes and the others wait for; a failed try is not kept."""

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
class FollowUpStage:
    """Scores responses by their follow-ups. One call per row and follow-up, and with a neutral
    reply one per prompt and follow-up.
    """

    engine: Engine
    follow_ups: FollowUpSet
    """As it is asked: repeated sentences are removed before, or meant."""
    run_id: str
    texts: tuple[str, ...]
    """Folders of the responses and revisions to score."""
    neutral_reply: str | None = None
    folder: str = "preference/score"
    prompts: str = "prompts"
    row_type: type[Row] = ScoreRow

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts and the folders of their texts."""
        return (self.prompts, *self.texts)

    def settings(self) -> dict[str, Any]:
        """The sentences and the neutral reply."""
        return {"follow_ups": self.follow_ups.hash, "neutral_reply": self.neutral_reply}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per response, prompt after prompt."""
        items = []
        for prompt, sides in candidates_by_prompt(inputs, self.prompts, self.texts):
            neutral = self._neutral(prompt)
            items += [self._item(prompt, side, neutral) for side in sides]
        return items

    async def likelihoods(self, conversation: Messages, reply: str, request_id: str) -> Likelihoods:
        """L of each follow-up after a reply, nats per token."""

        async def ask(number: int, sentence: str) -> float:
            total, num_tokens = await self.engine.score_reply(
                (*conversation, assistant(reply), user(sentence)),
                request_id=f"{request_id}:{number}",
            )
            return mean_logprob(total, num_tokens)

        first, *others = enumerate(self.follow_ups.sentences)
        # The first call leaves conversation and reply in the prefix cache for the others.
        found = [await ask(*first)]
        found += await asyncio.gather(*(ask(*other) for other in others))
        if not all(math.isfinite(value) for value in found):
            raise VerdictError("the log-probability of a follow-up is not a finite number")
        return tuple(found)

    def _neutral(self, prompt: PromptRow) -> Once | None:
        """The values after the neutral reply. They live as long as the plan: a resumed shard asks
        again for prompts that lack a row, and gets the same values.
        """
        reply = self.neutral_reply
        if reply is None:
            return None
        return Once(lambda: self.likelihoods(prompt.messages, reply, f"{prompt.row_id}:neutral"))

    def _item(self, prompt: PromptRow, side: Candidate, neutral: Once | None) -> Item:
        identity = row_id(
            "score", "follow_up", side.row_id, self.settings(), self.engine.fingerprint
        )
        blank = ScoreRow(
            row_id=identity,
            parent_ids=(prompt.row_id, side.row_id),
            run_id=self.run_id,
            input_hash=conversation_hash(prompt.messages, side.text),
            prompt_id=prompt.row_id,
            model_fingerprint=self.engine.fingerprint,
            template_hash=self.follow_ups.hash,
            method="follow_up",
            response_id=side.row_id,
            parts=tuple(category.id for category in self.follow_ups.categories),
        )
        if side.status != "ok":
            return dropped(blank, f"the response is {side.status}")

        async def call() -> Row:
            found = await self.likelihoods(prompt.messages, side.text, identity)
            without = await neutral.get() if neutral else ()
            added = (
                found
                if neutral is None
                else tuple(after - before for after, before in zip(found, without, strict=True))
            )
            values = category_values(self.follow_ups, added)
            return replace(
                blank, values=values, score=follow_up_reward(values), details=(*found, *without)
            )

        return Item(blank, call)
