"""Revise stage: the response, rewritten after its critique, under the same principle.

In:  PromptRow, a ResponseRow or RevisionRow, and its CritiqueRow unless the recipe leaves it out
Out: RevisionRow; `dropped` when the text is not a revision, see `revision_checks.py`

Where the principle has a check, a text that holds it stays as it is, without a call. A revision is
dropped when it still fails the check of its principle (`unmet`), or fails one of the constitution
that the text before it held (`broken`): neither must be learned.

Round k + 1 starts from the conversation with this revision as its last turn, so that critiques do
not pile up in the context (Bai et al. 2022, arXiv:2212.08073, section 3.1).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipeline.checks import run_check
from pipeline.config.recipe import ReviseConfig
from pipeline.constitution import Principle
from pipeline.ids import derive_seed, input_hash, row_id
from pipeline.prompting.templates import PromptTemplate
from pipeline.records import CritiqueRow, PromptRow, ResponseRow, RevisionRow, Row
from pipeline.stages.base import Inputs, Item, dropped, parent_problem, sampling_values
from pipeline.stages.critique import RoundStage, chain_start, critique_messages, response_text
from pipeline.stages.revision_checks import finds_nothing, revision_faults
from pipeline.store.stage_names import CRITIQUE, PROMPTS, REVISE, SUPERVISED, stage_folder
from pipeline.types import Messages, assistant, user

MISSES_CHECK = "a check fails"
"""Beginning of the reason of a revision that was left out because of a check."""


@dataclass(frozen=True, kw_only=True)
class ReviseStage(RoundStage):
    """Rewrites each criticized response. One model call per row."""

    critique_template: PromptTemplate
    revise: ReviseConfig = ReviseConfig()
    """With or without critique, what is skipped and what is rejected."""

    @property
    def folder(self) -> str:
        """`supervised/revise-<round>`."""
        return stage_folder(SUPERVISED, REVISE, self.round)

    @property
    def critiques(self) -> str:
        """Folder of this round's critiques."""
        return stage_folder(SUPERVISED, CRITIQUE, self.round)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts, texts to revise, and critiques where there are any."""
        with_critique = (self.critiques,) if self.revise.with_critique else ()
        return (PROMPTS, self.source, *with_critique)

    def settings(self) -> dict[str, Any]:
        """Templates, constitution, sampling and seed."""
        return {
            "templates": [
                template.hash_for(*self.constitution.principles)
                for template in (self.critique_template, self.template)
            ],
            **self.draws(),
            "rules": self._rules,
        }

    @cached_property
    def _rules(self) -> dict[str, Any]:
        return self.revise.model_dump(
            mode="json", include={"with_critique", "skip_phrases", "reject"}
        )

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per text, joined to its parents by id."""
        prompts = {row.row_id: row for row in inputs[PROMPTS]}
        if not self.revise.with_critique:
            return [self._item(prompts[row.prompt_id], row, None) for row in inputs[self.source]]
        targets = {row.row_id: row for row in inputs[self.source]}
        return [
            self._item(prompts[row.prompt_id], targets[row.response_id], row)
            for row in inputs[self.critiques]
        ]

    def _item(
        self, prompt: PromptRow, target: ResponseRow | RevisionRow, critique: CritiqueRow | None
    ) -> Item:
        initial_id, text = chain_start(target), response_text(target)
        principle = (
            self.constitution.by_id(critique.principle_id)
            if critique
            else self.constitution.draw(self.seed, "critique", initial_id, self.round)
        )
        parents = (target, critique) if critique else (target,)
        identity = row_id(
            "revision",
            parents[-1].row_id,
            self.template.hash_for(principle),
            sampling_values(self.sampling),
            self.engine.fingerprint,
            self.seed,
            self.round,
            principle.hash,
            self._rules,
            *([self.constitution.checks_hash] if self.constitution.checked else []),
        )
        critique_text = critique.critique if critique else ""
        draft = RevisionRow(
            row_id=identity,
            parent_ids=(prompt.row_id, *(row.row_id for row in parents)),
            run_id=self.run_id,
            input_hash=input_hash(prompt.messages, text, critique_text),
            prompt_id=prompt.row_id,
            model_fingerprint=self.engine.fingerprint,
            template_hash=self.template.hash_for(principle),
            seed=derive_seed("revision", identity),
            response_id=target.row_id,
            initial_id=initial_id,
            critique_id=critique.row_id if critique else "",
            round=self.round,
            principle_id=principle.id,
            principle_hash=principle.hash,
        )
        if problem := parent_problem(prompt, *parents):
            return dropped(draft, problem)
        ends: dict[str, Any] = {"finish_reason": target.finish_reason, "thoughts": target.thoughts}
        skipped = replace(draft, revision=text, skipped=True, **ends)
        faultless = finds_nothing(critique_text, self.revise.skip_phrases)
        if critique and not principle.check and faultless:
            return Item(skipped)
        values = {
            "principle": principle,
            "response": text,
            "conversation": [m.as_dict() for m in prompt.messages],
        }
        revision_request = user(self.template.render(**values))
        messages = (*prompt.messages, assistant(text), revision_request)
        if critique:
            request = self.critique_template.render(**values)
            messages = (
                *critique_messages(prompt.messages, text, request),
                assistant(critique_text),
                revision_request,
            )

        async def call() -> Row:
            held = self._held(text, prompt.messages)
            if principle.id in held:
                return skipped
            reply = await self.engine.generate(
                messages, self.sampling, seed=draft.seed, request_id=identity
            )
            faults = revision_faults(
                reply.text,
                text,
                critique=critique_text,
                requests=(principle.critique_request, principle.revision_request),
            )
            rejected = [fault for fault in faults if fault in self.revise.reject]
            reason = f"not a revision: {rejected[0]}" if rejected else ""
            misses = self._misses(principle, held, self._held(reply.text, prompt.messages))
            if misses and not reason:
                reason = f"{MISSES_CHECK}: {', '.join(misses.values())}"
            return replace(
                draft,
                revision=reply.text,
                faults=(*faults, *misses),
                status="dropped" if reason else "ok",
                reason=reason,
                **reply.costs(),
            )

        return Item(draft, call)

    def _held(self, text: str, conversation: Messages) -> set[str]:
        """Ids of the principles whose check the text passes. Raises CheckError."""
        return {
            principle.id
            for principle in self.constitution.checked
            if principle.check and run_check(principle.check, text, conversation).passes
        }

    def _misses(self, principle: Principle, before: set[str], after: set[str]) -> dict[str, str]:
        """The faults `unmet` and `broken` of a revision, each in words."""
        unmet = {"unmet": f"still {principle.id}"} if principle.check else {}
        broken = sorted(before - after)
        return {
            **(unmet if principle.id not in after else {}),
            **({"broken": f"newly {', '.join(broken)}"} if broken else {}),
        }
