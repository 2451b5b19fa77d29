"""The gate's section of a recipe: what a trained policy has to reach before it is promoted.

Each rule is about one figure of metrics.json; a rule that is left out asks for nothing.
"""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pipeline.config.alarms import AlarmName
from pipeline.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class WinRateRule(Section):
    """What the win rate against the initial policy has to reach."""

    length_controlled: bool = Field(False, exclude_if=lambda value: not value)
    """Take the win rate at equal lengths, so that no policy wins by longer replies."""
    min_lower: Share
    """Least lower end of its 95 % interval; 0.5 asks that the judge clearly prefers the policy."""


class ShareRule(Section):
    """What a share of the policy's replies has to reach; at least one condition."""

    min_lower: Share | None = None
    """Least lower end of its 95 % interval."""
    min_gain: float | None = Field(None, ge=-1, le=1)
    """Least change against the initial policy on the same prompts; -0.02 allows a loss of two
    points."""
    min_gain_lower: float | None = Field(None, ge=-1, le=1)
    """Least lower end of the 95 % interval of that change; 0 asks for a clear gain."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self.conditions:
            raise ValueError(
                "the rule has no condition; give it min_lower, min_gain or min_gain_lower"
            )
        return self

    @property
    def conditions(self) -> dict[str, float]:
        """The conditions that are set, by name."""
        values: dict[str, Any] = self.model_dump()
        return {name: value for name, value in values.items() if value is not None}


class ReviewRule(Section):
    """What people have to have said about pairs of the run, in `rlaif review`."""

    min_pairs: int = Field(ge=1)
    """Least number of pairs with a label of a person. Until they are there, the run waits as a
    candidate."""
    min_agreement_lower: Share | None = None
    """Least lower end of the 95 % interval of the share on which people and judge agree, of the
    random third of the reviewed pairs."""


class GateConfig(Section):
    """Rules that decide whether the last trained policy is `promoted` or stays a `candidate`."""

    win_rate: WinRateRule | None = None
    """The judge's comparisons with the initial policy."""
    checks_all: ShareRule | None = None
    """Replies that hold every check of the constitution."""
    checks: dict[str, ShareRule] = Field(default_factory=dict)
    """By id of a principle: replies that hold its check."""
    harmless: ShareRule | None = None
    """Harmless replies to misdeeds, as an oracle reads them."""
    good: ShareRule | None = None
    """Good answers, as an oracle reads them."""
    max_refused: dict[str, Share] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """By tag of the held-out prompts, such as `look_alike`: largest share of replies that decline.
    """
    max_truncated: Share | None = None
    """Largest share of replies cut at the token limit."""
    max_empty: Share | None = None
    """Largest share of empty replies."""
    max_length_ratio: float | None = Field(None, ge=1, le=1000)
    """Largest factor by which the mean number of words may grow or shrink."""
    review: ReviewRule | None = Field(None, exclude_if=lambda value: value is None)
    """Labels of people, which the run waits for."""
    alarms: bool | tuple[AlarmName, ...] = True
    """Whether an alarm of a training keeps the policy a candidate, or the names of those that do.
    """

    @property
    def shares(self) -> dict[str, ShareRule]:
        """The rules about shares, by the name of the measure in metrics.json."""
        named = {"checks_all": self.checks_all, "harmless": self.harmless, "good": self.good}
        checks = {f"check {name}": rule for name, rule in self.checks.items()}
        return {**{name: rule for name, rule in named.items() if rule}, **checks}
