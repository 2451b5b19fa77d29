"""hh-rlhf transcripts (Bai et al. 2022, arXiv:2204.05862; data under the MIT license).

In:  JSON Lines, also with gzip, with `chosen` and `rejected`: whole transcripts that should differ
     in the last assistant turn only
Out: LabeledRow per line

Both transcripts are parsed on their own, and the turns before the last are compared: in the test
file of harmless-base 5 of 2,312 rows have different ones, and cutting `rejected` at the length of
the prompt of `chosen`, as the reference loader of DPO does, would yield fragments. Texts are
stripped at both ends; chat templates add their own space.

Does not: repair anything. A row that cannot be used is dropped with its reason.
"""

from pipeline.sources.config import TranscriptsSource
from pipeline.sources.conversations import conversation_fault, has_inline_header, parse_transcript
from pipeline.sources.evidence import unread_reason
from pipeline.sources.lines import Line, read_lines
from pipeline.sources.rows import Imported, LabeledRow, imported, labeled_row
from pipeline.types import Messages

INLINE_IN_RESPONSE = "turn header inside a response"
INLINE_IN_PROMPT = "turn header inside a turn of the prompt"


def import_transcripts(source: TranscriptsSource, seed: int = 0) -> Imported:
    """All lines of an hh-rlhf file. Raises DataError with file and line."""
    lines = list(read_lines(source.path))
    pairs = [_pair(source, line) for line in lines]
    notes = [note for _, notes in pairs for note in notes]
    return imported(source, [row for row, _ in pairs], notes, lines)


def _pair(source: TranscriptsSource, line: Line) -> tuple[LabeledRow, list[str]]:
    """A row, and what is irregular about it."""
    if None in (line.value("chosen"), line.value("rejected")):
        return labeled_row(source, line.number, (), "", "", reason="no transcript (null)"), []
    chosen, rejected = _transcript(line, "chosen"), _transcript(line, "rejected")
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
    reason = reason or unread_reason(line, "chosen", "rejected", ordered=True)
    texts = chosen[-1].content, rejected[-1].content
    return labeled_row(source, line.number, prompt, *texts, reason=reason), notes


def _transcript(line: Line, key: str) -> Messages:
    value = line.get(key)
    if not isinstance(value, str):
        raise line.error(
            f"'{key}' must be a whole transcript as text; for other shapes use type 'pairs'"
        )
    return parse_transcript(value, f"{line.where}: '{key}'")


def _fault(chosen: Messages, rejected: Messages) -> str:
    if chosen[:-1] != rejected[:-1]:
        return "the prompts of the two responses differ"
    if not chosen[-1].role == rejected[-1].role == "assistant":
        return "a transcript does not end with an assistant turn"
    return conversation_fault(chosen[:-1])
