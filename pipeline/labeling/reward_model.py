"""Reward stage: the score that a reward model gives to each response.

In:  PromptRow, the responses to score
Out: ScoreRow: the logit of a classification head at the end of conversation and response

A reward model is trained so that sigmoid(s_first - s_second) is the probability that the first
response is preferred (Bradley and Terry 1952; Ouyang et al. 2022, arXiv:2203.02155), which
`from_scores.py` computes. One pass a response, nothing is generated, and no principle is shown:
what the model prefers was decided when it was trained. A response appears unchanged, as its own
turn.

Does not: make scores of different prompts or different models comparable.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.labeling import PreferenceConfig
from pipeline.data.markdown import code_span
from pipeline.engines.base import Engine
from pipeline.errors import VerdictError
from pipeline.ids import row_id
from pipeline.labeling.comparisons import Candidate, Compared, TextStage
from pipeline.labeling.from_scores import labels_from_scores
from pipeline.labeling.inputs import LabelingInputs
from pipeline.records import PromptRow, Row, ScoreRow
from pipeline.stages.base import Inputs, Item, Stage, dropped, read_reply
from pipeline.store.stage_names import SCORE, nth_folder
from pipeline.types import assistant


@dataclass(frozen=True)
class RewardStage(TextStage):
    """Scores responses. One call per row."""

    engine: Engine
    compared: Compared
    run_id: str
    folder: str = nth_folder(SCORE, 0)

    def settings(self) -> dict[str, Any]:
        """The kind of score; the model's fingerprint is all that decides it."""
        return {"method": "reward_model"}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per response, prompt after prompt."""
        return [
            self._item(prompt, side)
            for prompt, sides in self.compared.candidates(inputs)
            for side in sides
        ]

    def _item(self, prompt: PromptRow, side: Candidate) -> Item:
        draft = self.score(
            prompt,
            side,
            row_id=row_id("score", "reward_model", side.row_id, self.engine.fingerprint),
            model_fingerprint=self.engine.fingerprint,
            method="reward_model",
        )
        if side.status != "ok":
            return dropped(draft, f"the response is {side.status}")

        async def make() -> Row:
            score, num_tokens = await self.engine.reward(
                (*prompt.messages, assistant(side.text)), request_id=draft.row_id
            )
            row = replace(draft, details=(score,), num_prompt_tokens=num_tokens)
            return read_reply(row, lambda row: read_reward(row, score))

        return Item(draft, make)


def read_reward(row: ScoreRow, score: float) -> ScoreRow:
    """The row with its score. Raises VerdictError when the score is not a finite number."""
    if not math.isfinite(score):
        raise VerdictError(f"the reward model gave {score}, which is not a score")
    return replace(row, score=score)


def reward_stages(
    inputs: LabelingInputs, engine: Engine, compared: Compared, number: int
) -> list[Stage]:
    """The rewards, and the labels that they give."""
    config = inputs.config.reward_model
    assert config is not None
    scores = RewardStage(engine, compared, inputs.run_id, nth_folder(SCORE, number))
    return [
        scores,
        labels_from_scores(inputs, scores, compared, config.scale, "reward_model", number),
    ]


def describe_rewards(config: PreferenceConfig) -> str:
    """How rewards make labels, for the card of a data set."""
    section = config.reward_model
    assert section is not None
    name = section.engine.script if section.engine.type == "scripted" else section.engine.model
    return (
        f"Each response is scored by the reward model {code_span(name)}, a sequence classifier "
        "with one label that reads the conversation and the response. The soft label is "
        f"sigmoid((score of first - score of second) / {section.scale:g}) (Bradley and Terry "
        "1952); there are no orders, and no principle was shown: what is preferred was decided "
        "when the reward model was trained. report.md says how much the scores follow length."
    )
