"""Judge stage: which of two responses does the judge prefer under one drawn principle?

In:  PromptRow, the responses to compare
Out: JudgmentRow: P(first is preferred), or a status that says why there is none

A principle is drawn per label (Bai et al. 2022, section 4), or several, each with a row of its own.
How the judge is asked stands in `judging.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.recipe import Comparisons
from pipeline.constitution import Principle
from pipeline.engines.base import Engine
from pipeline.ids import row_id
from pipeline.labeling.comparisons import Pairing, by_prompt, pairings
from pipeline.labeling.judge import Judge
from pipeline.records import JudgmentRow, PromptRow, Row
from pipeline.stages.base import Inputs, Item, dropped
from pipeline.stages.sample import conversation_hash


@dataclass(frozen=True)
class JudgeStage:
    """Labels comparisons. Two scoring calls per row, with chain of thought two generations more."""

    judge: Judge
    comparisons: Comparisons | Literal["evaluation", "efficacy"]
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
    def engine(self) -> Engine:
        """The judge's model."""
        return self.judge.engine

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts and the folders that are compared."""
        named = (self.prompts, self.samples, self.initials, self.revisions)
        return tuple(dict.fromkeys(name for name in named if name))

    def settings(self) -> dict[str, Any]:
        """Labeling method, constitution, what is compared, and seed."""
        return {
            **self.judge.settings(),
            "constitution": self.judge.constitution.hash_with_tags,
            "comparisons": self.comparisons,
        }

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per comparison and principle, prompt after prompt."""
        groups = {
            name: by_prompt(inputs[name]) if name else {}
            for name in (self.samples, self.initials, self.revisions)
        }
        items = []
        for prompt in inputs[self.prompts]:
            found = pairings(
                self.comparisons,
                *(
                    groups[name].get(prompt.row_id, [])
                    for name in (self.samples, self.initials, self.revisions)
                ),
            )
            items += [
                self._item(prompt, pairing, principle)
                for pairing in found
                for principle in self._principles(pairing)
            ]
        return items

    def _principles(self, pairing: Pairing) -> Sequence[Principle]:
        constitution = self.judge.constitution
        if pairing.principle_id:
            return (constitution.by_id(pairing.principle_id),)
        return constitution.draw_several(
            self.judge.config.num_principles,
            self.judge.seed,
            "judge",
            pairing.first.row_id,
            pairing.second.row_id,
        )

    def _item(self, prompt: PromptRow, pairing: Pairing, principle: Principle) -> Item:
        first, second = pairing.first, pairing.second
        blank = blank_judgment(
            self.judge,
            prompt,
            principle,
            pairing.comparison,
            (first.row_id, first.text),
            (second.row_id, second.text),
            self.run_id,
        )
        for side in (first, second):
            if side.status != "ok":
                return dropped(blank, f"a response is {side.status}")
        if first.text == second.text:
            return dropped(blank, "identical responses")
        return Item(
            blank,
            lambda: self.judge.label(blank, prompt.messages, principle, first.text, second.text),
        )


def blank_judgment(
    judge: Judge,
    prompt: PromptRow,
    principle: Principle,
    comparison: str,
    first: tuple[str, str],
    second: tuple[str, str],
    run_id: str,
) -> JudgmentRow:
    """The row before it is labeled; `first` and `second` are id and text."""
    return JudgmentRow(
        row_id=row_id(
            "judgment",
            comparison,
            first[0],
            second[0],
            principle.hash,
            judge.identity(first[0], second[0]),
            judge.engine.fingerprint,
        ),
        parent_ids=(prompt.row_id, first[0], second[0]),
        run_id=run_id,
        input_hash=conversation_hash(prompt.messages, first[1], second[1]),
        prompt_id=prompt.row_id,
        model_fingerprint=judge.engine.fingerprint,
        template_hash=judge.template.hash,
        comparison=comparison,
        first_id=first[0],
        second_id=second[0],
        principle_id=principle.id,
        principle_hash=principle.hash,
    )
