"""Follow-ups: files, duplicates, and the reward against tables worked out by hand."""

import math
from pathlib import Path

import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import ConfigError
from pipeline.labeling.follow_up_sets import (
    FollowUpCategory,
    FollowUpSet,
    category_values,
    follow_up_reward,
    load_follow_ups,
    mean_logprob,
)

FILES = sorted((PROJECT_ROOT / "prompts" / "follow_ups").glob("*.yaml"))
TOY = FollowUpSet(
    name="toy",
    categories=(
        FollowUpCategory(id="one", positive=("good one", "fine"), negative=("bad",)),
        FollowUpCategory(id="two", positive=("yes",), negative=("no no no",)),
    ),
)
TABLE = {
    "good one": (-2.0, 2),
    "fine": (-3.0, 1),
    "bad": (-4.0, 1),
    "yes": (-1.0, 1),
    "no no no": (-1.5, 3),
}
"""Sum of log-probabilities and number of tokens of each follow-up in one context."""


def likelihoods(shift_per_token: float = 0.0) -> list[float]:
    """L of each follow-up, with a constant added to the log-probability of every token."""
    return [
        mean_logprob(total + shift_per_token * tokens, tokens)
        for total, tokens in (TABLE[sentence] for sentence in TOY.sentences)
    ]


def sums(shift_per_token: float = 0.0) -> list[float]:
    """The reward without dividing by the number of tokens: what must not be done."""
    return [
        total + shift_per_token * tokens
        for total, tokens in (TABLE[sentence] for sentence in TOY.sentences)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_file_loads(path: Path) -> None:
    assert load_follow_ups(path).num_repeated == 0


def test_helpfulness_has_six_categories_of_ten() -> None:
    found = load_follow_ups(PROJECT_ROOT / "prompts/follow_ups/helpfulness.yaml")
    assert [category.id for category in found.categories] == [
        "understanding",
        "relevance",
        "correctness",
        "engagingness",
        "informativeness",
        "following",
    ]
    assert all(len(c.positive) == len(c.negative) == 10 for c in found.categories)


def test_reward_by_hand() -> None:
    """L: -1, -3 against -4 gives (-2) - (-4) = 2; -1 against -0.5 gives -0.5; the mean is 0.75."""
    values = category_values(TOY, likelihoods())
    assert values == pytest.approx((2.0, -0.5))
    assert follow_up_reward(values) == pytest.approx(0.75)


def test_constant_of_a_context_cancels() -> None:
    """A context in which every token is 0.7 nats likelier says nothing about the response."""
    assert category_values(TOY, likelihoods(0.7)) == pytest.approx(
        category_values(TOY, likelihoods())
    )


def test_sums_would_let_a_constant_in() -> None:
    """One: 1.5 tokens of positives against 1; two: 1 against 3, so -1 nat a token gives -0.5 and
    +2.
    """
    before, after = category_values(TOY, sums()), category_values(TOY, sums(-1.0))
    assert [a - b for a, b in zip(after, before, strict=True)] == pytest.approx([-0.5, 2.0])


def test_sums_would_prefer_short_follow_ups() -> None:
    """Each token costs 1 nat: means tie, and a sum calls the longer list the less likely one."""
    both = FollowUpSet(
        name="n",
        categories=(FollowUpCategory(id="c", positive=("very good indeed",), negative=("bad",)),),
    )
    assert category_values(both, [mean_logprob(-3.0, 3), mean_logprob(-1.0, 1)]) == (0.0,)
    assert category_values(both, [-3.0, -1.0]) == (-2.0,)


def test_repeats_are_kept_or_removed_and_counted() -> None:
    twice = FollowUpSet(
        name="n", categories=(FollowUpCategory(id="c", positive=("a", "b", "a"), negative=("c",)),)
    )
    once = twice.without_repeats()
    assert (twice.num_repeated, once.num_repeated) == (1, 0)
    assert once.sentences == ("a", "b", "c") and twice.hash != once.hash


def test_faults_of_a_file_are_named(tmp_path: Path) -> None:
    cases = {
        "[{id: a, positive: [x], negative: [x]}]": "'x' is positive and negative",
        "[{id: a, positive: [x], negative: [' ']}]": "a follow-up is empty",
        f"[{', '.join(['{id: a, positive: [x], negative: [y]}'] * 2)}]": (
            "two categories have the id 'a'"
        ),
        "[{id: a, positive: [], negative: [y]}]": "line 2: 'categories.0.positive'",
    }
    for number, (categories, message) in enumerate(cases.items()):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"name: n\ncategories: {categories}\n")
        with pytest.raises(ConfigError, match=message):
            load_follow_ups(path)


def test_counts_must_fit() -> None:
    with pytest.raises(ValueError, match="2 likelihoods for 5 follow-ups"):
        category_values(TOY, [0.0, 0.0])
    assert math.isnan(mean_logprob(0.0, 0)), "a text without tokens has no mean"
