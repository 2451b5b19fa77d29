"""What a model's text must be before it enters a row: whole characters, a reply, no thought.

Every engine builds its generations here, so that no stage, judge or data set meets a thought, half
a character, or nothing at all under the name of a reply.
"""

import re
from collections.abc import Callable

from pipeline.errors import NoReplyError
from pipeline.types import FinishReason, Generation, is_blank

_NAMES = r"(?:think|thinking|thought|thoughts|reasoning|reason|seed:think)"
_OPENING = rf"<{_NAMES}>|\[THINK\]|◁think▷|<\|?START_THINKING\|>|<\|channel>thought\b"
_CLOSING = rf"</{_NAMES}>|\[/THINK\]|◁/think▷|<\|?END_THINKING\|>|<channel\|>"
_BLOCK = re.compile(rf"\s*(?:{_OPENING})(?:.*?(?:{_CLOSING})|.*)\s*", re.S | re.I)
_UNOPENED = re.compile(rf"((?!{_OPENING}).)*?(?:^|\n)[ \t]*(?:{_CLOSING})\s*", re.S | re.I)
"""The template opened the thought, so the text begins inside of it; its end has its own line."""
_CHANNELS = re.compile(
    r"\s*(?:<\|start\|>assistant)?(?:<\|channel\|>)(?:analysis|commentary)\b.*?"
    r"(?:<\|channel\|>final\s*<\|message\|>|\Z)"
    r"|\s*analysis(?=[A-Z]).*?assistantfinal",
    re.S,
)
"""Channels of gpt-oss, with their control tokens or with these left out by a decoder."""
_MARK = re.compile(
    rf"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary|final)?\s*|<\|(?:message|end)\|>"
    rf"|(?-i:\A\s*analysis(?=[A-Z])|assistantfinal\Z)|{_OPENING}|{_CLOSING}",
    re.I,
)
"""What surrounds a thought and is no part of it."""


def whole_text(text: str) -> str:
    """A text from outside with each NUL and half of a surrogate pair replaced by U+FFFD."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", "\ufffd")


def opens_thought(prompt: str) -> bool:
    """True when a prompt ends inside of a thought, so that a reply would begin there."""
    return bool(re.search(rf"(?:{_OPENING})\s*$", prompt, re.I))


def with_thought(thought: str, reply: str) -> str:
    """A reply with a thought in front of it, as most models and templates spell one."""
    return f"<think>\n{thought}\n</think>\n\n{reply}" if thought else reply


def is_thought_mark(token: str) -> bool:
    """True for a token that begins or ends a thought or a channel."""
    return bool(
        re.fullmatch(rf"{_OPENING}|{_CLOSING}|<\|(?:start|channel|message)\|>", token, re.I)
    )


def split_thought(text: str) -> tuple[str, str]:
    """A model's thoughts without their marks, and the reply after them.

    A text that begins with no thought stays as it is. A thought that does not end is all there is,
    and the reply is empty.
    """
    if channels := _CHANNELS.match(text):
        reply = text[channels.end() :].lstrip()
    else:
        reply = text
        if re.search(_CLOSING, text, re.I) and (match := _UNOPENED.match(text)):
            reply = text[match.end() :]
        while match := _BLOCK.match(reply):
            reply = reply[match.end() :]
    return _MARK.sub("", text[: len(text) - len(reply)]).strip(), reply


_REMEDIES = {
    "refusal": "put the prompt in other words, or name another model",
    "tool_calls": "turn off the server's tools",
    "function_call": "turn off the server's tools",
    "audio": "have the server answer in text",
}
"""What to do about an answer that holds this in place of a text."""
_LONGER = "raise max_tokens, or turn its thinking off"


def make_generation(
    text: str,
    reason: FinishReason,
    num_prompt_tokens: int,
    num_tokens: int,
    num_cached_tokens: int = 0,
    *,
    instead: str = "",
    thought: str = "",
    count_thought: Callable[[str], int | None] = lambda thought: None,
) -> Generation:
    """A generation whose text is a reply; a thought before it is kept beside it.

    Args:
        instead: what the model sent besides a text, such as `reasoning_content`.
        thought: a thought that arrived apart from the text.
        count_thought: number of tokens of a thought, None where that is not known.

    Raises:
        NoReplyError: the text is blank, or blank without its thought.
    """
    whole = whole_text(text)
    inside, reply = split_thought(whole)
    if not is_blank(reply):
        thoughts = "\n\n".join(filter(None, (whole_text(thought).strip(), inside)))
        return Generation(
            reply,
            reason,
            num_prompt_tokens,
            num_tokens,
            num_cached_tokens,
            thoughts,
            count_thought(thoughts),
        )
    sent = instead or ("no text" if is_blank(whole) else "a thought only")
    remedy = next((text for name, text in _REMEDIES.items() if name in sent), _LONGER)
    raise NoReplyError(
        f"the model sent {sent} ({num_tokens} tokens, ended by '{reason}') in place of a reply; "
        f"{remedy}, then `rlaif resume`"
    )
