"""What an audit found: one finding per check, and the gate that stops a run.

A finding is `passed`, `failed`, or `skipped` when there is too little data to say anything: a check
that could not look must not read as one that saw nothing.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.errors import AuditError
from pipeline.stats import Estimate

FindingStatus = Literal["passed", "failed", "skipped"]
Bounds = tuple[float | None, float | None]


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
    """Texts, prompts or pairs that were looked at."""
    detail: str = ""
    """What the value is, or why the check was skipped."""
    examples: tuple[str, ...] = ()
    """The worst cases, most frequent first."""
    interval: tuple[float, float] | None = None
    """95 % interval of the value, where it has one."""
    scope: str = ""
    """The part of the data that was looked at, such as a principle; empty for all of it."""

    @property
    def title(self) -> str:
        """Name with its scope."""
        return f"{self.name} of {self.scope}" if self.scope else self.name

    @property
    def needed(self) -> str:
        """The bounds in words."""
        return " ".join(
            f"{word} {bound:g}"
            for word, bound in (("min", self.low), ("max", self.high))
            if bound is not None
        )

    @property
    def found(self) -> str:
        """The value with its interval."""
        if self.value is None:
            return "nothing"
        shown = f" ({self.interval[0]:.3f} to {self.interval[1]:.3f})" if self.interval else ""
        return f"{self.value:.3f}{shown}"

    def text(self) -> str:
        """One line for people."""
        if self.value is None:
            return f"skipped  {self.title}: {self.detail}"
        shown = f" ({'; '.join(self.examples)})" if self.examples else ""
        return f"{self.status:8} {self.title}: {self.found}, {self.needed}, n {self.n}{shown}"


def judged(
    name: str,
    value: float,
    bounds: Bounds,
    n: int,
    *,
    detail: str = "",
    examples: tuple[str, ...] = (),
    excused: bool = False,
) -> AuditFinding:
    """A finding: failed when the value lies outside the bounds, unless it is excused."""
    low, high = bounds
    outside = (low is not None and value < low) or (high is not None and value > high)
    status: FindingStatus = "failed" if outside and not excused else "passed"
    return AuditFinding(name, status, value, low, high, n, detail, examples)


def judged_by_interval(
    name: str, estimate: Estimate, bounds: Bounds, *, scope: str = "", detail: str = ""
) -> AuditFinding:
    """A finding that fails only when the whole interval lies outside: chance stops no run."""
    low, high = bounds
    outside = (low is not None and estimate.high < low) or (
        high is not None and estimate.low > high
    )
    return AuditFinding(
        name,
        "failed" if outside else "passed",
        estimate.share,
        low,
        high,
        estimate.n,
        detail,
        interval=(estimate.low, estimate.high),
        scope=scope,
    )


def skipped(name: str, bounds: Bounds, n: int, why: str, *, scope: str = "") -> AuditFinding:
    """A check that could not be made."""
    return AuditFinding(name, "skipped", None, bounds[0], bounds[1], n, why, scope=scope)


@dataclass(frozen=True)
class AuditReport:
    """All findings about one data set."""

    subject: str
    """What was audited, such as `chosen`."""
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

    def finding(self, name: str) -> AuditFinding:
        """The finding of that name. Raises KeyError when that check is off."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and the report."""
        return {**asdict(self), "passed": self.passed}

    def text(self) -> str:
        """A line per finding."""
        head = f"{self.subject}: {self.num_texts} texts, {self.num_prompts} prompts"
        return "\n".join([head, *(f"  {finding.text()}" for finding in self.findings)])

    def require(self) -> None:
        """Let a run go on only when nothing failed.

        Raises:
            AuditError: at least one check failed; the data is kept, exit code 3.
        """
        if self.failed:
            listed = "; ".join(finding.text() for finding in self.failed)
            raise AuditError(
                f"{len(self.failed)} of {len(self.findings)} checks of {self.subject} failed: "
                f"{listed}. Look at the texts, correct their cause or the thresholds of the audit"
            )
