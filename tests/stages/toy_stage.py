"""A toy stage: the words of each response, counted. A new kind needs this file and a line in
STAGES.
"""

from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.ids import row_id
from pipeline.labeling.comparisons import Compared, TextStage
from pipeline.records import ScoreRow
from pipeline.stages.base import Inputs, Item
from pipeline.store.stage_names import PREFERENCE, STAGES, StageKind, stage_folder

LENGTH = "length"


@dataclass(frozen=True)
class LengthStage(TextStage):
    """Counts words. No model call."""

    compared: Compared
    run_id: str
    folder: str = stage_folder(PREFERENCE, LENGTH)
    engine: None = None

    def settings(self) -> dict[str, Any]:
        """Words are words."""
        return {}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per text."""
        return [
            Item(
                self.score(
                    prompt,
                    side,
                    row_id=row_id(LENGTH, side.row_id),
                    method=LENGTH,
                    score=float(len(side.text.split())),
                )
            )
            for prompt, sides in self.compared.candidates(inputs)
            for side in sides
        ]


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the kind into the table of stages."""
    patch.setitem(STAGES, LENGTH, StageKind(ScoreRow, {PREFERENCE: "word counts"}))
