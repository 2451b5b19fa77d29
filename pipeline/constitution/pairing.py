"""Join two published lists that do not correspond: critiques with revisions, and comparisons.

The paper has two lists of 16 rules with no relation between their entries; ours has one. As a
principle is drawn anew and uniformly for each critique and for each label, any pairing that uses
every entry of both lists equally often draws exactly as published: the pairing decides only which
texts share an id in the reports. So the entries with the most content words in common are joined.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.constitution.wording import content_words


@dataclass(frozen=True)
class Pairing:
    """Which critique goes with which comparison, by index."""

    pairs: tuple[tuple[int, int], ...]
    num_critiques: int
    num_comparisons: int

    @property
    def draws_as_published(self) -> bool:
        """True when every entry of each list is used equally often."""
        critiques = Counter(c for c, _ in self.pairs)
        comparisons = Counter(j for _, j in self.pairs)
        return len(set(critiques.values())) == 1 == len(set(comparisons.values()))

    def notes(self) -> list[str]:
        """What a reader of the result must know."""
        notes = [
            f"{self.num_critiques} critiques and {self.num_comparisons} comparisons are separate "
            "lists in the source; they were joined by common words, so an id in a report names two "
            "rules"
        ]
        if self.draws_as_published:
            notes.append("each entry is used equally often: draws are as published")
        else:
            notes.append(
                "the lists differ in length, so entries of the shorter one are used more than once "
                "and not equally often: draws are not exactly as published"
            )
        return notes


def pair_comparisons(critiques: Sequence[str], comparisons: Sequence[str]) -> Pairing:
    """Each entry of the longer list once, with the least used entry of the other that is most alike.

    Greedy by content words in common (Jaccard), ties by order in the files: deterministic.
    """
    swapped = len(comparisons) > len(critiques)
    longer, shorter = (comparisons, critiques) if swapped else (critiques, comparisons)
    words_long, words_short = ([content_words(t) for t in texts] for texts in (longer, shorter))
    alike = sorted(
        (
            (-_jaccard(a, b), i, j)
            for i, a in enumerate(words_long)
            for j, b in enumerate(words_short)
        )
    )
    partner: dict[int, int] = {}
    while len(partner) < len(longer):
        # One round uses every entry of the shorter list at most once.
        used: set[int] = set()
        for _, i, j in alike:
            if i not in partner and j not in used:
                partner[i] = j
                used.add(j)
    found = sorted(partner.items())
    pairs = sorted((j, i) for i, j in found) if swapped else found
    return Pairing(tuple(pairs), len(critiques), len(comparisons))


def _jaccard(first: set[str], second: set[str]) -> float:
    union = len(first | second)
    return len(first & second) / union if union else 0.0
