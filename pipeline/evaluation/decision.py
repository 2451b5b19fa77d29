"""What decides whether a policy is promoted: the rules of the gate, and what people say."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.stats import Estimate


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ReviewMetrics(_Entry):
    """What people have said about the run's pairs."""

    pairs: int
    """Pairs with a label of a person."""
    of: int
    """Pairs that people can label."""
    agreement: Estimate | None
    """Share on which people and judge agree, in the random sample; None without such a pair."""


class GateFinding(_Entry):
    """One rule of the gate."""

    rule: str
    """Its place in the recipe, such as `win_rate.min_lower`."""
    holds: bool
    """Whether the policy keeps it."""
    value: float | None
    """The figure; None when it was not measured, which holds no rule."""
    needed: float
    """What the recipe asks for."""
    text: str
    """Figure and rule in words."""


class GateResult(_Entry):
    """The decision of the gate about the last trained policy."""

    decision: Literal["promoted", "candidate"]
    """`promoted` when every rule holds."""
    policy: str
    """Name in `policies`; empty when none was evaluated."""
    findings: tuple[GateFinding, ...]
    """All rules, in the order of the recipe."""

    def describe(self) -> str:
        """A sentence for report and terminal."""
        missed = [finding.text for finding in self.findings if not finding.holds]
        if self.decision == "promoted":
            return f"Promoted: all {len(self.findings)} rules of the gate hold."
        return f"Candidate, not promoted: {'; '.join(missed) or 'no policy was evaluated'}."
