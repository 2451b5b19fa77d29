"""What a check says about one response."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether a response holds a principle.

    Raises:
        ValueError: the distance is not finite, or not 0 for one that holds and above 0 otherwise;
            or a failure has no reason.
    """

    passes: bool
    reason: str = ""
    """Why not, as a sentence that can be the critique; empty for one that holds."""
    distance: float = 0.0
    """How far the response is off, above 0 and in the unit of the check; 0 for one that holds."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.distance) or (self.distance > 0) == self.passes:
            raise ValueError(
                f"passes={self.passes} has distance {self.distance}, but 0 means a response that "
                "holds and a finite number above 0 one that does not"
            )
        if not self.passes and not self.reason.strip():
            raise ValueError("a response that does not hold has no reason; give one in words")


HOLDS = CheckResult(True)


def fails(reason: str, distance: float = 1.0) -> CheckResult:
    """A response that does not hold, for this reason."""
    return CheckResult(False, reason, distance)
