"""Pairwise labels: which of two responses somebody preferred.

In:  a label file with a declared column mapping (config.PairColumns)
Out: LabeledRow per record; ties and unusable records are dropped with a reason
"""

import math
import re
from typing import Any, Literal

from pipeline.sources.config import (
    ColumnsSource,
    LabelValues,
    PairColumns,
    WinnerColumns,
    label_word,
)
from pipeline.sources.context import context_of, whole
from pipeline.sources.conversations import conversation_fault, is_list_in_text
from pipeline.sources.lines import Line, read_lines
from pipeline.sources.rows import MISSING, Imported, LabeledRow, imported, labeled_row
from pipeline.sources.stored_text import STORED, UnusableRow

Outcome = Literal["first", "second", "tie"]
TIE, EQUAL_SCORES = "tie", "tie: the scores are equal"
REVERSED = "the scores contradict the label"
MARKED_TIE = "a column that is not mapped marks a tie"
UNREAD_EVIDENCE = "columns that are not mapped contradict the label"
NO_LABEL = "the label is missing"

_SCORE_WORD = re.compile(r"(?i)(?:^|[^a-z])(?:score|rating|reward|grade)s?(?:$|[^a-z])")
_RANK_WORD = re.compile(r"(?i)(?:^|[^a-z])ranks?(?:$|[^a-z])")
"""The best has rank 1."""
_VERDICT_COLUMN = re.compile(r"(?i)winner|prefer|better|chosen|label|choice")
_TIE_COLUMN = re.compile(r"(?i)(?:^|[^a-z])(?:is_?)?(?:tie|tied|draw|both_?bad)(?:$|[^a-z])")


def import_pairs(source: ColumnsSource, seed: int = 0) -> Imported:
    """All records of a pairwise file. Raises DataError with file and line."""
    lines = list(read_lines(source.path))
    return imported(source, [_pair(source, line) for line in lines], lines=lines)


def _pair(source: ColumnsSource, line: Line) -> LabeledRow:
    columns = source.columns
    # Read before anything can drop the row, so that what is wrong with the file is said.
    accuracy = label_accuracy(columns.label_accuracy, line)
    tags, annotator = line.tags(columns.tags), line.word(columns.annotator)
    try:
        line.check_context()
        outcome, reason = _outcome(source, line)
        keys = (columns.chosen or columns.first, columns.rejected or columns.second)
        names = [str(key) for key in (keys if outcome != "second" else reversed(keys))]
        _check_lists(line, (*columns.prompts, *names))
        context = context_of(columns, line)
        chosen, rejected = (whole(line, name, context) for name in names)
    except UnusableRow as fault:
        return labeled_row(source, line.number, (), "", "", reason=str(fault), annotator=annotator)
    if chosen[:-1] != rejected[:-1]:
        reason = reason or "the prompts of the two responses differ"
    return labeled_row(
        source,
        line.number,
        chosen[:-1],
        chosen[-1].content,
        rejected[-1].content,
        reason=reason or conversation_fault(chosen[:-1]),
        label_accuracy=accuracy,
        tags=tags,
        annotator=annotator,
    )


def _check_lists(line: Line, names: tuple[str, ...]) -> None:
    """Lists of texts in cells are turns where all of the prompt and the responses are lists."""
    lists = {is_list_in_text(line.values[name]) for name in names if name in line.values}
    if len(lists) > 1:
        raise UnusableRow(STORED)


def _outcome(source: ColumnsSource, line: Line) -> tuple[Outcome, str]:
    """Which response is better, and the reason why there is no preference."""
    columns = source.columns
    one, other = (score(name, line) for name in columns.scores)
    by_score: Outcome | None = None
    if one is not None and other is not None:
        by_score = "tie" if one == other else "first" if one > other else "second"
    if columns.chosen:
        label: Outcome = "first"
    elif isinstance(columns.label, WinnerColumns):
        label = _marked(columns.label, line)
    elif columns.label:
        label = _declared(source.values, columns.label, line)
    elif by_score is None:
        raise UnusableRow("a score is missing")
    else:
        label = by_score
    if label != "tie" and _marks_a_tie(line):
        return label, MARKED_TIE
    if label != "tie" and _contradicts(columns, label, line):
        return label, UNREAD_EVIDENCE
    if label == "tie":
        return label, TIE if columns.label else EQUAL_SCORES
    if by_score == "tie":
        return label, EQUAL_SCORES
    return label, REVERSED if by_score not in (None, label) else ""


def _declared(values: LabelValues, key: str, line: Line) -> Outcome:
    """What the label says by the declared values. Raises UnusableRow when it is missing."""
    value = line.value(key)
    if value is not None and value == value and not isinstance(value, list | dict):
        word = label_word(value)
        for meaning in ("tie", "first", "second"):
            if word in values.words(meaning):
                return meaning
        if not word:
            raise UnusableRow("the label is empty")
    elif not isinstance(value, list | dict):
        raise UnusableRow(NO_LABEL)
    known = ", ".join(map(str, [*values.first, *values.second, *values.tie]))
    raise line.error(
        f"the label is {value!r:.80}, but one of {known} is needed; declare its meaning under "
        "values"
    )


def _marked(columns: WinnerColumns, line: Line) -> Outcome:
    """The outcome whose column is marked. Raises UnusableRow unless it is one."""
    marked = {meaning for key, meaning in columns.meanings.items() if _is_marked(key, line)}
    if len(marked) != 1:
        raise UnusableRow("several outcomes are marked" if marked else "no outcome is marked")
    return marked.pop()  # type: ignore[return-value]  # one of Outcome


def _marks_a_tie(line: Line) -> bool:
    """Whether a column that nothing read, such as `winner_tie`, says that neither is better."""
    return any(
        _TIE_COLUMN.search(name) and label_word(value) in ("1", "true", "yes")
        for name, value in line.values.items()
        if name not in line.read
    )


def _contradicts(columns: PairColumns, label: Outcome, line: Line) -> bool:
    """Whether a column that nothing read, such as `score_chosen`, `margin` or `winner`, says that
    the other response is better.
    """
    ordered = bool(columns.chosen)
    one, other = (columns.chosen, columns.rejected) if ordered else (columns.first, columns.second)
    better, worse = _sides(str(one), str(other))
    if label == "second":
        better, worse = worse, better
    values = _evidence(line)
    for name, value in values.items():
        partner = _replaced(name, better, worse)
        own, its = plain_number(value), plain_number(values.get(partner))
        against = partner != name and (
            (_SCORE_WORD.search(name) and own < its) or (_RANK_WORD.search(name) and own > its)
        )
        # Beside first and second, a verdict may be that of another annotator.
        against = against or (
            ordered
            and (
                (_VERDICT_COLUMN.search(name) and label_word(value) == worse.casefold())
                or (name.casefold().endswith("margin") and plain_number(value) < 0)
            )
        )
        if against:
            return True
    return False


def _evidence(line: Line) -> dict[str, Any]:
    """What nothing read, inside objects too, by names without the white space around them."""
    unread = {name: value for name, value in line.values.items() if name not in line.read}
    inner = {
        f"{name}.{key}": value
        for name, values in unread.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }
    return {name.strip(): value for name, value in (unread | inner).items()}


def _sides(better: str, worse: str) -> tuple[str, str]:
    """What tells two column names apart: `a` and `b` of `response_a` and `response_b`."""
    one, other = better.split("_"), worse.split("_")
    differ = [pair for pair in zip(one, other, strict=False) if pair[0] != pair[1]]
    return differ[0] if len(one) == len(other) and len(differ) == 1 else (better, worse)


def _replaced(name: str, word: str, by: str) -> str:
    """A name with a word in it replaced; a short word counts only on its own."""
    edge = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
    start, end = edge if len(word) < 3 else ("", "")
    return re.sub(f"{start}{re.escape(word)}{end}", lambda _: by, name)


def plain_number(value: Any) -> float:
    """The value as a number; NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _is_marked(key: str, line: Line) -> bool:
    value = line.value(key)
    if value is None or value == "" or value != value:
        raise UnusableRow(NO_LABEL)
    word = label_word(value)
    if word not in ("1", "true", "0", "false"):
        raise line.error(f"'{key}' is {value!r:.80}, but 0 or 1, or false or true, is needed")
    return word in ("1", "true")


def score(key: str | None, line: Line) -> float | None:
    """A number of a column; None when it is missing. Raises DataError when it is something else."""
    return None if key is None else number_of(line.value(key), key, line)


def number_of(value: Any, key: str, line: Line) -> float | None:
    """A score; None when it is missing. Raises DataError when it is no number."""
    missing = isinstance(value, str) and value.strip().casefold() in ("", *MISSING)
    if value is None or missing or value != value:
        return None
    number = math.nan if isinstance(value, bool) else plain_number(value)
    if not math.isfinite(number):
        raise line.error(f"'{key}' is {value!r:.80}, but a score, a number, is needed")
    return number


def label_accuracy(key: str | None, line: Line) -> float | None:
    """The probability that this row's label is right; None when the row does not say."""
    value = line.optional(key)
    if value is None:
        return None
    number = plain_number(value)
    if isinstance(value, bool) or not 0.5 <= number <= 1:
        raise line.error(
            f"'{key}' is {value!r:.80}, but a probability in [0.5, 1] is needed that the label is "
            "right"
        )
    return number
