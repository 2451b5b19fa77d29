"""How long a server asks to wait before the next request: pure functions of its headers.

In:  the headers of an answer, and the time
Out: seconds, or None where it says nothing that can be used

Read are `retry-after-ms`, `Retry-After` (seconds or an HTTP date, RFC 9110 section 10.2.3), and the
`x-ratelimit-reset` family, which says when a limit is full again and so bounds the wait.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MOST_FOR_RESET_S = 60.0
"""A reset tells when the whole limit is back, often hours away; the next request fits long before
that."""
_RESETS = (
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-reset",
    "ratelimit-reset",
)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def asked_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the server asks to wait; None without a usable word of it.

    Args:
        headers: of the answer, by lower-case name.
        now: seconds since 1970, for dates.
    """
    milliseconds = _seconds(headers.get("retry-after-ms", ""), now)
    if milliseconds is not None:
        return milliseconds / 1000
    # A server's date is a time of its own clock, which may not be ours.
    server_now = _date(headers.get("date", "")) or now
    asked = _seconds(headers.get("retry-after", ""), server_now)
    if asked is not None:
        return asked
    resets = [_seconds(headers.get(name, ""), server_now) for name in _RESETS]
    known = [reset for reset in resets if reset is not None]
    return min(max(known), MOST_FOR_RESET_S) if known else None


def _seconds(value: str, now: float) -> float | None:
    """Seconds from now: `20`, `1m12.5s`, `20ms`, a date, or a time in (milli)seconds since 1970."""
    value = value.strip()
    if _PART.sub("", value) == "" != value:
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(value))
    else:
        try:
            seconds = float(value)
        except ValueError:
            date = _date(value)
            seconds = math.nan if date is None else date - now
        else:
            if seconds >= 1e12:
                seconds /= 1000
            if seconds >= 1e9:
                seconds -= now
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _date(value: str) -> float | None:
    """Seconds since 1970 of an HTTP date or an ISO date."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(value)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
