"""What users did: thumbs up, thumbs down, and asking for another reply.

In:  JSON Lines or CSV, one event a line: `event`, `prompt` (or `messages`), `response`, and
     optionally `user`
Out: FeedbackRow per reply, good or bad: an unpaired row for KTO (Ethayarajh et al. 2024,
     arXiv:2402.01306)

A thumb is evidence of weight 1. A regenerate event is a weak negative (0.5 unless set otherwise)
for the reply that was replaced: its `response` is the old reply, and nothing is claimed about the
new one. Events on the same reply add up, at most one of a kind per user. A reply whose sum is 0 is
dropped: it would be on both sides and teach noise.
"""

from dataclasses import dataclass, field

from pipeline.ids import prompt_id, row_id
from pipeline.sources.config import FeedbackSource
from pipeline.sources.conversations import BROKEN_TEXT, conversation_fault, is_unicode
from pipeline.sources.lines import read_lines
from pipeline.sources.rows import FeedbackRow, Imported, imported, response_id
from pipeline.types import Messages

REPEATED = "the same event of the same user again"


@dataclass
class _Reply:
    """The events on one reply so far."""

    line: int
    messages: Messages
    text: str
    events: list[str] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)


def import_feedback(source: FeedbackSource, seed: int = 0) -> Imported:
    """All events of a file, summed up per reply. Raises DataError with file and line."""
    evidence = {
        "thumbs_up": source.thumbs_weight,
        "thumbs_down": -source.thumbs_weight,
        "regenerate": -source.regenerate_weight,
    }
    replies: dict[tuple[str, str], _Reply] = {}
    notes: list[str] = []
    for line in read_lines(source.path):
        event = line.text("event")
        if event not in evidence:
            raise line.error(f"the event is '{event}', but {', '.join(evidence)} are known")
        messages, text, user = line.conversation(), line.text("response"), line.word("user")
        key = prompt_id(messages), text
        reply = replies.setdefault(key, _Reply(line.number, messages, text))
        if user and (event, user) in reply.seen:
            notes.append(REPEATED)
            continue
        reply.seen.add((event, user))
        reply.events.append(event)
        notes.append(event)
    rows = [
        _row(source, reply, sum(evidence[event] for event in reply.events))
        for reply in replies.values()
    ]
    return imported(source, rows, notes)


def _row(source: FeedbackSource, reply: _Reply, evidence: float) -> FeedbackRow:
    reason = conversation_fault(reply.messages) or ("" if reply.text else "empty response")
    if not reason and not is_unicode(reply.text):
        reason = BROKEN_TEXT
    if not reason and abs(evidence) < 1e-9:
        reason = "the events cancel out"
    prompt = prompt_id(reply.messages)
    return FeedbackRow(
        row_id=row_id("feedback", source.name, prompt, reply.text, sorted(reply.events)),
        status="dropped" if reason else "ok",
        reason=reason,
        prompt_id=prompt,
        messages=reply.messages,
        completion=reply.text,
        completion_id=response_id(prompt, reply.text),
        label=evidence > 0,
        weight=0.0 if reason else min(1.0, abs(evidence)),
        events=tuple(reply.events),
        source=source.name,
        source_kind=source.kind,
        source_index=reply.line,
    )
