r"""Conversations as label files write them: transcripts with turn headers, or lists of messages.

A turn starts at "\n\nHuman:" or "\n\nAssistant:" and nowhere else. "Human:" inside a line is text,
and paragraphs are not turns: splitting at blank lines, as one open recipe does, keeps only the
first paragraph of a question.
"""

import re
from typing import Any, get_args

from pipeline.errors import DataError
from pipeline.sources.stored_text import (
    MARKUP,
    STORED,
    THOUGHT,
    UnusableRow,
    has_markup,
    has_thought,
    stored_turns,
    stored_value,
)
from pipeline.types import Message, Messages, Role, assistant, is_blank, user

_HEADER = re.compile(r"\n\n(Human|Assistant):")
BROKEN_TEXT = "not valid text (NUL, or half of a surrogate pair)"
_SURROGATE = re.compile("[\ud800-\udfff]")
_INLINE = re.compile(r"\b(?:Human|Assistant):")

NO_TEXT = "a message without text (null)"
_ROLES: dict[str, dict[str, Role]] = {
    "role": {**{role: role for role in get_args(Role)}, "developer": "system"},
    "from": {
        "system": "system",
        "human": "user",
        "user": "user",
        "gpt": "assistant",
        "assistant": "assistant",
        "chatgpt": "assistant",
        "bing": "assistant",
        "bard": "assistant",
    },
}
"""Roles by the key that names them: `role` of OpenAI, `from` of ShareGPT."""
_TOOL_ROLES = ("tool", "function", "ipython", "function_call", "observation", "tool_call")
_TEXT_PARTS = ("text", "input_text", "output_text")
_EXTRAS = {
    "tool_calls": "a tool call",
    "function_call": "a tool call",
    "tool_call_id": "a turn of a tool",
    "name": "a speaker with a name",
    **dict.fromkeys(("image", "images"), "an image"),
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), "reasoning beside the text"),
    "refusal": "a refusal beside the text",
}
"""Why a message with this key is more than a text."""
_HARMLESS = ("id", "index", "timestamp", "created_at", "lang", "language")
"""Keys of a message that change nothing about what was said."""


def parse_transcript(text: str, where: str) -> Messages:
    """All turns of a transcript that starts with a blank line and a header, stripped.

    Raises:
        DataError: there is no header, or text before the first one.
    """
    text = text.replace("\r\n", "\n")
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


def parse_messages(value: Any, where: str, role: Role = "user") -> Messages:
    """The turns in one value of a file.

    Args:
        value: text (one turn, or a transcript or a list that the file stores as text), a list of
            messages, of texts (one a turn) or of pairs of texts, one message, or an object with
            `messages` or `conversations`.
        role: of a bare text: `user` in a prompt, `assistant` in a response.

    Raises:
        UnusableRow: a turn is more than role and text, or stored as text in an unclear way.
        DataError: it is none of these, or a role is unknown.
    """
    if value is None or value != value:
        raise UnusableRow(NO_TEXT)
    if isinstance(value, str):
        inner = stored_value(value)
        if inner is value:
            return stored_turns(value, role) or (Message(role, value.strip()),)
        if not has_turns(inner):
            raise UnusableRow(STORED)
        value = inner
    if isinstance(value, dict):
        inner = next((value[key] for key in ("messages", "conversations") if key in value), None)
        value = [value] if inner is None else inner
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: a prompt must be text or a list of messages")
    if all(item is None or isinstance(item, str) for item in value):
        return tuple(_text_turn(item, role) for item in value)
    return tuple(_message(item, where) for item in value)


def has_turns(value: Any) -> bool:
    """Whether a structure is turns: texts, messages, or an object that holds messages."""
    if isinstance(value, dict):
        inner = next((value[k] for k in ("messages", "conversations") if k in value), [value])
        return isinstance(inner, list) and bool(inner) and all(map(_is_message, inner))
    return bool(value) and (
        all(map(_is_message, value)) or all(item is None or isinstance(item, str) for item in value)
    )


def is_list_in_text(value: Any) -> bool:
    """Whether a text spells a list of texts, which only the other columns can tell from a text."""
    inner = stored_value(value) if isinstance(value, str) else value
    return inner is not value and isinstance(inner, list) and not any(map(_is_message, inner))


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and any(key in item for key in ("role", "from"))


def _text_turn(text: str | None, role: Role) -> Message:
    if text is None or not text.strip():
        raise UnusableRow("an empty turn")
    if stored_turns(text, role) is not None or stored_value(text) is not text:
        raise UnusableRow(STORED)
    return Message(role, text.strip())


def _message(item: Any, where: str) -> Message:
    """One message with role and text, in the spelling of OpenAI or of ShareGPT."""
    if not isinstance(item, dict) or not any(key in item for key in ("role", "from")):
        raise DataError(f"{where}: each message needs 'role' and 'content' as text")
    role_key, text_key = ("role", "content") if "role" in item else ("from", "value")
    role, roles = item[role_key], _ROLES[role_key]
    if role in _TOOL_ROLES:
        raise UnusableRow("a turn of a tool")
    if not isinstance(role, str) or role not in roles:
        raise DataError(
            f"{where}: found the role {role!r}, but only {', '.join(roles)} are known; rename it"
        )
    for key, extra in item.items():
        if key not in (role_key, text_key, *_HARMLESS) and extra not in (None, "", [], {}):
            raise UnusableRow(_EXTRAS.get(key, f"a message with '{key}' besides role and text"))
    text = _content(item.get(text_key))
    if has_markup(text):
        raise UnusableRow(MARKUP)
    if roles[role] == "assistant" and has_thought(text):
        raise UnusableRow(THOUGHT)
    return Message(roles[role], text)


def _content(value: Any) -> str:
    """Text, or text parts joined: by a line break where neither side has white space."""
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, list) or not value:
        raise UnusableRow(NO_TEXT)
    joined = ""
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            raise UnusableRow(f"a part of a message that is not text ({str(kind)[:20]})")
        if joined and not joined[-1].isspace() and not part["text"][:1].isspace():
            joined += "\n"
        joined += part["text"]
    return joined.strip()


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
    if is_blank(turns[-1].content):
        return "empty prompt"
    return next(filter(None, (turn_fault(t.content, t.role) for t in messages)), "")


def turn_fault(text: str, role: Role) -> str:
    """Why a text cannot be what the role said; empty when it can."""
    if not is_unicode(text):
        return BROKEN_TEXT
    if has_markup(text):
        return MARKUP
    return THOUGHT if role == "assistant" and has_thought(text) else ""


def is_unicode(text: str) -> bool:
    """False for NUL and lone surrogates: JSON can spell what no tokenizer holds unchanged."""
    return "\0" not in text and not _SURROGATE.search(text)


def has_inline_header(text: str) -> bool:
    """True when a turn contains a turn header: the writer continued for both sides."""
    return _INLINE.search(text) is not None
