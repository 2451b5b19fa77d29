"""Distinct pairs and near-duplicates against brute force and hand counts."""

import random
from itertools import combinations

from pipeline.audits.diversity import distinct_pairs, near_duplicates
from pipeline.audits.phrases import AuditedText, ngrams


def texts(*values: str) -> list[AuditedText]:
    return [AuditedText.of(f"p{i}", value) for i, value in enumerate(values)]


def test_distinct_pairs_of_one_segment() -> None:
    """a-b b-a a-b b-a a-c: 3 different of 5."""
    assert distinct_pairs(texts("a b a b a c"), 5) == 0.6


def test_distinct_pairs_ignore_the_size() -> None:
    once = texts(*[f"a{i} b{i} c{i} d{i} e{i} f{i}" for i in range(20)])
    many = once + [AuditedText.of(f"q{t.prompt_id}", t.text) for t in once] * 10
    assert distinct_pairs(once, 5) == distinct_pairs(many, 5) == 1.0
    assert distinct_pairs(once, 1000) is None


def test_near_duplicate_at_the_threshold() -> None:
    """Ten words give 8 runs; one other last word leaves 7 of 9 runs in common: 0.778."""
    sample = texts("a b c d e f g h i j", "a b c d e f g h i x", "k l m n o p")
    assert near_duplicates(sample, 7 / 9) == [0, 1]
    assert near_duplicates(sample, 0.8) == []


def test_samples_of_one_prompt_are_no_duplicates() -> None:
    sample = [AuditedText.of("p0", "a b c d"), AuditedText.of("p0", "a b c d")]
    assert near_duplicates(sample, 0.8) == []
    assert near_duplicates([*sample, AuditedText.of("p1", "A, b c d!")], 0.8) == [0, 1, 2]


def test_join_finds_what_brute_force_finds() -> None:
    """300 texts, many of them others with a few words changed; every pair compared."""
    rng = random.Random(0)
    values: list[str] = []
    for _ in range(300):
        if values and rng.random() < 0.5:
            words = rng.choice(values).split()
            for _ in range(rng.randrange(3)):
                words[rng.randrange(len(words))] = rng.choice("abcdefgh")
        else:
            words = rng.choices("abcdefgh", k=rng.randrange(1, 25))
        values.append(" ".join(words))
    sample = [AuditedText.of(f"p{i % 250}", value) for i, value in enumerate(values)]
    runs = [ngrams(t.words, 3) or {t.words} for t in sample]
    for likeness in (0.5, 0.8, 1.0):
        expected = {
            index for i, j in combinations(range(300), 2)
            if sample[i].prompt_id != sample[j].prompt_id
            and len(runs[i] & runs[j]) >= likeness * len(runs[i] | runs[j]) - 1e-9
            for index in (i, j)
        }
        assert near_duplicates(sample, likeness) == sorted(expected)
