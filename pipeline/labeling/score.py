"""Score stage: a rating of each response on its own (direct RLAIF), under one principle or all.

In:  PromptRow, the responses to rate
Out: ScoreRow: the mean rating under each principle, or a status that says why there is none

    drawn   one principle per PROMPT: if each response had its own, a difference of two scores would
            compare the principles
    all     one value for each principle (the attribute vector), score = their mean by weight

A principle with a check is decided by it, without a call: the best rating for a response that holds
it, else the worst.

A rating is the mean of 1, 2, ... under the normalized probabilities of the whole options (Lee et
al. 2023, arXiv:2309.00267). "1" begins "10" in a model that spells numbers digit by digit; engines
count a reply for the longest option that it begins with, so that every tokenizer gives the exact
probabilities (`engines/options.py`).
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pipeline.checks import run_check
from pipeline.config.labeling import MAX_CHARACTERS, PreferenceConfig, ScoreConfig
from pipeline.constitution import Constitution, Principle, weighted_draw
from pipeline.engines.base import Engine
from pipeline.errors import VerdictError
from pipeline.ids import row_id
from pipeline.labeling.comparisons import Candidate, Compared, TextStage
from pipeline.labeling.from_scores import labels_from_scores
from pipeline.labeling.inputs import LabelingInputs
from pipeline.prompting.neutralize import draw_fence, neutralize, note_of_cuts, shorten, too_long
from pipeline.prompting.templates import PromptTemplate
from pipeline.records import PromptRow, Row, ScoreRow
from pipeline.soft_labels import Rating, expected_rating, weighted_mean
from pipeline.stages.base import Inputs, Item, Stage, dropped, read_reply
from pipeline.store.stage_names import SCORE, nth_folder
from pipeline.types import Messages, OptionScores, user


@dataclass(frozen=True)
class ScoreStage(TextStage):
    """Rates responses. One scoring call per row and principle."""

    engine: Engine
    constitution: Constitution
    template: PromptTemplate
    config: ScoreConfig
    seed: int
    run_id: str
    compared: Compared
    folder: str = nth_folder(SCORE, 0)
    judged_only: bool = False
    """True to rate under the principles that the model decides alone, as its measurement does."""
    under: Mapping[str, tuple[Principle, ...]] = field(default_factory=dict)
    """By id of a response: the principles to rate it under, instead of those of its prompt."""

    @cached_property
    def _method(self) -> dict[str, Any]:
        method = self.config.model_dump(mode="json", exclude={"scale"})
        if self.config.max_characters == MAX_CHARACTERS:
            # The bound is younger than the hash: without it in a recipe, rows keep their ids.
            del method["max_characters"]
        return method

    def settings(self) -> dict[str, Any]:
        """Template, options, constitution and seed; the scale belongs to the labels."""
        under = sorted(
            (name, "+".join(p.hash for p in asked)) for name, asked in self.under.items()
        )
        return {
            **({"under": under} if under else {}),
            **({"judged_only": True} if self.judged_only and self.constitution.checked else {}),
            "template": self.template.hash_for(*self.constitution.principles),
            "constitution": self.constitution.hash,
            "method": self._method,
            "seed": self.seed,
        }

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per response, prompt after prompt."""
        return [
            self._item(prompt, side, self.under.get(side.row_id) or self.principles(prompt.row_id))
            for prompt, sides in self.compared.candidates(inputs)
            for side in sides
        ]

    def principles(self, prompt_id: str) -> tuple[Principle, ...]:
        """The principles under which all responses to a prompt are rated."""
        constitution = self.constitution
        drawn_from = constitution.judged if self.judged_only else constitution.principles
        if self.config.principles == "all":
            return drawn_from
        return weighted_draw(drawn_from, self.seed, "score", prompt_id)

    def messages(
        self, conversation: Messages, response: str, principle: Principle, fence: str = ""
    ) -> Messages:
        """What the rater reads, up to the place where its reply begins.

        Args:
            fence: letters that the template shows at both ends of the response, and no text holds.
        """

        def shown(text: str) -> str:
            return neutralize(shorten(text, self.config.max_characters))

        text = self.template.render(
            conversation=[{"role": m.role, "content": shown(m.content)} for m in conversation],
            principle=principle,
            response=shown(response),
            options=self.config.shown,
            fence=fence,
        )
        return (user(text),)

    def _item(self, prompt: PromptRow, side: Candidate, principles: Sequence[Principle]) -> Item:
        # A weight matters only in a mean of several ratings.
        weights = [p.weight for p in principles] if len(principles) > 1 else []
        identity = row_id(
            "score",
            side.row_id,
            [p.hash for p in principles],
            weights,
            self._method,
            self.template.hash_for(*principles),
            self.engine.fingerprint,
        )
        draft = self.score(
            prompt,
            side,
            row_id=identity,
            model_fingerprint=self.engine.fingerprint,
            template_hash=self.template.hash_for(*principles),
            method="score",
            parts=tuple(p.id for p in principles),
            principle_hash="+".join(p.hash for p in principles),
        )
        if side.status != "ok":
            return dropped(draft, f"the response is {side.status}")
        return Item(draft, lambda: self._rate(draft, prompt, side, principles))

    async def _rate(
        self, draft: ScoreRow, prompt: PromptRow, side: Candidate, principles: Sequence[Principle]
    ) -> Row:
        texts = (*(message.content for message in prompt.messages), side.text)
        asks_model = not all(principle.check for principle in principles)
        if asks_model and (reason := too_long((side.text,), self.config.max_characters)):
            return replace(draft, status="unparsed", reason=reason)
        draft = replace(draft, reason=note_of_cuts(texts[:-1], self.config.max_characters))
        fence = draw_fence(texts, draft.row_id, self.seed)

        async def ask(principle: Principle) -> OptionScores:
            if principle.check:
                holds = run_check(principle.check, side.text, prompt.messages).passes
                return certain_rating(holds, len(self.config.options))
            return await self.engine.score(
                self.messages(prompt.messages, side.text, principle, fence),
                self.config.options,
                request_id=f"{draft.row_id}:{principle.id}",
                reply_prefix=self.config.reply_prefix,
            )

        # The first call leaves conversation and response in the prefix cache for the others.
        replies = [await ask(principles[0])]
        replies += await asyncio.gather(*(ask(principle) for principle in principles[1:]))
        row = replace(
            draft,
            details=tuple(value for reply in replies for value in reply.measured),
            num_prompt_tokens=sum(reply.num_prompt_tokens for reply in replies),
            num_cached_tokens=sum(reply.num_cached_tokens for reply in replies),
        )
        if not asks_model:
            row = replace(row, model_fingerprint="", template_hash="")
        weights = [p.weight for p in principles]
        return read_reply(row, lambda row: self.read(row, replies, weights))

    def read(
        self, row: ScoreRow, replies: Sequence[OptionScores], weights: Sequence[float]
    ) -> ScoreRow:
        """The row with its score.

        Raises:
            VerdictError: a rating cannot be read. Then the row has no score: a mean of the others
                would not compare with the mean over all principles.
        """
        ratings = [
            self._rating(part, reply) for part, reply in zip(row.parts, replies, strict=True)
        ]
        values = tuple(rating.score for rating in ratings)
        return replace(
            row,
            values=values,
            exact=all(rating.exact for rating in ratings),
            score=weighted_mean(values, weights),
        )

    def _rating(self, part: str, reply: OptionScores) -> Rating:
        try:
            return expected_rating(reply, min_option_mass=self.config.min_option_mass)
        except VerdictError as error:
            raise VerdictError(f"{part}: {error}") from None


def certain_rating(best: bool, number: int) -> OptionScores:
    """All probability on the best or on the worst of `number` ratings: what a check says."""
    others = [-math.inf] * (number - 1)
    return OptionScores((*others, 0.0) if best else (0.0, *others), num_calls=0)


def score_stages(
    inputs: LabelingInputs, engine: Engine, compared: Compared, number: int
) -> list[Stage]:
    """The ratings of one judge of the panel, and the labels that they give."""
    scores = make_score_stage(inputs, engine, compared, nth_folder(SCORE, number))
    scale = inputs.config.score.scale
    return [scores, labels_from_scores(inputs, scores, compared, scale, "score", number)]


def make_score_stage(
    inputs: LabelingInputs, engine: Engine, compared: Compared, folder: str
) -> ScoreStage:
    """The ratings of the compared responses, each on its own."""
    assert inputs.templates.score is not None
    return ScoreStage(
        engine=engine,
        constitution=inputs.constitution,
        template=inputs.templates.score,
        config=inputs.config.score,
        seed=inputs.seed,
        run_id=inputs.run_id,
        compared=compared,
        folder=folder,
    )


def describe_scores(config: PreferenceConfig) -> str:
    """How ratings make labels, for the card of a data set."""
    section = config.score
    which = (
        "each principle, and the score is the mean by the principles' weights"
        if section.principles == "all"
        else "one principle, drawn by seed for each prompt"
    )
    return (
        f"Each response is rated on its own under {which}. A rating is the mean of 1 to "
        f"{len(section.options)} under the normalized probabilities of the whole ratings (Lee et "
        "al. 2023, arXiv:2309.00267). The soft label is sigmoid((score of first - score of second) "
        f"/ {section.scale:g}), a link of this project; there are no orders. report.md says how "
        "much the scores follow length."
    )
