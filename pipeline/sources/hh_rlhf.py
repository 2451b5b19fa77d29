"""hh-rlhf transcripts (Bai et al. 2022, arXiv:2204.05862; data under the MIT license).

In:  JSON Lines, also with gzip, with `chosen` and `rejected`: whole transcripts that should differ
     in the last assistant turn only
Out: LabeledRow per line

Both transcripts are parsed on their own, and the turns before the last are compared: in the test
file of harmless-base 5 of 2,312 rows have different ones, and cutting `rejected` at the length of
the prompt of `chosen`, as the reference loader of DPO does, would give fragments. Texts are stripped
at both ends; chat templates add their own space.

Does not: repair anything. A row that cannot be used is dropped with its reason.
"""

from pipeline.errors import DataError
from pipeline.sources.config import TranscriptsSource
from pipeline.sources.conversations import conversation_fault, has_inline_header, parse_transcript
from pipeline.sources.lines import Record, read_records
from pipeline.sources.rows import Imported, LabeledRow, imported, labeled_row
from pipeline.types import Messages

INLINE_IN_RESPONSE = "turn header inside a response"
INLINE_IN_PROMPT = "turn header inside a turn of the prompt"


def import_transcripts(source: TranscriptsSource) -> Imported:
    """All lines of an hh-rlhf file. Raises DataError with file and line."""
    rows: list[LabeledRow] = []
    notes: list[str] = []
    for number, record in read_records(source.path):
        row, seen = _pair(source, number, record)
        rows.append(row)
        notes += seen
    return imported(source.info, rows, notes)


def _pair(source: TranscriptsSource, number: int, record: Record) -> tuple[LabeledRow, list[str]]:
    where = f"{source.path}, line {number}"
    chosen, rejected = (_transcript(record, key, where) for key in ("chosen", "rejected"))
    prompt = chosen[:-1]
    notes = []
    if any(has_inline_header(turns[-1].content) for turns in (chosen, rejected)):
        notes.append(INLINE_IN_RESPONSE)
    if any(has_inline_header(turn.content) for turn in (*prompt, *rejected[:-1])):
        notes.append(INLINE_IN_PROMPT)
    if len(prompt) > 1:
        notes.append("several turns")
    reason = _fault(chosen, rejected)
    if not reason and source.drop_inline_headers and INLINE_IN_RESPONSE in notes:
        reason = INLINE_IN_RESPONSE
    row = labeled_row(
        source.info, number, prompt, chosen[-1].content, rejected[-1].content, reason=reason
    )
    return row, notes


def _transcript(record: Record, key: str, where: str) -> Messages:
    value = record.get(key)
    if not isinstance(value, str):
        raise DataError(
            f"{where}: '{key}' must be a whole transcript as text; for other shapes use type 'pairs'"
        )
    return parse_transcript(value, f"{where}: '{key}'")


def _fault(chosen: Messages, rejected: Messages) -> str:
    if chosen[:-1] != rejected[:-1]:
        return "the prompts of the two responses differ"
    if not chosen[-1].role == rejected[-1].role == "assistant":
        return "a transcript does not end with an assistant turn"
    return conversation_fault(chosen[:-1])
