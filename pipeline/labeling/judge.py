"""How a judge is asked about one comparison, in both orders, and how its replies make a label.

In:  a conversation, a principle, two texts
Out: a JudgmentRow with P(first preferred), or `unparsed` with the reason

The labeling methods of Bai et al. 2022 (arXiv:2212.08073, sections 4.1 and 4.2) and Lee et al.
2023 (arXiv:2309.00267, sections 2.1 and 3.1) are settings of one procedure:

    preamble, exemplars, sample, ending -> option probabilities                2 scoring calls
    preamble, exemplars, sample, request -> rationale -> option probabilities  2 generations more

Each order has its own rationale, and its probability is clamped before the mean of the two.
"""

import asyncio
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipeline.config.labeling import MAX_CHARACTERS, JudgeConfig
from pipeline.constitution import Constitution, Principle
from pipeline.engines.base import Engine
from pipeline.ids import content_hash, derive_seed
from pipeline.labeling.calibration import Calibration
from pipeline.labeling.few_shot import ExemplarSet, Shot, draw_shots, exemplar_values
from pipeline.prompting.neutralize import draw_fence, neutralize, note_of_cuts, shorten, too_long
from pipeline.prompting.templates import PromptTemplate
from pipeline.records import JudgmentRow
from pipeline.soft_labels import clamp, prob_slot_a, swap_average
from pipeline.stages.base import read_reply
from pipeline.types import (
    Generation,
    Message,
    Messages,
    OptionScores,
    SamplingParams,
    assistant,
    user,
)


@dataclass(frozen=True)
class Answer:
    """A judge's reply in one order."""

    scores: OptionScores
    rationale: Generation | None = None


@dataclass(frozen=True)
class Judge:
    """An engine, and how it is asked for labels."""

    engine: Engine
    constitution: Constitution
    template: PromptTemplate
    config: JudgeConfig
    seed: int
    exemplars: ExemplarSet | None = None
    calibration: Calibration | None = None

    @cached_property
    def method_hash(self) -> str:
        """Hash of the labeling method, without model, constitution and calibration."""
        return content_hash(self._method(self.template.hash))[:16]

    def settings(self) -> dict[str, Any]:
        """All that changes a label, apart from texts, principle and model."""
        return {
            **self._method(self.template.hash),
            "seed": self.seed,
            "calibration": self.calibration.hash if self.calibration else "",
        }

    @cached_property
    def settings_hash(self) -> str:
        """Hash of the settings: part of every row's id."""
        return content_hash(self.settings())[:16]

    @cached_property
    def identity_hash(self) -> str:
        """Hash of model, labeling method, calibration and constitution: who labels, and how."""
        method = self._method(self.template.hash_for(*self.constitution.principles))
        return content_hash(
            [
                self.engine.fingerprint,
                content_hash(method)[:16],
                self.calibration.hash if self.calibration else "",
                self.constitution.hash_with_tags,
            ]
        )[:16]

    def identity(self, first_id: str, second_id: str, principle: Principle) -> str:
        """Hash of everything that the judge reads for a comparison, except its texts and principle.

        It covers the principles drawn for the exemplars, not the whole constitution, so that a
        changed principle affects only the comparisons that show it. Of the principle itself it
        covers how the template shows its rationale.
        """
        shots = self.shots(first_id, second_id)
        template = self.template.hash_for(principle, *(shot.principle for shot in shots))
        reasons = [template] if template != self.template.hash else []
        if not shots and not reasons:
            return self.settings_hash
        return content_hash([self.settings_hash, *(shot.hash for shot in shots), *reasons])[:16]

    def _method(self, template_hash: str) -> dict[str, Any]:
        # Files are identified by content, not by path.
        method = self.config.model_dump(mode="json", exclude={"exemplars", "calibration"})
        if self.config.max_characters == MAX_CHARACTERS:
            # The bound is younger than the hash: without it in a recipe, rows keep their ids.
            del method["max_characters"]
        shots = self.config.num_exemplars and self.exemplars
        return {
            "template": template_hash,
            "method": method,
            "exemplars": shots.hash if shots else "",
        }

    async def label(
        self,
        row: JudgmentRow,
        conversation: Messages,
        principle: Principle,
        first: str,
        second: str,
    ) -> JudgmentRow:
        """The row with its label. Raises EngineError as the engine does."""
        # Both orders see the same exemplars, so that their pull toward a letter cancels.
        shots = self.shots(row.first_id, row.second_id)
        fence = ""
        if self.config.defend:
            limit = self.config.max_characters
            if reason := too_long((first, second), limit):
                return replace(row, status="unparsed", reason=reason)
            turns = [message.content for message in conversation]
            row = replace(row, reason=note_of_cuts(turns, limit))
            # Both orders show the same letters; sorted, so that they are no sign of the order.
            fence = draw_fence((*turns, *sorted((first, second))), row.row_id, self.seed)
        forward, swapped = await asyncio.gather(
            self._ask(row, conversation, principle, (first, second), shots, fence, "forward"),
            self._ask(row, conversation, principle, (second, first), shots, fence, "swapped"),
        )
        answers = (forward, swapped)
        rationales = [answer.rationale for answer in answers if answer.rationale is not None]
        thoughts = tuple(rationale.thought for rationale in rationales)
        known = [n for r in rationales if (n := r.num_thought_tokens) is not None]
        row = replace(
            row,
            option_logprobs=forward.scores.measured + swapped.scores.measured,
            rationales=tuple(rationale.text for rationale in rationales),
            finish_reason="length" if any(r.finish_reason == "length" for r in rationales) else "",
            num_prompt_tokens=sum(a.scores.num_prompt_tokens for a in answers)
            + sum(rationale.num_prompt_tokens for rationale in rationales),
            num_cached_tokens=sum(a.scores.num_cached_tokens for a in answers)
            + sum(rationale.num_cached_tokens for rationale in rationales),
            num_tokens=sum(rationale.num_tokens for rationale in rationales),
            thoughts=thoughts if any(thoughts) else None,
            num_thought_tokens=sum(known) if known else None,
        )
        return read_reply(row, lambda row: self.read(row, forward.scores, swapped.scores))

    def read(self, row: JudgmentRow, forward: OptionScores, swapped: OptionScores) -> JudgmentRow:
        """The row with its label, from the scores of both orders.

        Raises:
            VerdictError: one order is unreadable. The other one alone would carry its whole
                position bias into the label.
        """
        low_mass = self.config.min_option_mass
        first = prob_slot_a(forward, min_option_mass=low_mass)
        second = prob_slot_a(swapped, min_option_mass=low_mass)
        bounds = self.config.chain_of_thought and self.config.chain_of_thought.clamp
        pair = (first.prob_a, second.prob_a)
        if bounds:
            pair = (clamp(pair[0], *bounds), clamp(pair[1], *bounds))
            row = replace(row, clamp_low=bounds[0], clamp_high=bounds[1])
        prob_first, gap = swap_average(*pair)
        row = replace(
            row,
            prob_forward=first.prob_a,
            prob_swapped=second.prob_a,
            prob_first=prob_first,
            position_gap=gap,
            exact=first.exact and second.exact,
        )
        if self.calibration is None:
            return row
        return replace(
            row,
            raw_label=prob_first,
            prob_first=self.calibration.apply(prob_first),
            calibration_hash=self.calibration.hash,
        )

    def shots(self, first_id: str, second_id: str) -> tuple[Shot, ...]:
        """The exemplars that precede this comparison, in both orders."""
        if self.exemplars is None or not self.config.num_exemplars:
            return ()
        # Drawn per comparison, not per row id: a changed principle keeps its neighbors' exemplars.
        return draw_shots(
            self.exemplars,
            self.constitution,
            self.config.num_exemplars,
            self.seed,
            first_id,
            second_id,
        )

    async def _ask(
        self,
        row: JudgmentRow,
        conversation: Messages,
        principle: Principle,
        slots: tuple[str, str],
        shots: tuple[Shot, ...],
        fence: str,
        order: str,
    ) -> Answer:
        messages = self.messages(conversation, principle, *slots, shots=shots, fence=fence)
        request_id = f"{row.row_id}:{order}"
        thought, rationale = self.config.chain_of_thought, None
        if thought is not None:
            rationale = await self.engine.generate(
                messages,
                SamplingParams(temperature=0.0, max_tokens=thought.max_tokens),
                seed=derive_seed("rationale", row.row_id, order),
                request_id=f"{request_id}:rationale",
            )
            messages = (
                *messages,
                assistant(neutralize(rationale.text)),
                user(self._lettered(thought.ending)),
            )
        scores = await self.engine.score(
            messages,
            self.config.options,
            request_id=request_id,
            reply_prefix=self.config.reply_prefix,
        )
        return Answer(scores, rationale)

    def messages(
        self,
        conversation: Messages,
        principle: Principle,
        slot_a: str,
        slot_b: str,
        *,
        shots: tuple[Shot, ...] = (),
        fence: str = "",
    ) -> Messages:
        """What the judge reads, up to the place where its reply begins.

        Args:
            fence: letters that the template shows at both ends of a slot, and no text holds.
        """
        turns: list[Message] = []
        for shot in shots:
            turns.append(self._sample(shot.exemplar.messages, fence=fence, **exemplar_values(shot)))
            if self.config.chain_of_thought is not None:
                turns.append(assistant(shot.rationale(self.config.letters)))
                turns.append(user(self._lettered(self.config.chain_of_thought.ending)))
            option = self.config.options[0 if shot.better_first else 1]
            turns.append(assistant(self.config.reply_prefix + option))
        turns.append(self._sample(conversation, principle, slot_a, slot_b, fence))
        if self.config.preamble:
            turns[0] = user(f"{self.config.preamble}\n\n{turns[0].content}")
        return tuple(turns)

    def _sample(
        self, conversation: Messages, principle: Principle, slot_a: str, slot_b: str, fence: str
    ) -> Message:
        def shown(text: str) -> str:
            limit = self.config.max_characters
            return neutralize(shorten(text, limit)) if self.config.defend else text

        text = self.template.render(
            conversation=[{"role": m.role, "content": shown(m.content)} for m in conversation],
            principle=principle,
            slot_a=shown(slot_a),
            slot_b=shown(slot_b),
            fence=fence,
        )
        asks = (
            self.config.ending
            if self.config.chain_of_thought is None
            else self._lettered(self.config.chain_of_thought.request)
        )
        return user(f"{text}\n{asks}" if asks else text)

    def _lettered(self, text: str) -> str:
        a, b = self.config.letters
        return text.replace("{a}", a).replace("{b}", b)
