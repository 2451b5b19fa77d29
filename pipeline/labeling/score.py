"""Score stage: a rating of each response on its own (direct RLAIF), under one principle or all.

In:  PromptRow, the responses to rate
Out: ScoreRow: the mean rating under each principle, or a status that says why there is none

    drawn   one principle per PROMPT: rated under two rules, a difference of two responses' scores
            would compare the rules
    all     one value for each principle (the attribute vector), score = their mean by weight

A rating is the mean of 1, 2, ... under the normalized probabilities of the whole options (Lee et
al. 2023, arXiv:2309.00267). "1" begins "10" in a model that spells numbers digit by digit; engines
count a reply for the longest option that it begins with, so that every tokenizer gives the exact
probabilities (`engines/options.py`).
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipeline.config.labeling import ScoreConfig
from pipeline.constitution import Constitution, Principle
from pipeline.engines.base import Engine
from pipeline.errors import VerdictError
from pipeline.ids import row_id
from pipeline.labeling.comparisons import Candidate, candidate
from pipeline.prompting.neutralize import neutralize, neutralize_conversation
from pipeline.prompting.templates import PromptTemplate
from pipeline.records import PromptRow, Row, ScoreRow
from pipeline.soft_labels import Rating, expected_rating, weighted_mean
from pipeline.stages.base import Inputs, Item, dropped
from pipeline.stages.sample import conversation_hash
from pipeline.types import Messages, OptionScores, user


@dataclass(frozen=True)
class ScoreStage:
    """Rates responses. One scoring call per row and principle."""

    engine: Engine
    constitution: Constitution
    template: PromptTemplate
    config: ScoreConfig
    seed: int
    run_id: str
    texts: tuple[str, ...]
    """Folders of the responses and revisions to rate."""
    folder: str = "preference/score"
    prompts: str = "prompts"
    row_type: type[Row] = ScoreRow

    @cached_property
    def _method(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json", exclude={"scale"})

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts and the folders of their texts."""
        return (self.prompts, *self.texts)

    def settings(self) -> dict[str, Any]:
        """Template, options, constitution and seed; the scale belongs to the labels."""
        return {
            "template": self.template.hash,
            "constitution": self.constitution.hash,
            "method": self._method,
            "seed": self.seed,
        }

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per response, prompt after prompt."""
        return [
            self._item(prompt, side, self.principles(prompt.row_id))
            for prompt, sides in candidates_by_prompt(inputs, self.prompts, self.texts)
            for side in sides
        ]

    def principles(self, prompt_id: str) -> tuple[Principle, ...]:
        """The principles under which all responses to a prompt are rated."""
        if self.config.principles == "all":
            return self.constitution.principles
        return (self.constitution.draw(self.seed, "score", prompt_id),)

    def messages(self, conversation: Messages, response: str, principle: Principle) -> Messages:
        """What the rater reads, up to the place where its reply begins."""
        return (
            user(
                self.template.render(
                    conversation=neutralize_conversation(conversation),
                    principle=principle,
                    response=neutralize(response),
                    options=self.config.shown,
                )
            ),
        )

    def _item(self, prompt: PromptRow, side: Candidate, principles: Sequence[Principle]) -> Item:
        # A weight changes a mean of several ratings, and nothing where there is one.
        weights = [p.weight for p in principles] if len(principles) > 1 else []
        identity = row_id(
            "score",
            side.row_id,
            [p.hash for p in principles],
            weights,
            self._method,
            self.template.hash,
            self.engine.fingerprint,
        )
        blank = ScoreRow(
            row_id=identity,
            parent_ids=(prompt.row_id, side.row_id),
            run_id=self.run_id,
            input_hash=conversation_hash(prompt.messages, side.text),
            prompt_id=prompt.row_id,
            model_fingerprint=self.engine.fingerprint,
            template_hash=self.template.hash,
            method="score",
            response_id=side.row_id,
            parts=tuple(p.id for p in principles),
            principle_hash="+".join(p.hash for p in principles),
        )
        if side.status != "ok":
            return dropped(blank, f"the response is {side.status}")
        return Item(blank, lambda: self._rate(blank, prompt, side, principles))

    async def _rate(
        self, blank: ScoreRow, prompt: PromptRow, side: Candidate, principles: Sequence[Principle]
    ) -> Row:
        async def ask(principle: Principle) -> OptionScores:
            return await self.engine.score(
                self.messages(prompt.messages, side.text, principle),
                self.config.options,
                request_id=f"{blank.row_id}:{principle.id}",
                reply_prefix=self.config.reply_prefix,
            )

        # The first call leaves conversation and response in the prefix cache for the others.
        asked = [await ask(principles[0])]
        asked += await asyncio.gather(*(ask(principle) for principle in principles[1:]))
        row = replace(
            blank,
            details=tuple(
                math.nan if value is None else value for a in asked for value in a.logprobs
            ),
            num_prompt_tokens=sum(a.num_prompt_tokens for a in asked),
            num_cached_tokens=sum(a.num_cached_tokens for a in asked),
        )
        return self.read(row, asked, [p.weight for p in principles])

    def read(
        self, row: ScoreRow, asked: Sequence[OptionScores], weights: Sequence[float]
    ) -> ScoreRow:
        """The row with its score. One part that cannot be read leaves the whole without a score:
        a mean over the rest would compare other principles than its neighbors' means do.
        """
        ratings: list[Rating | None] = []
        reasons: list[str] = []
        for part, scores in zip(row.parts, asked, strict=True):
            try:
                ratings.append(expected_rating(scores, min_option_mass=self.config.min_option_mass))
            except VerdictError as error:
                ratings.append(None)
                reasons.append(f"{part}: {error}")
        values = tuple(rating.score if rating else math.nan for rating in ratings)
        row = replace(row, values=values, exact=all(rating.exact for rating in ratings if rating))
        if reasons:
            return replace(row, status="unparsed", reason=reasons[0])
        return replace(row, score=weighted_mean(values, weights))


def candidates_by_prompt(
    inputs: Inputs, prompts: str, texts: Sequence[str]
) -> list[tuple[PromptRow, list[Candidate]]]:
    """Each prompt with all its responses and revisions, in the order of the folders."""
    groups: dict[str, list[Candidate]] = {}
    for folder in texts:
        for row in inputs[folder]:
            groups.setdefault(row.prompt_id, []).append(candidate(row))
    return [(prompt, groups.get(prompt.row_id, [])) for prompt in inputs[prompts]]
