"""What the columns that nothing read say about a label.

In:  a record of a label file, and the columns of its better and its worse response
Out: the reason to drop it, where these columns mark a tie or prefer the other response

Does not: decide a label. Where nothing contradicts it, the mapped columns stand.
"""

import math
import re
from typing import Any

from pipeline.sources.config import label_word
from pipeline.sources.lines import Line

MARKED_TIE = "a column that is not mapped marks a tie"
UNREAD_EVIDENCE = "columns that are not mapped contradict the label"

# Names are compared as `_snake` writes them: `chosenScore` as `chosen_score`.
_SCORE_WORD = re.compile(
    r"(?:^|[^a-z])(?:score|rating|reward|grade|(?:up)?vote|like|star|point|elo|quality)s?"
    r"(?:$|[^a-z])"
)
_RANK_WORD = re.compile(r"(?:^|[^a-z])ranks?(?:$|[^a-z])")
"""The best has rank 1."""
_VERDICT_COLUMN = re.compile(
    r"winner|prefer|better|chosen|label|choice|verdict|outcome|status|vote|judge?ment"
)
_TIE_COLUMN = re.compile(
    r"(?:^|[^a-z])(?:is_?)?(?:tie|tied|draw|both_?(?:good|bad)|no_?preference)(?:$|[^a-z])"
)
_TIE_WORD = re.compile(
    r"ties?|tied|draw|equal|same|both(?:[ _]?(?:good|bad))?|neither|no[ _]preference"
    r"|tie \(both ?bad\)"
)


def unread_reason(line: Line, better: str, worse: str, *, ordered: bool) -> str:
    """Why the columns that nothing read forbid the label; empty where they do not.

    Args:
        better, worse: names of the columns with the two responses.
        ordered: whether the file itself has a preferred column. Beside two unordered ones, a
            verdict may be that of another annotator.
    """
    values = _evidence(line)
    if any(
        (_TIE_COLUMN.search(name) and label_word(value) in ("1", "true", "yes"))
        or (ordered and _VERDICT_COLUMN.search(name) and _TIE_WORD.fullmatch(label_word(value)))
        for name, value in values.items()
    ):
        return MARKED_TIE
    better, worse = _sides(_snake(better), _snake(worse))
    for name, value in values.items():
        partner = _replaced(name, better, worse)
        own, its = plain_number(value), plain_number(values.get(partner))
        against = partner != name and (
            (_SCORE_WORD.search(name) and own < its) or (_RANK_WORD.search(name) and own > its)
        )
        against = against or (
            ordered
            and (
                (_VERDICT_COLUMN.search(name) and label_word(value) == worse)
                or (name.endswith("margin") and plain_number(value) < 0)
            )
        )
        if against:
            return UNREAD_EVIDENCE
    return ""


def _evidence(line: Line) -> dict[str, Any]:
    """What nothing read, two levels of objects included, by plain names."""
    values = {name: value for name, value in line.values.items() if name not in line.read}
    for _ in range(2):
        values |= {
            f"{name}.{key}": inner
            for name, outer in values.items()
            if isinstance(outer, dict)
            for key, inner in outer.items()
        }
    return {_snake(name): value for name, value in values.items()}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).casefold()


def _sides(better: str, worse: str) -> tuple[str, str]:
    """What tells two column names apart: `a` and `b` of `response_a` and `response_b`."""
    one, other = better.split("_"), worse.split("_")
    differ = [pair for pair in zip(one, other, strict=False) if pair[0] != pair[1]]
    return differ[0] if len(one) == len(other) and len(differ) == 1 else (better, worse)


def _replaced(name: str, word: str, by: str) -> str:
    """A name with a word in it replaced; a short word counts only on its own."""
    edge = r"(?<![a-z0-9])", r"(?![a-z0-9])"
    start, end = edge if len(word) < 3 else ("", "")
    return re.sub(f"{start}{re.escape(word)}{end}", lambda _: by, name)


def plain_number(value: Any) -> float:
    """The value as a number; NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
