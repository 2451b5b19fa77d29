"""The defense of a judge's prompt: text of strangers cannot imitate its delimiters or turns.

In:  a text that a model or a user wrote
Out: the text with words unchanged, and without fences, turn headers and tokens of a chat template
"""

import re
from collections.abc import Sequence

from pipeline.types import Message

# Brackets that look like the judge's fence, each perhaps with combining marks on it.
_OPENING, _CLOSING = (
    "[\uff3b\u27e6\u301a\u2045\u3010\u3014",
    "]\uff3d\u27e7\u301b\u2046\u3011\u3015",
)
_FENCES = re.compile(
    f"(?:[{re.escape(_OPENING)}][\u0300-\u036f]*){{3,}}"
    f"|(?:[{re.escape(_CLOSING)}][\u0300-\u036f]*){{3,}}"
)
_FENCE_PARTS = re.compile(".[\u0300-\u036f]*")
# Also in bold, in a list, as a heading or a quotation, and with a colon that only looks like one.
_TURN_HEADER = re.compile(
    r"(?mi)^((?:[^\S\n]|[>*#_\-\"'`(\[]){0,80})(Human|User|Assistant|System|Developer)"
    r"([\s*_\"'`)\]]{0,80}[:\uff1a\u2236\ua789])"
)
_NEW_LINES = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
# Joiners and variation selectors belong between letters of some scripts and in emoji, nowhere else.
_JOINED = rf"[^\x00-\x7f{_OPENING[1:]}{_CLOSING[1:]}]"
_JOINERS = re.compile(rf"(?<!{_JOINED})[\u200c\u200d\ufe00-\ufe0f]+|[\u200c\u200d]+(?!{_JOINED})")
# Tokens with which the chat templates of common models open and close a turn or a part of it.
_TURN_TOKENS = re.compile(
    r"<(?:[|\uff5c][^|\uff5c<>\n]{1,60}[|\uff5c]|/?s|bos|eos|unk|pad|(?:start|end)_of_turn"
    r"|/?think|/?tool_(?:call|response))>|<</?SYS>>"
)
_BRACKET_TOKENS = re.compile(r"\[/?(?:INST|SYSTEM_PROMPT|TOOL_(?:CALLS|RESULTS)|AVAILABLE_TOOLS)\]")


def neutralize(text: str) -> str:
    """The text with the judge's delimiters and turn headers made harmless, words unchanged.

    `[[[` becomes `[ [ [`, a line that starts with `Human:` gets a quotation bar, tokens that open
    or close a turn (`<|im_end|>`, `[INST]`) get a space, and invisible characters go. Used on every
    text that a model or a user wrote before a judge sees it.

    Does not: keep a text from arguing with the judge in plain words; `audits/` measures that.
    """
    # Invisible characters go first: they could hide a fence from the patterns below.
    text = _INVISIBLE.sub("", _NEW_LINES.sub("\n", text))
    text = _JOINERS.sub("", text)
    text = _FENCES.sub(lambda match: " ".join(_FENCE_PARTS.findall(match.group())), text)
    return _TURN_HEADER.sub(r"\1| \2\3", break_tokens(text))


def break_tokens(text: str) -> str:
    """The text with spaces inside what spells a token of a chat template: `<|im_end|>` becomes
    `< |im_end| >`, `[INST]` becomes `[ INST ]`.

    For servers that tokenize by themselves, to which a spelled token would be a live one.
    """
    # A token in brackets may be inside one of the others, as in <|[INST]|>.
    for tokens in (_TURN_TOKENS, _BRACKET_TOKENS):
        text = tokens.sub(lambda match: f"{match[0][0]} {match[0][1:-1]} {match[0][-1]}", text)
    return text


def neutralize_conversation(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as dictionaries for a template, contents neutralized."""
    return [{"role": m.role, "content": neutralize(m.content)} for m in messages]
