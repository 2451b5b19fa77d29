"""Findings of an audit: one per check, with what was measured and what was needed.

A finding is `passed`, `failed`, or `skipped` when there is too little data: a check that could not
look must not read as one that saw nothing.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

FindingStatus = Literal["passed", "failed", "skipped"]
Bounds = tuple[float | None, float | None]
"""Least and greatest allowed value; None for no limit."""


@dataclass(frozen=True)
class AuditFinding:
    """One check."""

    name: str
    status: FindingStatus
    value: float | None
    """Measured; None when skipped."""
    low: float | None
    """Least allowed value, if any."""
    high: float | None
    """Greatest allowed value, if any."""
    n: int
    """Number of texts, prompts or pairs behind the value."""
    detail: str = ""
    """What the value measures, or why the check was skipped."""
    examples: tuple[str, ...] = ()
    """The worst cases, most frequent first."""
    interval: tuple[float, float] | None = None
    """95 % interval of the value, where it has one."""
    scope: str = ""
    """The part of the data that was checked, such as a principle; empty for all of it."""

    @property
    def title(self) -> str:
        """Name with its scope."""
        return f"{self.name} of {self.scope}" if self.scope else self.name

    @property
    def needed(self) -> str:
        """The bounds in words."""
        bounds = (("min", self.low), ("max", self.high))
        return " ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)

    @property
    def measured(self) -> str:
        """The value with its interval."""
        if self.value is None:
            return "nothing"
        interval = f" ({self.interval[0]:.3f} to {self.interval[1]:.3f})" if self.interval else ""
        return f"{self.value:.3f}{interval}"

    def describe(self) -> str:
        """One line for people."""
        if self.value is None:
            return f"skipped  {self.title}: {self.detail}"
        examples = f" ({'; '.join(self.examples)})" if self.examples else ""
        return f"{self.status:8} {self.title}: {self.measured}, {self.needed}, n {self.n}{examples}"


def judged(
    name: str,
    value: float,
    bounds: Bounds,
    n: int,
    *,
    interval: tuple[float, float] | None = None,
    excused: bool = False,
    **texts: Any,
) -> AuditFinding:
    """A finding that fails when the value, or its whole interval, lies outside the bounds.

    Args:
        interval: 95 % interval; with one, no run is stopped by chance.
        excused: passes whatever the value is.
        texts: `detail`, `examples` and `scope` of the finding.
    """
    low, high = bounds
    least, greatest = interval or (value, value)
    outside = (low is not None and greatest < low) or (high is not None and least > high)
    status: FindingStatus = "failed" if outside and not excused else "passed"
    return AuditFinding(name, status, value, low, high, n, interval=interval, **texts)


def skipped(name: str, bounds: Bounds, n: int, why: str, *, scope: str = "") -> AuditFinding:
    """A check that could not be made."""
    return AuditFinding(name, "skipped", None, bounds[0], bounds[1], n, why, scope=scope)


@dataclass(frozen=True)
class AuditReport:
    """All findings about one data set."""

    subject: str
    """Name of the texts, such as `chosen`."""
    num_texts: int
    num_prompts: int
    findings: tuple[AuditFinding, ...]

    @property
    def failed(self) -> tuple[AuditFinding, ...]:
        """Findings outside their bounds."""
        return tuple(f for f in self.findings if f.status == "failed")

    @property
    def passed(self) -> bool:
        """True when nothing failed; skipped checks do not fail."""
        return not self.failed

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and the report."""
        return {**asdict(self), "passed": self.passed}

    def describe(self) -> str:
        """A line per finding."""
        head = f"{self.subject}: {self.num_texts} texts, {self.num_prompts} prompts"
        return "\n".join([head, *(f"  {finding.describe()}" for finding in self.findings)])
