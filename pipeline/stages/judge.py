"""Judge stage: which of two responses does the judge prefer under one drawn principle?

In:  PromptRow, the responses to compare
Out: JudgmentRow: P(first is preferred), or a status that says why there is none

Each comparison is asked in both orders, next to each other so that they share their prefix, and
the probabilities are averaged (Lee et al. 2023, arXiv:2309.00267, on position bias). Options are
scored, never generated: judging costs prefill only. A principle is drawn per label (Bai et al.
2022, arXiv:2212.08073, section 4).
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.config import Comparisons, JudgeConfig
from pipeline.constitution import Constitution, Principle
from pipeline.engines.base import Engine
from pipeline.errors import VerdictError
from pipeline.ids import row_id
from pipeline.prompting import PromptTemplate, neutralize, neutralize_conversation
from pipeline.records import JudgmentRow, PromptRow, Row
from pipeline.stages.base import Inputs, Item, dropped
from pipeline.stages.compare import Pairing, pairings
from pipeline.stages.sample import conversation_hash
from pipeline.types import Messages, OptionScores, user
from pipeline.verdicts import prob_slot_a, swap_average


@dataclass(frozen=True)
class JudgeStage:
    """Labels comparisons. Two scoring calls per row."""

    engine: Engine
    constitution: Constitution
    template: PromptTemplate
    judge: JudgeConfig
    comparisons: Comparisons | Literal["evaluation"]
    seed: int
    run_id: str
    samples: str | None
    """Folder of the samples to compare, if any."""
    initials: str | None = None
    """Folder of the initial responses, for `revision_vs_initial`."""
    revisions: str | None = None
    """Folder of the last revisions, for `revision_vs_initial`."""
    folder: str = "preference/judge"
    prompts: str = "prompts"
    row_type: type[Row] = JudgmentRow

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts and the folders that are compared."""
        named = (self.prompts, self.samples, self.initials, self.revisions)
        return tuple(dict.fromkeys(name for name in named if name))

    def settings(self) -> dict[str, Any]:
        """Template, constitution, labeling method, what is compared, and seed."""
        return {
            "template": self.template.hash, "constitution": self.constitution.hash,
            "judge": self.judge.model_dump(mode="json"), "comparisons": self.comparisons,
            "seed": self.seed,
        }

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per comparison, prompt after prompt."""
        groups = {
            name: _by_prompt(inputs[name]) if name else {}
            for name in (self.samples, self.initials, self.revisions)
        }
        items = []
        for prompt in inputs[self.prompts]:
            found = pairings(
                self.comparisons, *(groups[name].get(prompt.row_id, [])
                                    for name in (self.samples, self.initials, self.revisions)),
            )
            items += [self._item(prompt, pairing) for pairing in found]
        return items

    def _item(self, prompt: PromptRow, pairing: Pairing) -> Item:
        first, second = pairing.first, pairing.second
        principle = self.constitution.draw(self.seed, "judge", first.row_id, second.row_id)
        blank = JudgmentRow(
            row_id=row_id(
                "judgment", pairing.comparison, first.row_id, second.row_id, principle.hash,
                self.template.hash, self.judge.model_dump(mode="json"), self.engine.fingerprint,
                self.seed,
            ),
            parent_ids=(prompt.row_id, first.row_id, second.row_id), run_id=self.run_id,
            input_hash=conversation_hash(prompt.messages, first.text, second.text),
            prompt_id=prompt.row_id, model_fingerprint=self.engine.fingerprint,
            template_hash=self.template.hash, comparison=pairing.comparison,
            first_id=first.row_id, second_id=second.row_id, principle_id=principle.id,
            principle_hash=principle.hash,
        )
        for side in (first, second):
            if side.status != "ok":
                return dropped(blank, f"a response is {side.status}")
        if first.text == second.text:
            return dropped(blank, "identical responses")
        return Item(blank, lambda: self._label(blank, prompt, principle, first.text, second.text))

    async def _label(
        self, blank: JudgmentRow, prompt: PromptRow, principle: Principle, first: str, second: str
    ) -> Row:
        forward, swapped = await asyncio.gather(
            self._ask(prompt, principle, first, second, f"{blank.row_id}:forward"),
            self._ask(prompt, principle, second, first, f"{blank.row_id}:swapped"),
        )
        row = replace(
            blank, option_logprobs=_raw(forward) + _raw(swapped),
            num_prompt_tokens=forward.num_prompt_tokens + swapped.num_prompt_tokens,
            num_cached_tokens=forward.num_cached_tokens + swapped.num_cached_tokens,
        )
        return read_judgment(row, forward, swapped, self.judge.min_option_mass)

    async def _ask(
        self, prompt: PromptRow, principle: Principle, slot_a: str, slot_b: str, request_id: str
    ) -> OptionScores:
        return await self.engine.score(
            judge_messages(self.template, prompt.messages, principle, slot_a, slot_b),
            self.judge.options, request_id=request_id, reply_prefix=self.judge.reply_prefix,
        )


def judge_messages(
    template: PromptTemplate, conversation: Messages, principle: Principle,
    slot_a: str, slot_b: str,
) -> Messages:
    """The one user turn that the judge reads; delimiters in foreign text are neutralized."""
    return (user(template.render(
        conversation=neutralize_conversation(conversation), principle=principle,
        slot_a=neutralize(slot_a), slot_b=neutralize(slot_b),
    )),)


def read_judgment(
    row: JudgmentRow, forward: OptionScores, swapped: OptionScores, min_option_mass: float
) -> JudgmentRow:
    """The row with its soft label, or `unparsed` with the reason. Both orders must be readable:
    the mean of one order alone would carry the whole position bias into the label."""
    try:
        first = prob_slot_a(forward, min_option_mass=min_option_mass)
        second = prob_slot_a(swapped, min_option_mass=min_option_mass)
    except VerdictError as error:
        return replace(row, status="unparsed", reason=str(error))
    soft_label, gap = swap_average(first.prob_a, second.prob_a)
    return replace(
        row, prob_forward=first.prob_a, prob_swapped=second.prob_a, soft_label=soft_label,
        position_gap=gap, exact=first.exact and second.exact,
    )


def _raw(scores: OptionScores) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in scores.logprobs)


def _by_prompt(rows: Sequence[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row.prompt_id, []).append(row)
    return groups
