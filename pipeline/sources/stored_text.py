r"""Structure that a file stores as text: JSON or Python in a cell, transcripts, chat markup.

Each is either read as what it stands for or the row is unusable: a text that shows a model the
brackets of a list, or the headers of a transcript, is one that no one wrote.
"""

import ast
import io
import itertools
import json
import re
import tokenize
from typing import Any

from pipeline.types import Message, Messages

STORED = "JSON or Python stored as text"
TRANSCRIPT = "a transcript stored as text that cannot be split into turns with certainty"
MARKUP = "chat markup (such as <|im_start|> or [INST]) stored as text"
THOUGHT = "a thought (<think>) inside the text"

_OPENING = re.compile(r"""\s*(?:array\()?[\[{(]+\s*(?:["'{\[]|\]|\}|None\b|null\b)""")
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("assistant", "ai", "bot"), "assistant"),
    "system": "system",
}
_HEADER = re.compile(rf"(?im)^[ \t]*({'|'.join(_ROLES)}):")
_DECORATED = re.compile(
    r"(?i)(?:#{2,}|\*\*|<)[ \t]*(human|user|prompter|instruction|assistant|ai|bot|response)\b"
    r"[ \t]*>?:"
)
_OPEN_END = re.compile(r"(?i)\b(?:assistant|ai|bot):\s*$")
_SHOUTED = re.compile(r"\b(USER|ASSISTANT):")
_MARKUP = re.compile(
    r"<\|[A-Za-z][\w ]*\|>|<\|turn>|<turn\|>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>"
    r"|<\uff5c[^<>\uff5c]+\uff5c>|<extra_id_\d+>|<unused\d+>|<(?:BOS|EOS)_TOKEN>|\[\|[a-z]+\|\]"
    r"|\]~b\]|\[e~\[|\[/?SYSTEM_PROMPT\]|\[/?(?:AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\]"
    r"|<tool_call>|<function=[\w.-]+>"
)
_ENDS = re.compile(r"(?s)\A\s*(?:<s>(?!.*</s>)|<bos>)|(?:</s>|<eos>|<pad>)\s*\Z")
"""Tokens around a whole text, which a decoder has left there."""
_STEERLM = re.compile(r"(?:\A|\n)<extra_id_\d+>(System|User|Assistant)\n")
_CHATML = re.compile(r"\s*<\|im_start\|>(system|user|assistant)\n(.*?)<\|im_end\|>\s*", re.DOTALL)
_CHATML_OPEN = re.compile(r"\s*<\|im_start\|>assistant\s*$")
_THOUGHT = re.compile(
    r"(?i)</?(?:think(?:ing)?|thoughts?|reasoning|seed:think)>|\[/?THINK\]|◁/?think▷"
)


class UnusableRow(Exception):
    """The row can be read, but is no label; its text is the reason. An importer drops the row."""


def stored_value(text: str) -> Any:
    """The list or object that a cell spells in JSON or Python; the text itself when it is a text.

    Lists of numbers are texts: no turn of a conversation is stored that way.

    Raises:
        UnusableRow: the text spells a structure that is cut or that has two readings.
    """
    stripped = text.strip()
    if stripped.startswith('"') and stripped.endswith('"'):
        # JSON in JSON: a quoted text that spells a structure.
        inner = json_value(stripped)
        if isinstance(inner, str) and _OPENING.match(inner):
            stripped = inner.strip()
    if not _OPENING.match(stripped):
        return text
    value = json_value(stripped)
    if value is None:
        value = _python(stripped)
    if isinstance(value, list | dict):
        return value
    if value is not None or _is_prefixed(stripped):
        return text
    raise UnusableRow(STORED)


def json_value(text: str) -> Any:
    """The value of a JSON text; None for what is none, or repeats a name."""
    try:
        return json.loads(text, object_pairs_hook=unique_names)
    except (ValueError, RecursionError):
        return None


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON text. Raises ValueError when a name repeats: one would win by chance."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name '{repeated}' repeats in one object")
    return dict(pairs)


def _python(text: str) -> Any:
    try:
        tree = ast.parse(text.strip(), mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                unique_names([(ast.dump(key), None) for key in node.keys if key])
        value = ast.literal_eval(tree)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
    if isinstance(value, tuple) and any(isinstance(item, str | dict | list) for item in value):
        value = list(value)
    # NumPy prints ['a' 'b'], which Python reads as one joined text.
    tokens = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
    texts = [kind for kind in tokens if kind not in (tokenize.NL, tokenize.COMMENT)]
    joined = any(a == b == tokenize.STRING for a, b in itertools.pairwise(texts))
    return None if joined else value


def _is_prefixed(text: str) -> bool:
    """Whether words surround the structure, as in a question about some JSON."""
    if text[-1] not in "]})":
        try:
            json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return text.startswith("(")
        return True
    return text.startswith("(")


def has_markup(text: str) -> bool:
    """True when a text spells turn tokens of a chat template, or a token at one of its ends."""
    if _MARKUP.search(text):
        return True
    # A strikethrough has both of its tags.
    return _ENDS.search(text) is not None and not re.search(r"(?s)<s>.*</s>", text)


def has_thought(text: str) -> bool:
    """True when a text contains the tags of a thought."""
    return _THOUGHT.search(text) is not None


def stored_turns(text: str, role: str) -> Messages | None:
    """The turns of a transcript or of ChatML; None for a text without either.

    Args:
        role: of the column: `user` for a prompt, `assistant` for a response.

    Raises:
        UnusableRow: there are headers or markup, but not one certain way to split at them.
    """
    if _STEERLM.search(text):
        return _steerlm(text)
    if has_markup(text):
        return _chatml(text)
    if role == "assistant" and has_thought(text):
        raise UnusableRow(THOUGHT)
    headers = list(_HEADER.finditer(text))
    roles = [_ROLES[header.group(1).lower()] for header in headers]
    speakers = {*roles} - {"system"}
    shouted = {match.group(1) for match in _SHOUTED.finditer(text)}
    decorated = {match.group(1).lower() for match in _DECORATED.finditer(text)}
    starts = bool(headers) and not text[: headers[0].start()].strip()
    lone = starts and headers[0].group(1).lower() in ("human", "assistant")
    continued = role == "assistant" and re.search(r"\n\s*\n(?:Human|Assistant):", text)
    if not (
        len(speakers) == 2
        or lone
        or continued
        or _OPEN_END.search(text)
        or len(shouted) == 2
        or len(decorated) >= 2
    ):
        return None
    if not starts:
        raise UnusableRow(TRANSCRIPT)
    ends = [header.start() for header in headers[1:]] + [len(text)]
    turns = [
        Message(role, text[header.end() : end].strip())  # type: ignore[arg-type]  # by _ROLES
        for role, header, end in zip(roles, headers, ends, strict=True)
    ]
    if turns and turns[-1].role == "assistant" and not turns[-1].content:
        turns.pop()
    told = turns[1:] if turns and turns[0].role == "system" else turns
    if (
        len(speakers) < 2
        or len({header.group(1) for header in headers}) > 3
        or decorated
        or not _separated_alike(text, [header.start() for header in headers[1:]])
        or any(turn.role != ("user", "assistant")[i % 2] for i, turn in enumerate(told))
        or any(len(_SHOUTED.findall(turn.content)) or not turn.content for turn in turns)
    ):
        raise UnusableRow(TRANSCRIPT)
    return tuple(turns)


def _steerlm(text: str) -> Messages:
    """The turns of HelpSteer's prompts: the first has no header, the others one each."""
    first, *rest = _STEERLM.split(text)
    turns = [Message("user", first.strip())] if first.strip() else []
    turns += [
        Message(role.lower(), words.strip())  # type: ignore[arg-type]  # by the pattern
        for role, words in zip(rest[::2], rest[1::2], strict=True)
    ]
    if turns[-1].role == "assistant" and not turns[-1].content:
        turns.pop()
    if not turns or any(not turn.content or has_markup(turn.content) for turn in turns):
        raise UnusableRow(MARKUP)
    return tuple(turns)


def _separated_alike(text: str, starts: list[int]) -> bool:
    """Whether all headers follow a blank line, or none does."""
    return len({text[:start].rstrip(" \t").endswith("\n\n") for start in starts}) < 2


def _chatml(text: str) -> Messages:
    turns: list[Message] = []
    at = 0
    while match := _CHATML.match(text, at):
        turns.append(Message(match.group(1), match.group(2).strip()))  # type: ignore[arg-type]
        at = match.end()
    rest = text[at:]
    contents = [turn.content for turn in turns]
    if not turns or (rest and not _CHATML_OPEN.fullmatch(rest)) or any(map(has_markup, contents)):
        raise UnusableRow(MARKUP)
    return tuple(turns)
