"""Sample stage: n replies of a policy to each prompt.

In:  PromptRow
Out: ResponseRow, `num_samples` per prompt
"""

from dataclasses import dataclass, replace
from typing import Any

from pipeline.engines.base import Engine
from pipeline.ids import derive_seed, input_hash, row_id
from pipeline.records import PromptRow, ResponseRow, Row
from pipeline.stages.base import Inputs, Item, dropped, parent_problem, sampling_values
from pipeline.store.stage_names import INITIALS, PROMPTS
from pipeline.types import SamplingParams, with_system


@dataclass(frozen=True)
class SampleStage:
    """Draws responses. One model call per row."""

    engine: Engine
    sampling: SamplingParams
    num_samples: int
    seed: int
    run_id: str
    folder: str = INITIALS
    prompts: str = PROMPTS
    opening: str = ""
    """What the end of the system message says, beside the prompt's own; empty for nothing."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts only."""
        return (self.prompts,)

    def settings(self) -> dict[str, Any]:
        """Sampling parameters, number of samples and seed."""
        settings = {
            "sampling": sampling_values(self.sampling),
            "n": self.num_samples,
            "seed": self.seed,
        }
        return settings | ({"opening": self.opening} if self.opening else {})

    def plan(self, inputs: Inputs) -> list[Item]:
        """`num_samples` rows per prompt, next to each other so that they share its prefix."""
        return [
            self._item(prompt, index)
            for prompt in inputs[self.prompts]
            for index in range(self.num_samples)
        ]

    def _item(self, prompt: PromptRow, index: int) -> Item:
        settings = sampling_values(self.sampling)
        messages = prompt.messages
        if self.opening:
            messages = with_system(messages, self.opening)
        identity = row_id(
            "response",
            self.folder,
            prompt.row_id,
            index,
            settings,
            self.engine.fingerprint,
            self.seed,
            *filter(None, [self.opening]),
        )
        draft = ResponseRow(
            row_id=identity,
            parent_ids=(prompt.row_id,),
            run_id=self.run_id,
            input_hash=input_hash(messages),
            prompt_id=prompt.row_id,
            model_fingerprint=self.engine.fingerprint,
            seed=derive_seed("sample", identity),
            sample_index=index,
        )
        if problem := parent_problem(prompt):
            return dropped(draft, problem)

        async def call() -> Row:
            reply = await self.engine.generate(
                messages, self.sampling, seed=draft.seed, request_id=identity
            )
            return replace(draft, response=reply.text, **reply.costs())

        return Item(draft, call)
