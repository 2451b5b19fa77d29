"""The one table of labelers: who says which of two responses is better.

A labeler has a section of its own in the recipe (`pipeline.config.labeling`) and a function that
plans its stages. Whatever is planned ends with a stage that writes JudgmentRows; everything behind
it, from the pairs to the report, is the same for all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.config.labeling import PreferenceConfig
from pipeline.engines.base import Engine
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.follow_up import describe_follow_ups, follow_up_stages
from pipeline.labeling.inputs import LabelingInputs
from pipeline.labeling.judge_stage import describe_judge, judge_stages
from pipeline.labeling.score import describe_scores, score_stages
from pipeline.stages.base import Stage

Principles = Literal["drawn", "all", "none"]


@dataclass(frozen=True)
class Labeler:
    """What the rest of the program needs to know of one way of labeling."""

    stages: Callable[[LabelingInputs, Engine, Compared, int], list[Stage]]
    """From inputs, an open model, the compared folders and the number of the judge in its panel
    (from 0) to the stages that label, in order."""
    describe: Callable[[PreferenceConfig], str]
    """How its labels are made, for the card of a data set."""
    principles: Callable[[PreferenceConfig], Principles]
    """Whether a label is made under drawn principles, under all of them, or under none."""
    has_orders: bool = False
    """True when a comparison is asked in both orders, so that canaries and exemplars apply."""
    labels_per_comparison: Callable[[PreferenceConfig], int] = lambda config: 1
    """Labels that one judge gives to one comparison; several are pooled."""
    uses_score_template: bool = False
    """True when it needs `templates.score`."""
    uses_follow_ups: bool = False
    """True when it needs the file `follow_up.follow_ups`."""


LABELERS: dict[str, Labeler] = {
    "judge": Labeler(
        judge_stages,
        describe_judge,
        principles=lambda config: "drawn",
        has_orders=True,
        labels_per_comparison=lambda config: config.judge.num_principles,
    ),
    "score": Labeler(
        score_stages,
        describe_scores,
        principles=lambda config: config.score.principles,
        uses_score_template=True,
    ),
    "follow_up": Labeler(
        follow_up_stages,
        describe_follow_ups,
        principles=lambda config: "none",
        uses_follow_ups=True,
    ),
}
"""Every value that `preference.labeler` can have."""


def labeler_of(config: PreferenceConfig) -> Labeler:
    """The table entry of a preference section."""
    return LABELERS[config.labeler]
