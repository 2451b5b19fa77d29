"""What a labeler needs apart from a model: the recipe's settings and the loaded labeling files."""

from dataclasses import dataclass

from pipeline.config.labeling import PreferenceConfig
from pipeline.constitution import Constitution
from pipeline.labeling.calibration import Calibration
from pipeline.labeling.few_shot import ExemplarSet
from pipeline.labeling.follow_up_sets import FollowUpSet
from pipeline.labeling.known_labels import ErrorBound, KnownLabels
from pipeline.prompting.templates import PromptTemplate


@dataclass(frozen=True)
class Templates:
    """The parsed templates of a run."""

    critique: PromptTemplate
    revise: PromptTemplate
    judge: PromptTemplate
    score: PromptTemplate | None = None
    """None when the recipe's labeler does not rate single responses."""


@dataclass(frozen=True)
class LabelingFiles:
    """The files of a labeling method, apart from its template; None for each that is not used."""

    exemplars: ExemplarSet | None = None
    calibration: Calibration | None = None
    follow_ups: FollowUpSet | None = None
    """Without repeated sentences, unless the recipe keeps them."""
    known_labels: KnownLabels | None = None
    error_bound: ErrorBound | None = None
    """The threshold that was chosen on `known_labels`."""


@dataclass(frozen=True)
class LabelingInputs:
    """Everything that decides labels except the texts and the model."""

    run_id: str
    seed: int
    config: PreferenceConfig
    constitution: Constitution
    templates: Templates
    files: LabelingFiles = LabelingFiles()
