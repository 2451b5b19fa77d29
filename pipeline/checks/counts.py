"""Counts of a text: words, sentences, paragraphs, characters, and a reading grade. Pure.

Does not: find words in scripts without spaces, where a clause counts as one word.
"""

import re

_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_ITEM = re.compile(r"[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+")
# Only from the first mark of a run, and without a second try: a model may loop on periods.
_END = re.compile(r"""(?<![.!?…])[.!?…]++["'”’)\]*_]*+(?=\s|$)|[。！？]+["'”’」』）]*""")
_ABBREVIATION = re.compile(r"(?<!\w)(?:Mr|Mrs|Ms|Dr|Prof|St|No|Fig|[A-HJ-Z])\.$")
_GOES_ON = re.compile(r"\s+[a-z]")


def count_words(text: str) -> int:
    """Runs between white space that have a letter or a digit."""
    return sum(any(char.isalnum() for char in run) for run in text.split())


def count_characters(text: str) -> int:
    """Code points, without white space at the ends."""
    return len(text.strip())


def count_paragraphs(text: str) -> int:
    """Blocks of text between blank lines."""
    return sum(bool(block.strip()) for block in _PARAGRAPHS.split(text))


def count_sentences(text: str) -> int:
    """Sentences: ends such as `.`, `!`, `?`, and blocks or list items that stop without one.

    A period ends none before a small letter (`5 p.m. on Monday`), nor after `Dr.` or an initial.
    """
    return sum(map(_sentences, _blocks(text)))


def reading_grade(text: str) -> float:
    """Automated readability index, in US school years: 4.71 characters per word + 0.5 words per
    sentence - 21.43 (Smith and Senter 1967, AMRL-TR-66-220). 0 for a text without words.

    It needs no dictionary of syllables. Under about 100 words it varies with each word.
    """
    words, sentences = count_words(text), count_sentences(text)
    if not words or not sentences:
        return 0.0
    characters = sum(char.isalnum() for char in text)
    return 4.71 * characters / words + 0.5 * words / sentences - 21.43


def _blocks(text: str) -> list[str]:
    """Paragraphs and list items, each without its marker."""
    blocks = [""]
    for line in text.splitlines():
        if not line.strip() or (marker := _ITEM.match(line)):
            blocks.append(line[marker.end() :] if line.strip() and marker else "")
        else:
            blocks[-1] += f"\n{line}"
    return blocks


def _sentences(block: str) -> int:
    count = start = 0
    for end in _END.finditer(block):
        sentence = block[start : end.end()]
        more = any(char.isalnum() for char in block[end.end() :])
        inside = _ABBREVIATION.search(sentence) or (
            end[0] == "." and _GOES_ON.match(block, end.end())
        )
        if any(char.isalnum() for char in sentence) and not (more and inside):
            count, start = count + 1, end.end()
    return count + any(char.isalnum() for char in block[start:])
