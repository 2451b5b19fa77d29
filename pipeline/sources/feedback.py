"""What users did: thumbs up, thumbs down, and asking for another reply.

In:  JSON Lines or CSV, one event a line: `event`, `prompt` (or `messages`), `response`, and
     optionally `user`
Out: FeedbackRow per reply, good or bad: an unpaired row for KTO (Ethayarajh et al. 2024,
     arXiv:2402.01306)

A thumb is evidence of weight 1. A regenerate event is a weak negative (0.5 unless set otherwise) for
the reply that was replaced: its `response` is the old reply, and nothing is claimed about the new
one. Events on the same reply add up, at most one of a kind per user; a sum of 0 says nothing and the
row is dropped, since the same reply on both sides would teach noise.
"""

from dataclasses import dataclass, field

from pipeline.errors import DataError
from pipeline.ids import row_id
from pipeline.sources.config import FeedbackSource
from pipeline.sources.conversations import (
    BROKEN_TEXT,
    conversation_fault,
    is_unicode,
    parse_messages,
)
from pipeline.sources.lines import Record, read_records, text_field
from pipeline.sources.rows import (
    FeedbackRow,
    Imported,
    SourceInfo,
    imported,
    prompt_id,
    response_id,
)
from pipeline.types import Messages

EVENTS = ("thumbs_up", "thumbs_down", "regenerate")
REPEATED = "the same event of the same user again"


@dataclass
class _Reply:
    """What is known of one reply so far."""

    line: int
    messages: Messages
    text: str
    events: list[str] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)


def import_feedback(source: FeedbackSource) -> Imported:
    """All events of a file, summed up per reply. Raises DataError with file and line."""
    evidence = {
        "thumbs_up": source.thumbs_weight,
        "thumbs_down": -source.thumbs_weight,
        "regenerate": -source.regenerate_weight,
    }
    replies: dict[tuple[str, str], _Reply] = {}
    notes: list[str] = []
    for number, record in read_records(source.path):
        event, user, reply = _event(record, number, f"{source.path}, line {number}")
        reply = replies.setdefault((prompt_id(reply.messages), reply.text), reply)
        if user and (event, user) in reply.seen:
            notes.append(REPEATED)
            continue
        reply.seen.add((event, user))
        reply.events.append(event)
        notes.append(event)
    rows = [
        _row(source.info, reply, sum(evidence[e] for e in reply.events))
        for reply in replies.values()
    ]
    return imported(source.info, rows, notes)


def _event(record: Record, number: int, where: str) -> tuple[str, str, _Reply]:
    event = text_field(record, "event", where)
    if event not in EVENTS:
        raise DataError(f"{where}: the event is '{event}', but {', '.join(EVENTS)} are known")
    key = "messages" if "messages" in record else "prompt"
    if key not in record:
        raise DataError(f"{where}: there is neither 'prompt' nor 'messages'; add one")
    messages = parse_messages(record[key], f"{where}: '{key}'")
    user = str(record.get("user") or "")
    return event, user, _Reply(number, messages, text_field(record, "response", where))


def _row(info: SourceInfo, reply: _Reply, evidence: float) -> FeedbackRow:
    reason = conversation_fault(reply.messages) or ("" if reply.text else "empty response")
    if not reason and not is_unicode(reply.text):
        reason = BROKEN_TEXT
    if not reason and abs(evidence) < 1e-9:
        reason = "the events cancel out"
    prompt = prompt_id(reply.messages)
    return FeedbackRow(
        row_id=row_id("feedback", info.name, prompt, reply.text, sorted(reply.events)),
        status="dropped" if reason else "ok",
        reason=reason,
        prompt_id=prompt,
        messages=reply.messages,
        completion=reply.text,
        completion_id=response_id(prompt, reply.text),
        label=evidence > 0,
        weight=0.0 if reason else min(1.0, abs(evidence)),
        events=tuple(reply.events),
        source=info.name,
        source_kind=info.kind,
        source_index=reply.line,
    )
