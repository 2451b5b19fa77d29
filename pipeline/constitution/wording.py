"""What a request asks for, as far as word lists can tell. Pure functions, English only.

Does not: understand the text. A request can pass every check here and still be a bad one.
"""

import re
from collections.abc import Set
from functools import cache
from pathlib import Path

import yaml

_SELECTING = re.compile(r"\b(which|whose|choose|pick|select|prefer|better|who)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_BOTH_WAYS = re.compile(r"\b(more or less|better or worse|less or more|worse or better)\b", re.I)
_SECOND_QUESTION = re.compile(
    r"[,;]\s*(?:and|or)\s+(?:which|who|whose|is|are|does|do|has|have)\b", re.IGNORECASE
)


def words(text: str) -> list[str]:
    """Words in lower case; digits count, punctuation does not."""
    return [match.lower().replace("’", "'") for match in _WORD.findall(text)]


def content_words(text: str) -> set[str]:
    """Words that could name a quality: neither function words nor words of the exchange itself."""
    return set(words(text)) - _empty_words()


def names_a_direction(comparison: str) -> bool:
    """Whether a comparison request asks to select one response by a named quality.

    "Compare the responses for honesty." selects nothing, "Which response is better?" names no
    quality, and "more or less honest" points both ways.
    """
    selects = _SELECTING.search(comparison) and not _BOTH_WAYS.search(comparison)
    return bool(selects and content_words(comparison))


def count_questions(text: str) -> int:
    """Question marks, or parts such as `, and which ...` when there is at most one mark."""
    return max(text.count("?"), 1 + len(_SECOND_QUESTION.findall(text)) if "?" in text else 0)


def shingles(text: str, size: int = 2) -> frozenset[tuple[str, ...]]:
    """All runs of `size` words; the words themselves when there are fewer."""
    sequence = words(text)
    starts = range(max(1, len(sequence) - size + 1)) if sequence else ()
    return frozenset(tuple(sequence[i : i + size]) for i in starts)


def likeness(first: str, second: str) -> float:
    """Similarity of two requests, in [0, 1]: the mean of two Jaccard indices (Jaccard 1912).

    Word pairs capture the phrasing and content words the subject: "Which response is more
    honest?" and "Which response is more helpful?" share 3 of 5 pairs and no content word, so 0.3.
    """
    phrasing = jaccard(shingles(first), shingles(second))
    return (phrasing + jaccard(content_words(first), content_words(second))) / 2


def jaccard(first: Set[object], second: Set[object]) -> float:
    """Size of the intersection over size of the union, in [0, 1]; 0 for two empty sets."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0


@cache
def _empty_words() -> frozenset[str]:
    """Words that name no quality, from `words.yaml`."""
    text = Path(__file__).with_name("words.yaml").read_text(encoding="utf-8")
    return frozenset(" ".join(yaml.safe_load(text).values()).split())
