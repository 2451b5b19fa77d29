"""Numbers as people read them: one spelling for the page, the Markdown and the command line."""

from pipeline.progress.totals import duration as spell_duration
from pipeline.stats import Estimate

MISSING = "–"
NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""

POLICY_LABELS = {"initial": "Initial", "sl_cai": "SL-CAI", "tuned": "Tuned"}
"""Names of policies on the page; others keep theirs."""


def policy_label(name: str) -> str:
    """The policy's name for a chart or a table."""
    return POLICY_LABELS.get(name, name)


def policy_class(name: str) -> str:
    """CSS class with the policy's color; empty for a policy without one."""
    return f"p-{name}" if name in POLICY_LABELS else ""


def percent(share: float | None) -> str:
    """0.764 is `76 %`, with a space that does not break; near 0 and 1 a digit more."""
    if share is None:
        return MISSING
    value = 100 * share
    near_end = 0 < abs(value) < 1 or 99 < abs(value) < 100
    return f"{value:.1f}{NBSP}%" if near_end else f"{value:.0f}{NBSP}%"


def percent_range(low: float | None, high: float | None) -> str:
    """`56 to 65 %`."""
    if low is None or high is None:
        return MISSING
    return f"{bare(percent(low))} to {percent(high)}"


def share_of(estimate: Estimate | None) -> str:
    """`61 %`, or a dash."""
    return MISSING if estimate is None else percent(estimate.share)


def interval_of(estimate: Estimate | None) -> str:
    """Its 95 % interval, `56 to 65 %`, or a dash."""
    return MISSING if estimate is None else percent_range(estimate.low, estimate.high)


def spelled(estimate: Estimate | None) -> str:
    """`72 % (63 to 80 %)`, a share with its 95 % interval, or a dash."""
    return f"{share_of(estimate)} ({interval_of(estimate)})" if estimate else MISSING


def percent_step(before: float | None, after: float | None) -> str:
    """`72 → 95 %`, on one line."""
    return f"{bare(percent(before))}{NBSP}→{NBSP}{percent(after)}"


def bare(text: str) -> str:
    """A percentage without its sign."""
    return text.removesuffix(f"{NBSP}%")


def points(change: float | None) -> str:
    """A change of a share in percentage points, with its sign: `+23`."""
    if change is None:
        return MISSING
    value = 100 * change
    text = f"{value:+.1f}" if 0 < abs(value) < 1 else f"{value:+.0f}"
    return text.replace("-", "−")


def change_range(change: Estimate) -> str:
    """`+12 to +35 points`."""
    return f"{points(change.low)} to {points(change.high)} points"


def number(value: float | None, digits: int = 0) -> str:
    """Thousands with a comma; None is a dash."""
    return MISSING if value is None else f"{value:,.{digits}f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds as the progress lines spell them, such as `3 min 05 s`."""
    return MISSING if seconds is None else spell_duration(seconds)


def count_of(n: int, singular: str, plural: str | None = None) -> str:
    """`1 pair`, `1,204 pairs`."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def joined(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`; empty without parts."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
