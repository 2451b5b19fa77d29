"""What users did: thumbs up, thumbs down, and asking for another reply.

In:  a label file, one event a record: `event`, `prompt` (or `messages`), `response`, and
     optionally `user`; or the unpaired rows of KTO trainers: `label` (true or false), `prompt` and
     `completion`, or `messages` that end with the reply
Out: FeedbackRow per reply, good or bad: an unpaired row for KTO (Ethayarajh et al. 2024,
     arXiv:2402.01306)

A thumb is evidence of weight 1. A regenerate event is a weak negative (0.5 unless set otherwise)
for the reply that was replaced: its `response` is the old reply, and nothing is claimed about the
new one. Events on the same reply add up, at most one of a kind per user. A reply whose sum is 0 is
dropped: it would be on both sides and teach noise.
"""

from dataclasses import dataclass, field

from pipeline.ids import prompt_id, row_id
from pipeline.sources.config import FeedbackSource, label_word
from pipeline.sources.conversations import conversation_fault, turn_fault
from pipeline.sources.lines import Line, read_lines
from pipeline.sources.rows import FeedbackRow, Imported, imported, response_id
from pipeline.sources.stored_text import UnusableRow
from pipeline.types import Messages, is_blank

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
    dropped: list[FeedbackRow] = []
    lines = list(read_lines(source.path))
    for line in lines:
        user = line.word("user")
        try:
            event = _event(line)
            if event not in evidence:
                raise line.error(f"the event is '{event}', but {', '.join(evidence)} are known")
            messages, text = _reply(line)
        except UnusableRow as fault:
            dropped.append(_dropped(source, line.number, str(fault)))
            continue
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
    return imported(source, [*rows, *dropped], notes, lines)


def _event(line: Line) -> str:
    """The event of a record; a label counts as the thumb of one user."""
    thumbs = {"true": "thumbs_up", "false": "thumbs_down"}
    if "event" in line.values or "label" not in line.values:
        event = line.text("event")
        thumb = thumbs.get(label_word(line.values.get("label")), event)
        if event in thumbs.values() and event != thumb:
            raise UnusableRow("event and label contradict each other")
        return event
    label = line.optional("label")
    if label is None:
        raise UnusableRow("the label is missing")
    word = label_word(label)
    if word not in thumbs:
        raise line.error(
            f"the label is {label!r:.80}, but true or false is needed; numbers and other words "
            "have no meaning here"
        )
    return thumbs[word]


def _reply(line: Line) -> tuple[Messages, str]:
    """The prompt, and the reply: of its own column, else the last turn of the conversation."""
    messages = line.conversation()
    key = "completion" if "completion" in line.values else "response"
    if key in line.values or messages[-1].role != "assistant":
        return messages, line.reply(key)
    return messages[:-1], messages[-1].content


def _dropped(source: FeedbackSource, number: int, reason: str) -> FeedbackRow:
    return FeedbackRow(
        row_id=row_id("feedback", source.name, number, reason),
        status="dropped",
        reason=reason,
        source=source.name,
        source_kind=source.kind,
        source_index=number,
    )


def _row(source: FeedbackSource, reply: _Reply, evidence: float) -> FeedbackRow:
    reason = conversation_fault(reply.messages) or turn_fault(reply.text, "assistant")
    reason = reason or ("empty response" if is_blank(reply.text) else "")
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
