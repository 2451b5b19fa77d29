"""Repeated phrases: closings, n-grams, stock phrases, loops. All pure.

Texts are compared by their words in lower case, without punctuation. A phrase counts once per
prompt, so several samples of one prompt are one piece of evidence.

Does not: find word borders in scripts without spaces, where a whole clause is one word.
"""

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pipeline.config.audits import REFUSALS

Words = tuple[str, ...]

LOOP_TIMES = 4
"""Times that a block of words must follow itself to be a loop."""
LOOP_WORDS = 8
"""Least words of a whole loop, and most words of its block."""

EVASIVE_WORDS = 25
"""A refusal with fewer words than this is evasive."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class AuditedText:
    """A text under its prompt, with its words."""

    prompt_id: str
    text: str
    words: Words

    @classmethod
    def of(cls, prompt_id: str, text: str) -> "AuditedText":
        """The text with its words."""
        return cls(prompt_id, text, split_words(text))


@dataclass(frozen=True)
class Phrase:
    """A phrase and the number of prompts whose texts have it."""

    words: Words
    num_prompts: int

    def __str__(self) -> str:
        return " ".join(self.words)


def split_words(text: str) -> Words:
    """Words in lower case; digits count, punctuation and emojis do not."""
    return tuple(match.replace("’", "'") for match in _WORD.findall(text.lower()))


def ngrams(words: Sequence[str], size: int) -> set[Words]:
    """All runs of `size` words."""
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def common_phrases(
    texts: Iterable[AuditedText], size: int, *, window: int | None = None, top: int = 3
) -> list[Phrase]:
    """Most common phrases by number of prompts, at most `top`, ties in alphabetical order.

    Args:
        window: number of last words to search; None for the whole text.

    A phrase that shares half of its words in a row with one before it in the list is left out: it
    is that phrase, shifted by a word or two.
    """
    by_prompt: dict[str, set[Words]] = defaultdict(set)
    for text in texts:
        words = text.words if window is None else text.words[-window:]
        by_prompt[text.prompt_id] |= ngrams(words, size)
    counts = Counter(phrase for phrases in by_prompt.values() for phrase in phrases)
    ranked = [(-count, phrase) for phrase, count in counts.items()]
    heapq.heapify(ranked)
    half = max(1, size // 2)
    phrases: list[Phrase] = []
    while ranked and len(phrases) < top:
        count, phrase = heapq.heappop(ranked)
        if not any(ngrams(phrase, half) & ngrams(other.words, half) for other in phrases):
            phrases.append(Phrase(phrase, -count))
    return phrases


def tail_entropy(texts: Sequence[AuditedText], size: int) -> float:
    """Entropy of the last `size` words over ln n, in [0, 1]; 1 when all endings differ.

    With a share f of one ending and else different ones: 1 - f + f ln(1/f) / ln n.
    Needs at least two texts.
    """
    counts = Counter(text.words[-size:] for text in texts)
    n = len(texts)
    entropy = -sum(count / n * math.log(count / n) for count in counts.values())
    return max(0.0, entropy / math.log(n))


def phrase_counts(texts: Iterable[AuditedText], phrases: tuple[str, ...]) -> Mapping[str, int]:
    """Texts that contain each phrase, most frequent first, phrases of no text left out."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_contained(text, phrases))
    return dict(counts.most_common())


def contains_phrase(text: AuditedText, phrases: tuple[str, ...]) -> bool:
    """True when the text has one of the phrases, as whole words."""
    return next(_contained(text, phrases), None) is not None


def _contained(text: AuditedText, phrases: tuple[str, ...]) -> Iterator[str]:
    joined = f" {' '.join(text.words)} "
    return (phrase for phrase, form in _forms(phrases) if form in joined)


@cache
def _forms(phrases: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Each phrase with its words between spaces, as texts are searched for it."""
    return tuple((phrase, f" {' '.join(split_words(phrase))} ") for phrase in phrases)


def has_loop(words: Words) -> bool:
    """True when a block of 1 to 8 words comes 4 times in a row or more, with 8 words in all."""
    for size in range(1, LOOP_WORDS + 1):
        needed = max(LOOP_TIMES * size, LOOP_WORDS) - size
        run = 0
        # A block repeats where each word equals the one `size` words before, for long enough.
        for position in range(size, len(words)):
            run = run + 1 if words[position] == words[position - size] else 0
            if run >= needed:
                return True
    return False


def is_evasive(text: AuditedText, refusals: tuple[str, ...] = REFUSALS) -> bool:
    """Whether a text has a refusal word and fewer than 25 words: crude, but it separates well.

    On published samples to 40 prompts, a rule of this kind fires on 31 % of the answers of a policy
    known to be evasive and on none of those of CAI policies (Bai et al. 2022, released samples).
    """
    return len(text.words) < EVASIVE_WORDS and contains_phrase(text, refusals)
