"""Control tokens that a text merely spells, kept apart from those that a chat template writes.

A special token in a prompt, a reply or a label file would end a turn in the middle of it. A mark
inside of each such spelling survives the template; the text is cut there before it is tokenized,
so that no piece holds the whole token. Other texts keep their token ids.
"""

import re
from collections.abc import Callable
from typing import Any

MARK = "\ufdd0"
"""A noncharacter: valid in a string, and never a character of a text."""


_CONTROL = re.compile(
    r"(?!</?(?:table|caption|t(?:head|body|foot|[rhd])|h[1-6]|blockquote|strong|em|[bius]|su[bp]"
    r"|code)>)[<\[{\]].*[>\]}\[]",
    re.S,
)
"""The shape of `<think>` and `[TOOL_CALLS]`, which some tokenizers do not call special. Their other
added tokens are text: runs of spaces, words, and tags of HTML."""


def spelled_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """A pattern that matches the first character of each control token's spelling."""
    names = [
        re.escape(token.content)
        for token in tokenizer.added_tokens_decoder.values()
        if len(token.content) > 1 and (token.special or _CONTROL.fullmatch(token.content))
    ]
    return re.compile(f"(?=(?:{'|'.join(names)}))(.)", re.S) if names else None


def mark_spelled(text: str, pattern: re.Pattern[str] | None) -> str:
    """The text with a mark after the first character of each spelled token."""
    return pattern.sub(rf"\1{MARK}", text) if pattern else text


def encode_marked(text: str, encode: Callable[[str], list[int]]) -> list[int]:
    """Token ids of a rendered text, cut at its marks."""
    return [token for piece in text.split(MARK) if piece for token in encode(piece)]
