"""Control tokens that a text merely spells, kept apart from those that a chat template writes.

A special token in a prompt, a reply or a label file would end a turn in the middle of it. A mark
inside of each such spelling survives the template; the text is cut there before it is tokenized,
so that no piece holds the whole token. Other texts keep their token ids.

Does not: cut a token that is one character long.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Spellings:
    """How a tokenizer's control tokens can be spelled."""

    pattern: re.Pattern[str]
    """Matches the first character of each token's own spelling."""
    token_ids: frozenset[int]
    normalizing: Any = None
    """The fast tokenizer, where it looks for a token in normalized text: there, other spellings
    are the token too, such as one with spaces for U+2581 or with full-width letters."""


def spelled_tokens(tokenizer: Any) -> Spellings | None:
    """How the control tokens of a transformers tokenizer can be spelled; None without any."""
    tokens = {
        index: token
        for index, token in tokenizer.added_tokens_decoder.items()
        if len(token.content) > 1 and (token.special or _CONTROL.fullmatch(token.content))
    }
    if not tokens:
        return None
    names = "|".join(re.escape(token.content) for token in tokens.values())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normalizes = any(token.normalized for token in tokens.values())
    return Spellings(
        re.compile(f"(?=(?:{names}))(.)", re.S),
        frozenset(tokens),
        backend if normalizes and getattr(backend, "normalizer", None) else None,
    )


def mark_spelled(text: str, spellings: Spellings | None) -> str:
    """The text with a mark after the first character of each spelled token."""
    if spellings is None:
        return text
    marked = spellings.pattern.sub(rf"\1{MARK}", text)
    if spellings.normalizing is None:
        return marked
    pieces = (part for piece in marked.split(MARK) for part in _apart(piece, spellings))
    return MARK.join(pieces)


def encode_marked(text: str, encode: Callable[[str], list[int]]) -> list[int]:
    """Token ids of a rendered text, cut at its marks."""
    return [token for piece in text.split(MARK) if piece for token in encode(piece)]


def _apart(text: str, spellings: Spellings) -> Iterator[str]:
    """The text in pieces, none of which is tokenized to a control token."""
    while text:
        encoded = spellings.normalizing.encode(text, add_special_tokens=False)
        spans = zip(encoded.ids, encoded.offsets, strict=True)
        starts = [a for i, (a, b) in spans if i in spellings.token_ids and b - a > 1]
        if not starts:
            break
        yield text[: starts[0] + 1]
        text = text[starts[0] + 1 :]
    yield text
