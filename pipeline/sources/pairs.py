"""Pairwise labels: which of two responses somebody preferred.

In:  JSON Lines or CSV with a declared column mapping (columns.PairColumns)
Out: LabeledRow per line; ties and unusable lines are dropped with a reason
"""

from dataclasses import dataclass

from pipeline.errors import DataError
from pipeline.sources.columns import LabelValues, PairColumns, label_word
from pipeline.sources.config import PairsSource
from pipeline.sources.conversations import conversation_fault, parse_messages
from pipeline.sources.lines import Record, read_records, tags_field, text_field
from pipeline.sources.rows import Imported, LabeledRow, SourceInfo, imported, labeled_row
from pipeline.types import Messages


@dataclass(frozen=True)
class _Response:
    text: str
    before: Messages | None
    """The turns before it, where the column holds a whole conversation."""


def import_pairs(source: PairsSource) -> Imported:
    """All lines of a pairwise file. Raises DataError with file and line."""
    rows = [
        _pair(source.info, source.columns, source.values, number, record)
        for number, record in read_records(source.path)
    ]
    return imported(source.info, rows)


def _pair(
    info: SourceInfo, columns: PairColumns, values: LabelValues, number: int, record: Record
) -> LabeledRow:
    where = f"{info.path}, line {number}"
    first, second, reason = _ordered(columns, values, record, where)
    messages, fault = _prompt(columns, record, first, second, where)
    return labeled_row(
        info,
        number,
        messages,
        first.text,
        second.text,
        reason=reason or fault,
        trust=_trust(columns, record, where),
        tags=tags_field(record, columns.tags, where),
        annotator=str(record.get(columns.annotator) or "") if columns.annotator else "",
    )


def _ordered(
    columns: PairColumns, values: LabelValues, record: Record, where: str
) -> tuple[_Response, _Response, str]:
    """Chosen, rejected, and the reason why there is no preference."""
    if columns.chosen and columns.rejected:
        chosen = _response(record, columns.chosen, where)
        return chosen, _response(record, columns.rejected, where), ""
    first = _response(record, str(columns.first), where)
    second = _response(record, str(columns.second), where)
    key = str(columns.label)
    if key not in record:
        raise DataError(f"{where}: there is no '{key}'; correct the column mapping")
    found = label_word(record[key])
    if found in values.words("tie"):
        return first, second, "tie"
    if found in values.words("first"):
        return first, second, ""
    if found in values.words("second"):
        return second, first, ""
    known = ", ".join([*values.first, *values.second, *values.tie])
    raise DataError(
        f"{where}: the label is {record[key]!r}, but one of {known} is needed; declare its meaning "
        "under values"
    )


def _response(record: Record, key: str, where: str) -> _Response:
    if not isinstance(record.get(key), list):
        return _Response(text_field(record, key, where), None)
    messages = parse_messages(record[key], f"{where}: '{key}'")
    if messages[-1].role != "assistant":
        raise DataError(f"{where}: the conversation in '{key}' must end with an assistant turn")
    return _Response(messages[-1].content, messages[:-1])


def _prompt(
    columns: PairColumns, record: Record, first: _Response, second: _Response, where: str
) -> tuple[Messages, str]:
    """The conversation before the responses, and the reason why it cannot be used."""
    if first.before != second.before:
        return first.before or second.before or (), "the prompts of the two responses differ"
    if first.before:
        messages = first.before
    elif columns.prompt is None or columns.prompt not in record:
        raise DataError(
            f"{where}: there is no '{columns.prompt or 'prompt'}', and the responses are no "
            "conversations; name the column of the prompt"
        )
    else:
        messages = parse_messages(record[columns.prompt], f"{where}: '{columns.prompt}'")
    return messages, conversation_fault(messages)


def _trust(columns: PairColumns, record: Record, where: str) -> float | None:
    value = record.get(columns.trust) if columns.trust else None
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not 0.5 <= number <= 1:
        raise DataError(
            f"{where}: '{columns.trust}' is {value!r}, but a probability in [0.5, 1] is needed that "
            "the label is right"
        )
    return number
