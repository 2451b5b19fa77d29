"""The one table of labelers: the ways to decide which of two responses is better.

Each labeler has a section in the recipe (`pipeline.config.labeling`) and a function that plans its
stages. The last of these stages writes JudgmentRows; everything after it, from the pairs to the
report, works alike for all labelers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.config.labeling import PreferenceConfig
from pipeline.engines.base import Engine
from pipeline.labeling.assumed import assumed_stages, describe_assumed
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.follow_up import describe_follow_ups, follow_up_stages
from pipeline.labeling.inputs import LabelingInputs
from pipeline.labeling.judge_stage import describe_judge, judge_stages
from pipeline.labeling.reward_model import describe_rewards, reward_stages
from pipeline.labeling.score import describe_scores, score_stages
from pipeline.stages.base import Stage

Principles = Literal["drawn", "all", "none"]


@dataclass(frozen=True)
class Labeler:
    """What the rest of the program needs to know about one way of labeling."""

    stages: Callable[[LabelingInputs, Engine, Compared, int], list[Stage]]
    """The stages that label, in order, from the inputs, an open engine, the compared folders and
    the index of the judge in its panel (from 0)."""
    describe: Callable[[PreferenceConfig], str]
    """A paragraph on how its labels are made, for the card of a data set."""
    principles: Callable[[PreferenceConfig], Principles]
    """Whether each label is made under drawn principles, all principles or none."""
    has_orders: bool = False
    """True when each comparison is asked in both orders, so that canaries apply."""
    labels_per_comparison: Callable[[PreferenceConfig], int] = lambda config: 1
    """Number of labels that one judge gives to one comparison; several are pooled."""
    resolves_conflicts: bool = False
    """True when principles in conflict overrule each other; see `conflicts.py`."""
    uses_score_template: bool = False
    """True when it needs `templates.score`."""
    uses_follow_ups: bool = False
    """True when it needs the file `follow_up.follow_ups`."""
    asks_a_model: bool = True
    """False when its labels are stated, not given by a model."""


LABELERS: dict[str, Labeler] = {
    "judge": Labeler(
        judge_stages,
        describe_judge,
        principles=lambda config: "drawn",
        has_orders=True,
        resolves_conflicts=True,
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
    "reward_model": Labeler(reward_stages, describe_rewards, principles=lambda config: "none"),
    "assumed": Labeler(
        assumed_stages, describe_assumed, principles=lambda config: "none", asks_a_model=False
    ),
}
"""Every value that `preference.labeler` can have."""


def labeler_of(config: PreferenceConfig) -> Labeler:
    """The labeler of a preference section."""
    return LABELERS[config.labeler]
