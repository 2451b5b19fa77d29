"""What a request says, as far as word lists can tell. All pure, English only.

Does not: understand the text. A request can pass all of this and still be a bad one.
"""

import re
from collections.abc import Set

STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "doing",
        "each",
        "either",
        "every",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "itself",
        "may",
        "me",
        "might",
        "more",
        "most",
        "much",
        "my",
        "of",
        "on",
        "one",
        "only",
        "or",
        "other",
        "out",
        "please",
        "rather",
        "should",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "to",
        "too",
        "up",
        "very",
        "was",
        "way",
        "ways",
        "were",
        "what",
        "when",
        "where",
        "whether",
        "which",
        "while",
        "who",
        "whom",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)
"""Words that carry no quality."""

GENERIC_WORDS = frozenset(
    [
        "ai",
        "answer",
        "answers",
        "again",
        "alone",
        "another",
        "assistant",
        "change",
        "chatbot",
        "choose",
        "compare",
        "comment",
        "consider",
        "conversation",
        "critique",
        "criticize",
        "describe",
        "discuss",
        "evaluate",
        "explain",
        "feedback",
        "first",
        "following",
        "give",
        "good",
        "human",
        "identify",
        "improve",
        "improved",
        "improvement",
        "improvements",
        "judge",
        "last",
        "list",
        "look",
        "make",
        "message",
        "model",
        "name",
        "need",
        "nothing",
        "option",
        "options",
        "output",
        "part",
        "parts",
        "pick",
        "point",
        "prefer",
        "preferred",
        "previous",
        "prompt",
        "question",
        "quote",
        "rate",
        "read",
        "repeat",
        "replies",
        "reply",
        "request",
        "response",
        "responses",
        "revise",
        "revised",
        "revision",
        "rewrite",
        "rewritten",
        "review",
        "say",
        "says",
        "second",
        "select",
        "specific",
        "state",
        "text",
        "texts",
        "think",
        "turn",
        "two",
        "user",
        "version",
        "write",
        "written",
        "wrong",
        "better",
        "best",
        "worse",
        "fault",
        "faults",
        "problem",
        "problems",
    ]
)
"""Words of the exchange itself: `rewrite the response` says nothing about what to change."""

SELECTING = re.compile(r"\b(which|whose|choose|pick|select|prefer|better|who)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_BOTH_WAYS = re.compile(r"\b(more or less|better or worse|less or more|worse or better)\b", re.I)
_SECOND_QUESTION = re.compile(
    r"[,;]\s*(?:and|or)\s+(?:which|who|whose|is|are|does|do|has|have)\b", re.IGNORECASE
)


def words(text: str) -> list[str]:
    """Words in lower case; digits count, punctuation does not."""
    return [match.lower().replace("’", "'") for match in _WORD.findall(text)]


def content_words(text: str) -> set[str]:
    """Words that could name a quality: no stop words, no words of the exchange itself."""
    return {w for w in words(text) if w not in STOP_WORDS and w not in GENERIC_WORDS}


def names_a_quality(text: str) -> bool:
    """True when something is said beyond `rewrite the response` or `which response is better`."""
    return bool(content_words(text))


def names_a_direction(comparison: str) -> bool:
    """True when the comparison asks to select one response by a named quality.

    "Compare the responses for honesty." selects nothing, "Which response is better?" names no
    quality, and "more or less honest" points both ways.
    """
    return (
        SELECTING.search(comparison) is not None
        and names_a_quality(comparison)
        and _BOTH_WAYS.search(comparison) is None
    )


def count_questions(text: str) -> int:
    """Question marks, or parts such as `, and which ...` when there is at most one mark."""
    return max(text.count("?"), 1 + len(_SECOND_QUESTION.findall(text)) if "?" in text else 0)


def shingles(text: str, size: int = 2) -> frozenset[tuple[str, ...]]:
    """All runs of `size` words; the words themselves when there are fewer."""
    found = words(text)
    if len(found) < size:
        return frozenset({tuple(found)} if found else ())
    return frozenset(tuple(found[i : i + size]) for i in range(len(found) - size + 1))


def likeness(first: str, second: str) -> float:
    """How much two requests are alike, in [0, 1]: mean of two Jaccard indices (Jaccard 1912).

    Word pairs see the phrasing and content words the subject: "Which response is more honest?" and
    "Which response is more helpful?" share 3 of 5 pairs and no content word, so 0.3.
    """
    pairs = _jaccard(shingles(first), shingles(second))
    return (pairs + _jaccard(content_words(first), content_words(second))) / 2


def _jaccard(first: Set[object], second: Set[object]) -> float:
    union = len(first | second)
    return len(first & second) / union if union else 0.0
