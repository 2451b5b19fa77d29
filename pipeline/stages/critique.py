"""Critique stage: what is wrong with a response under one drawn principle?

In:  PromptRow, and ResponseRow (round 1) or RevisionRow (later rounds)
Out: CritiqueRow

The request extends the conversation in which the response was made, so that its prefix is still
in the engine's cache. Procedure: Bai et al. 2022, arXiv:2212.08073, section 3.1; the principle is
drawn uniformly with replacement, unless weighted, for each critique.

Where the principle has a check, its reason is the critique, or `HOLDS`, and no model is called.
"""

from dataclasses import dataclass, replace
from typing import Any

from pipeline.checks import run_check
from pipeline.constitution import Constitution
from pipeline.engines.base import Engine
from pipeline.ids import derive_seed, input_hash, row_id
from pipeline.prompting.templates import PromptTemplate
from pipeline.records import CritiqueRow, PromptRow, ResponseRow, RevisionRow, Row
from pipeline.stages.base import Inputs, Item, dropped, parent_problem, sampling_values
from pipeline.store.stage_names import CRITIQUE, PROMPTS, SUPERVISED, stage_folder
from pipeline.types import Messages, SamplingParams, assistant, user

HOLDS = "The response holds this principle; there is nothing to change."
"""Critique of a response that passed the check of its principle."""


@dataclass(frozen=True, kw_only=True)
class RoundStage:
    """What the two stages of a round have in common."""

    engine: Engine
    constitution: Constitution
    template: PromptTemplate
    sampling: SamplingParams
    seed: int
    run_id: str
    round: int
    source: str
    """Folder of the responses (round 1) or of the previous round's revisions."""

    def draws(self) -> dict[str, Any]:
        """What a text is drawn from, for the settings of the stage."""
        return {
            "constitution": self.constitution.hash,
            "sampling": sampling_values(self.sampling),
            "seed": self.seed,
            "round": self.round,
        }


@dataclass(frozen=True, kw_only=True)
class CritiqueStage(RoundStage):
    """Criticizes each response of the previous round. One model call per row."""

    @property
    def folder(self) -> str:
        """`supervised/critique-<round>`."""
        return stage_folder(SUPERVISED, CRITIQUE, self.round)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts and the texts to criticize."""
        return (PROMPTS, self.source)

    def settings(self) -> dict[str, Any]:
        """Template, constitution, sampling and seed."""
        template = self.template.hash_for(*self.constitution.principles)
        return {"template": template, **self.draws()}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per response."""
        prompts = {row.row_id: row for row in inputs[PROMPTS]}
        return [self._item(prompts[row.prompt_id], row) for row in inputs[self.source]]

    def _item(self, prompt: PromptRow, target: ResponseRow | RevisionRow) -> Item:
        initial_id = chain_start(target)
        principle = self.constitution.draw(self.seed, "critique", initial_id, self.round)
        identity = row_id(
            "critique",
            target.row_id,
            principle.hash,
            self.template.hash_for(principle),
            sampling_values(self.sampling),
            self.engine.fingerprint,
            self.seed,
            self.round,
        )
        text = response_text(target)
        draft = CritiqueRow(
            row_id=identity,
            parent_ids=(prompt.row_id, target.row_id),
            run_id=self.run_id,
            input_hash=input_hash(prompt.messages, text),
            prompt_id=prompt.row_id,
            model_fingerprint=self.engine.fingerprint,
            template_hash=self.template.hash_for(principle),
            seed=derive_seed("critique", identity),
            response_id=target.row_id,
            initial_id=initial_id,
            round=self.round,
            principle_id=principle.id,
            principle_hash=principle.hash,
        )
        if problem := parent_problem(prompt, target):
            return dropped(draft, problem)
        if check := principle.check:

            async def decide() -> Row:
                result = run_check(check, text, prompt.messages)
                critique = result.reason or HOLDS
                return replace(draft, critique=critique, model_fingerprint="", template_hash="")

            return Item(draft, decide)
        request = self.template.render(
            principle=principle, response=text, conversation=[m.as_dict() for m in prompt.messages]
        )
        messages = critique_messages(prompt.messages, text, request)

        async def call() -> Row:
            reply = await self.engine.generate(
                messages, self.sampling, seed=draft.seed, request_id=identity
            )
            return replace(draft, critique=reply.text, **reply.costs())

        return Item(draft, call)


def critique_messages(conversation: Messages, response: str, request: str) -> Messages:
    """The conversation, the response, and the turn that asks for a critique."""
    return (*conversation, assistant(response), user(request))


def response_text(row: ResponseRow | RevisionRow) -> str:
    """The text of a response or of a revision."""
    return row.revision if isinstance(row, RevisionRow) else row.response


def chain_start(row: ResponseRow | RevisionRow) -> str:
    """Id of the response with which the chain began."""
    return row.initial_id if isinstance(row, RevisionRow) else row.row_id
