r"""Conversations as label files write them: transcripts with turn headers, or lists of messages.

A turn starts at "\n\nHuman:" or "\n\nAssistant:" and nowhere else. "Human:" inside a line is text,
and paragraphs are not turns: splitting at blank lines, as one open recipe does, keeps only the
first paragraph of a question.
"""

import re
from typing import Any, get_args

from pipeline.errors import DataError
from pipeline.types import Message, Messages, Role, assistant, user

_HEADER = re.compile(r"\n\n(Human|Assistant):")
BROKEN_TEXT = "not valid Unicode (half of a surrogate pair)"
_INLINE = re.compile(r"\b(?:Human|Assistant):")


def parse_transcript(text: str, where: str) -> Messages:
    """All turns of a transcript that starts with a blank line and a header, stripped.

    Raises:
        DataError: there is no header, or text before the first one.
    """
    marks = list(_HEADER.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise DataError(
            f"{where}: found {text[:40]!r}, but a transcript starts with a blank line and "
            "'Human:'; for other shapes use type 'pairs'"
        )
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return tuple(
        (user if mark.group(1) == "Human" else assistant)(text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    )


def parse_messages(value: Any, where: str) -> Messages:
    """Messages from one text (a user turn) or from a list of objects with role and content.

    Raises:
        DataError: it is neither, or a role is unknown.
    """
    if isinstance(value, str):
        return (user(value.strip()),)
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: a prompt must be text or a list of messages")
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("content"), str):
            raise DataError(f"{where}: each message needs 'role' and 'content' as text")
        if item.get("role") not in get_args(Role):
            raise DataError(
                f"{where}: found the role {item.get('role')!r}, but only "
                f"{', '.join(get_args(Role))} are known; rename it"
            )
    return tuple(Message(item["role"], item["content"].strip()) for item in value)


def conversation_fault(messages: Messages) -> str:
    """Why a model cannot be asked this conversation; empty when it can.

    After an optional system turn, user and assistant must alternate and a user turn must be last:
    chat templates refuse anything else, or render it wrongly without a word.
    """
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    if not turns or turns[-1].role != "user":
        return "the prompt does not end with a user turn"
    expected = ["user" if i % 2 == 0 else "assistant" for i in range(len(turns))]
    if [turn.role for turn in turns] != expected:
        return "turns do not alternate"
    if not turns[-1].content:
        return "empty prompt"
    return "" if all(is_unicode(turn.content) for turn in messages) else BROKEN_TEXT


def is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON can spell and no file, hash or tokenizer can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def has_inline_header(text: str) -> bool:
    """True when a turn contains a turn header: the writer continued for both sides."""
    return _INLINE.search(text) is not None
