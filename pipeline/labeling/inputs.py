"""What a labeler is given besides a model: the recipe's settings, and the files that it names,
loaded.
"""

from dataclasses import dataclass

from pipeline.config.labeling import PreferenceConfig
from pipeline.constitution import Constitution
from pipeline.labeling.calibration import Calibration
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.few_shot import ExemplarSet
from pipeline.labeling.follow_up_sets import FollowUpSet
from pipeline.labeling.from_scores import CompareScoresStage
from pipeline.prompting.templates import PromptTemplate
from pipeline.store.stage_names import JUDGE, SCORE, nth_folder


@dataclass(frozen=True)
class Templates:
    """The parsed templates of a run."""

    critique: PromptTemplate
    revise: PromptTemplate
    judge: PromptTemplate
    score: PromptTemplate | None = None
    """None where no labeler rates single responses."""


@dataclass(frozen=True)
class LabelingFiles:
    """What a labeling method reads besides its template; None for what the recipe does not name."""

    exemplars: ExemplarSet | None = None
    calibration: Calibration | None = None
    follow_ups: FollowUpSet | None = None
    """As they are asked: without repeats, unless the recipe keeps them."""


@dataclass(frozen=True)
class LabelingInputs:
    """Everything that decides labels except the texts and the model."""

    run_id: str
    seed: int
    config: PreferenceConfig
    constitution: Constitution
    templates: Templates
    files: LabelingFiles = LabelingFiles()

    def label_folder(self, number: int) -> str:
        """Folder of the labels of judge `number` (from 0) of the panel."""
        return nth_folder(JUDGE, number)

    def score_folder(self, number: int) -> str:
        """Folder of the scores behind them."""
        return nth_folder(SCORE, number)

    def labels_from_scores(
        self, compared: Compared, scale: float, method: str, number: int
    ) -> CompareScoresStage:
        """The stage that turns the scores of judge `number` into labels."""
        return CompareScoresStage(
            compared=compared,
            scale=scale,
            method=method,
            run_id=self.run_id,
            scores=self.score_folder(number),
            folder=self.label_folder(number),
        )
