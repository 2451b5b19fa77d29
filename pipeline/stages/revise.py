"""Revise stage: the response, rewritten after its critique, under the same principle.

In:  PromptRow, the criticized ResponseRow or RevisionRow, and its CritiqueRow
Out: RevisionRow

Round k + 1 starts again from the conversation with this revision as its last turn: critiques do
not pile up in the context (Bai et al. 2022, arXiv:2212.08073, section 3.1).
"""

from dataclasses import dataclass, replace
from typing import Any

from pipeline.constitution import Constitution
from pipeline.engines.base import Engine
from pipeline.ids import derive_seed, row_id
from pipeline.prompting import PromptTemplate
from pipeline.records import CritiqueRow, PromptRow, ResponseRow, RevisionRow, Row
from pipeline.stages.base import Inputs, Item, dropped, parent_problem, sampling_values
from pipeline.stages.critique import critique_messages, response_text
from pipeline.stages.sample import conversation_hash
from pipeline.types import SamplingParams, assistant, user


@dataclass(frozen=True)
class ReviseStage:
    """Rewrites each criticized response. One model call per row."""

    engine: Engine
    constitution: Constitution
    critique_template: PromptTemplate
    template: PromptTemplate
    sampling: SamplingParams
    seed: int
    run_id: str
    round: int
    source: str
    """Folder of the texts that were criticized."""
    prompts: str = "prompts"
    row_type: type[Row] = RevisionRow

    @property
    def folder(self) -> str:
        """`supervised/revise-<round>`."""
        return f"supervised/revise-{self.round}"

    @property
    def critiques(self) -> str:
        """Folder of this round's critiques."""
        return f"supervised/critique-{self.round}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts, criticized texts, critiques."""
        return (self.prompts, self.source, self.critiques)

    def settings(self) -> dict[str, Any]:
        """Templates, constitution, sampling and seed."""
        return {
            "templates": [self.critique_template.hash, self.template.hash],
            "constitution": self.constitution.hash, "sampling": sampling_values(self.sampling),
            "seed": self.seed, "round": self.round,
        }

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per critique, joined to its parents by id."""
        prompts = {row.row_id: row for row in inputs[self.prompts]}
        targets = {row.row_id: row for row in inputs[self.source]}
        return [
            self._item(prompts[row.prompt_id], targets[row.response_id], row)
            for row in inputs[self.critiques]
        ]

    def _item(
        self, prompt: PromptRow, target: ResponseRow | RevisionRow, critique: CritiqueRow
    ) -> Item:
        principle = self.constitution.by_id(critique.principle_id)
        identity = row_id(
            "revision", critique.row_id, self.template.hash, sampling_values(self.sampling),
            self.engine.fingerprint, self.seed,
        )
        text = response_text(target)
        blank = RevisionRow(
            row_id=identity, parent_ids=(prompt.row_id, target.row_id, critique.row_id),
            run_id=self.run_id,
            input_hash=conversation_hash(prompt.messages, text, critique.critique),
            prompt_id=prompt.row_id, model_fingerprint=self.engine.fingerprint,
            template_hash=self.template.hash, seed=derive_seed("revision", identity),
            response_id=target.row_id, initial_id=critique.initial_id,
            critique_id=critique.row_id, round=self.round, principle_id=principle.id,
            principle_hash=principle.hash,
        )
        if problem := parent_problem(prompt, target, critique):
            return dropped(blank, problem)
        values = {
            "principle": principle, "response": text,
            "conversation": [m.as_dict() for m in prompt.messages],
        }
        messages = (
            *critique_messages(prompt.messages, text, self.critique_template.render(**values)),
            assistant(critique.critique), user(self.template.render(**values)),
        )

        async def call() -> Row:
            reply = await self.engine.generate(
                messages, self.sampling, seed=blank.seed, request_id=identity
            )
            return replace(
                blank, revision=reply.text, finish_reason=reply.finish_reason,
                num_prompt_tokens=reply.num_prompt_tokens,
                num_cached_tokens=reply.num_cached_tokens, num_tokens=reply.num_tokens,
            )

        return Item(blank, call)
