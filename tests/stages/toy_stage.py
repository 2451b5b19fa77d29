"""A toy stage: the words of each response, counted. A new kind needs this file and a line in
STAGES.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from pipeline.ids import input_hash, row_id
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.from_scores import CompareScoresStage
from pipeline.records import ScoreRow
from pipeline.stages.base import Inputs, Item
from pipeline.store.stage_names import PREFERENCE, STAGES, StageKind, stage_folder

LENGTH = "length"


@dataclass(frozen=True)
class LengthStage:
    """Counts words. No model call."""

    compared: Compared
    run_id: str
    folder: str = stage_folder(PREFERENCE, LENGTH)
    engine: None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts and texts."""
        return (self.compared.prompts, *self.compared.texts)

    def settings(self) -> dict[str, Any]:
        """Words are words."""
        return {}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per text."""
        return [
            Item(
                ScoreRow(
                    row_id=row_id(LENGTH, side.row_id),
                    parent_ids=(prompt.row_id, side.row_id),
                    run_id=self.run_id,
                    input_hash=input_hash((), side.text),
                    prompt_id=prompt.row_id,
                    method=LENGTH,
                    response_id=side.row_id,
                    score=float(len(side.text.split())),
                )
            )
            for prompt, sides in self.compared.candidates(inputs)
            for side in sides
        ]


def reading(labels: CompareScoresStage, folder: str) -> CompareScoresStage:
    """The labels, made from the counts in `folder`."""
    return replace(labels, scores=folder)


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the kind into the table of stages."""
    patch.setitem(STAGES, LENGTH, StageKind(ScoreRow, {PREFERENCE: "word counts"}))
