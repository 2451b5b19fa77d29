"""Pairwise labels: which of two responses somebody preferred.

In:  JSON Lines or CSV with a declared column mapping (config.PairColumns)
Out: LabeledRow per line; ties and unusable lines are dropped with a reason
"""

from dataclasses import dataclass

from pipeline.sources.config import PairColumns, PairsSource, label_word
from pipeline.sources.conversations import conversation_fault
from pipeline.sources.lines import Line, read_lines
from pipeline.sources.rows import Imported, LabeledRow, imported, labeled_row
from pipeline.types import Messages


@dataclass(frozen=True)
class _Response:
    text: str
    before: Messages | None
    """The turns before it, where the column holds a whole conversation."""


def import_pairs(source: PairsSource, seed: int = 0) -> Imported:
    """All lines of a pairwise file. Raises DataError with file and line."""
    return imported(source, [_pair(source, line) for line in read_lines(source.path)])


def _pair(source: PairsSource, line: Line) -> LabeledRow:
    columns = source.columns
    chosen, rejected, reason = _ordered(source, line)
    messages, fault = _prompt(columns, line, chosen, rejected)
    return labeled_row(
        source,
        line.number,
        messages,
        chosen.text,
        rejected.text,
        reason=reason or fault,
        label_accuracy=_label_accuracy(columns, line),
        tags=line.tags(columns.tags),
        annotator=line.word(columns.annotator),
    )


def _ordered(source: PairsSource, line: Line) -> tuple[_Response, _Response, str]:
    """Chosen, rejected, and the reason why there is no preference."""
    columns, values = source.columns, source.values
    if columns.chosen and columns.rejected:
        return _response(line, columns.chosen), _response(line, columns.rejected), ""
    first, second = _response(line, str(columns.first)), _response(line, str(columns.second))
    key = str(columns.label)
    if key not in line.values:
        raise line.error(f"there is no '{key}'; correct the column mapping")
    label = label_word(line.values[key])
    if label in values.words("tie"):
        return first, second, "tie"
    if label in values.words("first"):
        return first, second, ""
    if label in values.words("second"):
        return second, first, ""
    known = ", ".join([*values.first, *values.second, *values.tie])
    raise line.error(
        f"the label is {line.values[key]!r}, but one of {known} is needed; declare its meaning "
        "under values"
    )


def _response(line: Line, key: str) -> _Response:
    if not isinstance(line.values.get(key), list):
        return _Response(line.text(key), None)
    messages = line.messages(key)
    if messages[-1].role != "assistant":
        raise line.error(f"the conversation in '{key}' must end with an assistant turn")
    return _Response(messages[-1].content, messages[:-1])


def _prompt(
    columns: PairColumns, line: Line, first: _Response, second: _Response
) -> tuple[Messages, str]:
    """The conversation before the responses, and the reason why it cannot be used."""
    if first.before != second.before:
        return first.before or second.before or (), "the prompts of the two responses differ"
    if first.before:
        messages = first.before
    elif columns.prompt is None or columns.prompt not in line.values:
        raise line.error(
            f"there is no '{columns.prompt or 'prompt'}', and the responses are not "
            "conversations; name the column of the prompt"
        )
    else:
        messages = line.messages(columns.prompt)
    return messages, conversation_fault(messages)


def _label_accuracy(columns: PairColumns, line: Line) -> float | None:
    value = line.values.get(columns.label_accuracy) if columns.label_accuracy else None
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or not 0.5 <= number <= 1:
        raise line.error(
            f"'{columns.label_accuracy}' is {value!r}, but a probability in [0.5, 1] is needed "
            "that the label is right"
        )
    return number
