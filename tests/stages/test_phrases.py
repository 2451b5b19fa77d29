"""Phrases, endings and loops, counted by hand."""

import math

import pytest

from pipeline.stages.phrases import (
    AuditedText,
    Phrase,
    common_phrases,
    contains_phrase,
    has_loop,
    phrase_counts,
    split_words,
    tail_entropy,
)


def texts(*values: str) -> list[AuditedText]:
    return [AuditedText.of(f"p{i}", value) for i, value in enumerate(values)]


def test_words_fold_case_and_marks() -> None:
    assert split_words("It’s 3 o'clock -- REALLY! \U0001f600") == ("it's", "3", "o'clock", "really")


def test_phrase_counts_once_per_prompt() -> None:
    """`a b c` stands under p0 (twice, in two samples) and p1: 2 prompts."""
    sample = [
        AuditedText.of("p0", "a b c a b c"),
        AuditedText.of("p0", "a b c"),
        AuditedText.of("p1", "x a b c"),
    ]
    assert common_phrases(sample, 3, top=1) == [Phrase(("a", "b", "c"), 2)]


def test_moved_phrase_is_not_listed_again() -> None:
    sample = texts("a b c d e f", "a b c d e f", "u v w x y z")
    assert [str(p) for p in common_phrases(sample, 5)] == ["a b c d e", "u v w x y"]


def test_window_sees_the_end_only() -> None:
    sample = texts("same start here then other one", "same start here then more two")
    assert common_phrases(sample, 3, window=4)[0].num_prompts == 1
    assert common_phrases(sample, 3)[0].num_prompts == 2


def test_tail_entropy_of_known_shares() -> None:
    """Four endings, two of them equal: (1/2 ln 2 + 2 x 1/4 ln 4) / ln 4 = 0.75."""
    sample = texts("x same end", "y same end", "b c", "d e")
    assert tail_entropy(sample, 2) == pytest.approx(0.75)
    assert tail_entropy(texts("a", "a", "a"), 8) == 0.0
    assert tail_entropy(texts("a", "b", "c"), 8) == pytest.approx(1.0)


def test_tail_entropy_follows_its_formula() -> None:
    """Share f = 0.2 of 100: 1 - f + f ln(1/f) / ln n = 0.8 + 0.2 x 1.6094 / 4.6052 = 0.8699."""
    sample = texts(*["the end"] * 20, *[f"end {i}" for i in range(80)])
    assert tail_entropy(sample, 2) == pytest.approx(0.8 + 0.2 * math.log(5) / math.log(100))


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("no " * 8, True),
        ("no " * 7, False),
        ("a b " * 4, True),
        ("a b " * 3 + "a", False),
        ("one two three four five six seven eight " * 4, True),
        ("one two three four five six seven eight nine " * 4, False),
        ("start " + "very " * 9 + "end", True),
        ("ha ha ha ha", False),
        ("", False),
        ("a b c d e f g h i j k l", False),
    ],
)
def test_loops_need_four_rounds(text: str, loops: bool) -> None:
    assert has_loop(split_words(text)) == loops


def test_stock_phrases_are_whole_words() -> None:
    sample = texts("I hope this helps!", "I hope this helped.", "Hope, this: HELPS")
    assert phrase_counts(sample, ("hope this helps", "never")) == {"hope this helps": 2}
    assert not contains_phrase(sample[1], ("hope this helps",))
