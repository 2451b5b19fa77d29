"""Votes, filters and selection by hand."""

import pytest

from pipeline.discover.votes import Tally, Vote, explained, luck, select, tally

APART = [f"conversation {number}" for number in range(20)]


def test_votes_are_counted_apart() -> None:
    """Of five votes 2 for, 1 against, 1 abstains, 1 unreadable: 2 of 3 right, 3 of 4 decide."""
    counted = tally([1, 1, -1, 0, None])
    assert counted == Tally(agree=2, against=1, abstain=1, invalid=1)
    assert counted.accuracy == pytest.approx(2 / 3) and counted.relevance == 0.75
    assert tally([0, None]).accuracy is None and tally([None]).relevance == 0.0


@pytest.mark.parametrize(
    ("votes", "holds"),
    [
        (Tally(2, 1, 0, 0), True),
        (Tally(1, 1, 0, 0), False),  # as many against
        (Tally(1, 0, 9, 0), True),  # decides a tenth
        (Tally(1, 0, 10, 0), False),  # decides less
        (Tally(2, 0, 0, 1), True),
        (Tally(2, 0, 0, 2), False),  # half could not be read
        (Tally(0, 0, 0, 0), False),
    ],
)
def test_filter(votes: Tally, holds: bool) -> None:
    assert votes.holds is holds


def test_pairs_that_no_principle_decides_count_half() -> None:
    """Sums of the pairs: 2, 0 (one each way), -1, 0 (nothing): 1, 0.5, 0, 0.5."""
    votes: dict[str, list[Vote]] = {"a": [1, 1, -1, None], "b": [1, -1, 0, 0]}
    assert explained(votes, ["a", "b"]) == [1.0, 0.5, 0.0, 0.5]
    assert explained(votes, []) == [0.5] * 4 and explained({}, []) == []


def test_selection_takes_what_adds_most_and_no_duplicates() -> None:
    """Explained of 4: `a` 3.0, `b` 2.5, `copy` 3.0 as `a`. After `a` (pairs 1 and 2), `b` makes the
    fourth pair right: 3.5. Then nothing adds any.
    """
    votes = {"b": [0, 0, 0, 1], "a": [1, 1, 0, 0], "copy": [1, 1, 0, 0], "bad": [-1, -1, 1, 0]}
    assert select(votes, 5) == ["a", "b"]
    assert sum(explained(votes, ["a", "b"])) == 3.5
    assert select(votes, 1) == ["a"]


def test_principle_against_the_labels_is_not_taken() -> None:
    assert select({"a": [-1, -1, 1]}, 3) == []
    assert select({}, 3) == []


def test_turned_labels_turn_votes_around() -> None:
    """A perfect rule on 20 pairs is matched by chance once in 2^20, a constant 0 always."""
    assert luck({"a": [1] * 20}, 3, APART, draws=99, seed=0) == 0.01
    assert luck({"a": [0] * 20}, 3, APART, draws=99, seed=0) == 1.0


def test_pairs_of_one_conversation_turn_together() -> None:
    """Twelve pairs of one conversation are one coin: every second random labeling is as good."""
    assert luck({"a": [1] * 12}, 3, ["p"] * 12, draws=99, seed=0) > 0.3


def test_many_candidates_can_explain_noise() -> None:
    """With 30 candidates of random votes on 10 pairs, most random labels are explained as well."""
    import random

    rng = random.Random(1)
    votes = {f"r{i}": [rng.choice((1, -1)) for _ in range(10)] for i in range(30)}
    assert luck(votes, 3, APART[:10], draws=50, seed=0) > 0.05
