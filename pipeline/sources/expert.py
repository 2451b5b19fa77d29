"""Answers that experts wrote, each paired with what a model said to the same prompt.

In:  JSON Lines or CSV with `prompt` (or `messages`) and `answer`; model responses either as
     `response` on the same line or in a second file with `prompt` (or `messages`) and `response`
Out: LabeledRow: chosen is the expert's answer, rejected the model's response

The pair says that the expert's text is preferred, which nobody has compared: give such a source a
`trust` below 1 when a good model may well have answered better.
"""

from collections import defaultdict
from pathlib import Path

from pipeline.errors import DataError
from pipeline.ids import uniform
from pipeline.sources.config import ExpertSource
from pipeline.sources.conversations import conversation_fault, parse_messages
from pipeline.sources.lines import Record, read_records, tags_field, text_field
from pipeline.sources.rows import Imported, LabeledRow, imported, labeled_row, prompt_id
from pipeline.types import Messages

NO_RESPONSE = "no model response to this prompt"


def import_expert(source: ExpertSource, *, seed: int = 0) -> Imported:
    """All answers of a file. Raises DataError with file and line.

    Args:
        seed: draws the model responses where there are more than `per_prompt`.
    """
    responses = _responses(source.responses) if source.responses else None
    rows: list[LabeledRow] = []
    notes: list[str] = []
    for number, record in read_records(source.path):
        where = f"{source.path}, line {number}"
        messages = _conversation(record, where)
        answer = text_field(record, "answer", where)
        if responses is None:
            found = [text_field(record, "response", where)]
        else:
            found = _drawn(responses.get(prompt_id(messages), []), source.per_prompt, seed, number)
        if len(found) > 1:
            notes.append("paired with several model responses")
        reason = conversation_fault(messages) or ("" if found else NO_RESPONSE)
        author = str(record.get("author") or "")
        rows += [
            labeled_row(
                source.info,
                number,
                messages,
                answer,
                text,
                reason=reason,
                annotator=author,
                tags=tags_field(record, "tags", where),
            )
            for text in found or [""]
        ]
    return imported(source.info, rows, notes)


def _responses(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for number, record in read_records(path):
        where = f"{path}, line {number}"
        found[prompt_id(_conversation(record, where))].append(text_field(record, "response", where))
    return found


def _conversation(record: Record, where: str) -> Messages:
    key = "messages" if "messages" in record else "prompt"
    if key not in record:
        raise DataError(f"{where}: there is neither 'prompt' nor 'messages'; add one")
    return parse_messages(record[key], f"{where}: '{key}'")


def _drawn(texts: list[str], limit: int, seed: int, number: int) -> list[str]:
    distinct = list(dict.fromkeys(texts))
    # Sorted by a seeded number: the draw does not depend on the order in the file.
    distinct.sort(key=lambda text: uniform("expert", seed, number, text))
    return distinct[:limit]
