"""Marks that a text must not have, or must: lists, headings, emoji, exclamations, first person.

Code blocks are not read, except for emoji.
"""

import re

from pipeline.checks.result import HOLDS, CheckResult, fails
from pipeline.types import Messages

FENCE = re.compile(
    r"^[ \t]*(?P<fence>```+|~~~+)[ \t]*(?P<language>[^\n`]*)\n(?P<code>.*?)"
    r"(?:^[ \t]*(?P=fence)[ \t]*$|\Z)",
    re.M | re.S,
)
"""A fenced code block of Markdown; an unclosed one reaches to the end."""
# Characters that are shown as emojis by default, and any character that is asked to be one.
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u231a\u231b\u23e9-\u23f3\u25fd\u25fe\u2614\u2615\u2639\u263a\u2648-\u2653"
    "\u2665\u267f\u2693\u26a1\u26aa\u26ab\u26bd\u26be\u26c4\u26c5\u26ce\u26d4\u26ea\u26f2\u26f3\u26f5"
    "\u26fa\u26fd\u2705\u270a\u270b\u2728\u274c\u274e\u2753-\u2755\u2757\u2764\u2795-\u2797\u27b0\u27bf"
    "\u2b1b\u2b1c\u2b50\u2b55\ufe0f]"
)
_CODE_SPAN = re.compile(r"`[^`\n]+`")
_ITEM = re.compile(r"^[ \t]*(?:[-*+•‣▪◦]|\(?\d{1,3}[.)])[ \t]+\S", re.M)
_HEADING = re.compile(
    r"^[ \t]{0,3}#{1,6}[ \t]+\S.*$"
    r"|^[ \t]{0,3}\S[^\n]*\n[ \t]{0,3}(?:=+|-{2,})[ \t]*$"
    r"|^[ \t]*(?:\*\*[^*\n]+\*\*|__[^_\n]+__):?[ \t]*$",
    re.M,
)
_EXCLAMATION = re.compile(r"[!！¡‼⁉]")
_FIRST_PERSON = re.compile(
    r"(?<![\w.])(?:I|i(?!\.)|[Mm]e|[Mm]y|[Mm]ine|[Mm]yself|[Ww]e|[Uu]s|[Oo]urs?|[Oo]urselves|WE|MY|ME|OUR)"
    r"(?!\w)"
)
_QUESTION = re.compile(r"[?？؟][\"'”’)\]*_]*(?=\s|$)|[？؟]")


def prose(text: str) -> str:
    """The text without fenced code blocks and code spans."""
    return _CODE_SPAN.sub(" ", FENCE.sub("\n", text))


def has_emoji(text: str) -> bool:
    """True when a character of the text is shown as an emoji."""
    return _EMOJI.search(text) is not None


def no_lists(config: object, text: str, conversation: Messages) -> CheckResult:
    """No list item outside of code."""
    return _none(_ITEM, prose(text), "list item")


def no_headings(config: object, text: str, conversation: Messages) -> CheckResult:
    """No heading outside of code."""
    return _none(_HEADING, prose(text), "heading")


def no_emoji(config: object, text: str, conversation: Messages) -> CheckResult:
    """No emoji."""
    return _none(_EMOJI, text, "emoji", plural="emoji")


def no_exclamation_marks(config: object, text: str, conversation: Messages) -> CheckResult:
    """No exclamation mark outside of code."""
    return _none(_EXCLAMATION, prose(text), "exclamation mark")


def no_first_person(config: object, text: str, conversation: Messages) -> CheckResult:
    """No English word of the first person outside of code."""
    return _none(
        _FIRST_PERSON, prose(text), "word in the first person", "words in the first person"
    )


def question(config: object, text: str, conversation: Messages) -> CheckResult:
    """A question outside of code."""
    return HOLDS if _QUESTION.search(prose(text)) else fails("The response asks no question.")


def _none(pattern: re.Pattern[str], text: str, noun: str, plural: str = "") -> CheckResult:
    matches = [match[0].strip() for match in pattern.finditer(text)]
    if not matches:
        return HOLDS
    head = f"1 {noun}" if len(matches) == 1 else f"{len(matches)} {plural or noun + 's'}"
    shown = matches[0].splitlines()[0][:40]
    return fails(f"The response has {head} ('{shown}'), but none is allowed.", len(matches))
