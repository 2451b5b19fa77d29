"""Assume stage: labels that no model gives, from who wrote the two sides.

In:  comparisons of a revision with its initial response, or of a stronger with a weaker policy
Out: JudgmentRow with method `assumed`: P(first preferred) is the number in the recipe

Nothing is read, not even the texts. Open recipes train on revisions over initial responses this
way, and the delta heuristic (Geng et al. 2025, arXiv:2507.06187) on a stronger over a weaker model.

Does not: know whether the assumption holds. The number is the user's, not a measurement.
"""

from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.labeling import PreferenceConfig
from pipeline.engines.base import Engine
from pipeline.ids import row_id
from pipeline.labeling.comparisons import Compared, Pairing, TextStage
from pipeline.labeling.inputs import LabelingInputs
from pipeline.records import PromptRow
from pipeline.stages.base import Inputs, Item, Stage, dropped
from pipeline.store.stage_names import JUDGE, LABELS, nth_folder


@dataclass(frozen=True)
class AssumeStage(TextStage):
    """Labels comparisons by their origin. No model call."""

    compared: Compared
    label_accuracy: float
    """P(first preferred) of every comparison, in (0.5, 1]."""
    run_id: str
    folder: str = LABELS
    engine: None = None

    def settings(self) -> dict[str, Any]:
        """What is compared, and the label."""
        return {
            "comparisons": self.compared.mode,
            "method": "assumed",
            "label_accuracy": self.label_accuracy,
        }

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per comparison, prompt after prompt."""
        return [self._item(prompt, pairing) for prompt, pairing in self.compared.pairings(inputs)]

    def _item(self, prompt: PromptRow, pairing: Pairing) -> Item:
        identity = row_id("judgment", "assumed", *pairing.ids, self.label_accuracy)
        draft = self.judgment(prompt, pairing, row_id=identity, method="assumed", num_verdicts=0)
        if problem := pairing.problem:
            return dropped(draft, problem)
        return Item(replace(draft, prob_first=self.label_accuracy))


def assumed_stages(
    inputs: LabelingInputs, engine: Engine, compared: Compared, number: int
) -> list[Stage]:
    """Assumed labels; the engine is not asked."""
    assert inputs.config.assumed is not None
    accuracy = inputs.config.assumed.label_accuracy
    return [AssumeStage(compared, accuracy, inputs.run_id, nth_folder(JUDGE, number))]


def describe_assumed(config: PreferenceConfig) -> str:
    """What an assumed label is, for the card of a data set."""
    assert config.assumed is not None
    sides = {
        "revision_vs_initial": "each revision is taken for better than its initial response",
        "delta": "each response of the stronger policy is taken for better than the weaker one's",
    }
    return (
        f"They were assumed, not judged: {sides[config.comparisons]}, with probability "
        f"{config.assumed.label_accuracy:g}. This number is stated in the recipe and was not "
        "measured; no model and no person compared the responses, and no principle was drawn."
    )
