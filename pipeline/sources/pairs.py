"""Pairwise labels: which of two responses somebody preferred.

In:  a label file with a declared column mapping (config.PairColumns)
Out: LabeledRow per record; ties and unusable records are dropped with a reason
"""

import math
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
from pipeline.sources.evidence import plain_number, unread_reason
from pipeline.sources.lines import Line, read_lines
from pipeline.sources.rows import MISSING, Imported, LabeledRow, imported, labeled_row
from pipeline.sources.stored_text import STORED, UnusableRow

Outcome = Literal["first", "second", "tie"]
TIE, EQUAL_SCORES = "tie", "tie: the scores are equal"
REVERSED = "the scores contradict the label"
NO_LABEL = "the label is missing"


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
    if label != "tie" and (reason := _unread_reason(columns, label, line)):
        return label, reason
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


def _unread_reason(columns: PairColumns, label: Outcome, line: Line) -> str:
    if columns.chosen:
        return unread_reason(line, columns.chosen, str(columns.rejected), ordered=True)
    sides = str(columns.first), str(columns.second)
    return unread_reason(line, *(sides if label == "first" else sides[::-1]), ordered=False)


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
