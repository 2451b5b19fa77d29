"""The arithmetic of found principles: votes, filters, selection. Pure functions.

A vote is what a judge says under one principle about one labeled pair: 1 where it prefers the
chosen response in both orders, -1 the rejected one, 0 where the orders disagree, None where it
could not be read.

Inverse constitutional AI, Findeis et al. 2024 (arXiv:2406.06560), keeps principles by their votes
for and against, and merges likely duplicates by embeddings. Here a principle is added while it
explains more pairs together with those before it, which leaves duplicates out without a model.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Vote = int | None
Votes = Mapping[str, Sequence[Vote]]
"""By principle: a vote for each pair, in one order of the pairs."""

MIN_RELEVANCE = 0.1
"""Least share of readable votes that decide; fewer say little about the data."""


@dataclass(frozen=True)
class Tally:
    """The votes of one principle, counted."""

    agree: int
    against: int
    abstain: int
    invalid: int

    @property
    def accuracy(self) -> float | None:
        """Share of the deciding votes that agree with the labels; None without one."""
        deciding = self.agree + self.against
        return self.agree / deciding if deciding else None

    @property
    def relevance(self) -> float:
        """Share of the readable votes that decide, in [0, 1]; 0 without a readable one."""
        readable = self.agree + self.against + self.abstain
        return (self.agree + self.against) / readable if readable else 0.0

    @property
    def holds(self) -> bool:
        """Whether the principle can explain labels: more votes for than against, and enough that
        decide and that could be read.
        """
        readable = self.agree + self.against + self.abstain
        return (
            self.agree > self.against
            and self.relevance >= MIN_RELEVANCE
            and self.invalid < readable
        )


def tally(votes: Sequence[Vote]) -> Tally:
    """Count the votes of one principle."""
    return Tally(votes.count(1), votes.count(-1), votes.count(0), votes.count(None))


def explained(votes: Votes, names: Sequence[str]) -> list[float]:
    """Per pair 1.0 where most of the principles that decide agree with the label, 0.0 where most
    are against it, and 0.5 where they are even, as when none decides: a coin would be.
    """
    if not names:
        number = len(next(iter(votes.values()), ()))
        return [0.5] * number
    sums = [
        sum(vote or 0 for vote in pair) for pair in zip(*(votes[n] for n in names), strict=True)
    ]
    return [0.5 + 0.5 * ((total > 0) - (total < 0)) for total in sums]


def select(votes: Votes, most: int) -> list[str]:
    """At most `most` principles, each added because it explains the most pairs beyond those before;
    ends when none adds any. Of equals, the one with the larger surplus of votes, then the first.
    """
    open_to = {name: tally(v) for name, v in votes.items() if tally(v).holds}
    names: list[str] = []
    best = sum(explained(votes, names))
    while open_to and len(names) < most:
        gains = {name: sum(explained(votes, [*names, name])) for name in open_to}
        name = max(gains, key=lambda n: (gains[n], open_to[n].agree - open_to[n].against))
        if gains[name] <= best:
            break
        names.append(name)
        best = gains[name]
        del open_to[name]
    return names


def luck(votes: Votes, most: int, groups: Sequence[str], *, draws: int, seed: int) -> float:
    """The share of random labelings that `select` explains as well as the real one: how easily so
    many candidates would explain labels without any meaning. The real labeling counts as one.

    A label that is the other way round turns each vote about its pair around. The labels of one
    conversation turn together, since its pairs are alike.

    Args:
        groups: the conversation of each pair.
    """
    real = sum(explained(votes, select(votes, most)))
    rng, as_good = random.Random(seed), 1
    for _ in range(draws):
        sign = {group: rng.choice((1, -1)) for group in dict.fromkeys(groups)}
        signs = [sign[group] for group in groups]
        turned = {
            name: [None if v is None else v * s for v, s in zip(row, signs, strict=True)]
            for name, row in votes.items()
        }
        as_good += sum(explained(turned, select(turned, most))) >= real
    return as_good / (draws + 1)
