"""Win rates at equal lengths, and the differences that can be found."""

import pytest

from pipeline.evaluation.length_control import length_controlled
from pipeline.stats import detectable
from tests.evaluation.builders import known


def test_without_any_difference_in_length_it_is_the_win_rate() -> None:
    """Six of eight: sigmoid(log 3) = .75."""
    even = known(length_controlled([[(float(i < 6), 0.0)] for i in range(8)]))
    assert even.share == pytest.approx(0.75) and even.n == 8
    assert even.low < 0.75 < even.high


def test_a_judge_that_counts_words_prefers_neither() -> None:
    """The longer reply wins 4 times in 5, and the policy writes it in 30 of 40: 24 + 2 wins are
    65 %. The log-odds are log 4 and -log 4 at opposite lengths, hence 0 in the middle.
    """
    longer, shorter = (
        [(1.0, 20.0)] * 24 + [(0.0, 20.0)] * 6,
        [(1.0, -20.0)] * 2 + [(0.0, -20.0)] * 8,
    )
    even = known(length_controlled([[pair] for pair in longer + shorter]))
    assert even.share == pytest.approx(0.5, abs=0.01) and even.low < 0.5 < even.high


def test_a_rule_of_length_alone_keeps_the_fit_finite() -> None:
    """Three longer ones win, one shorter loses: the residuals cancel at exp(2 a) = 3, or 63 %."""
    even = known(length_controlled([[(1.0, 2.0)]] * 300 + [[(0.0, -2.0)]] * 100))
    assert even.share == pytest.approx(0.634, abs=0.002)


def test_a_better_policy_stays_better() -> None:
    """It wins 3 of 4 whether its reply is longer or shorter by as much."""
    half = [(1.0, 10.0), (1.0, 10.0), (1.0, 10.0), (0.0, 10.0)]
    other = [(outcome, -words) for outcome, words in half]
    even = known(length_controlled([[pair] for pair in (half + other) * 5]))
    assert even.share == pytest.approx(0.75, abs=1e-6)


def test_prompts_are_the_unit() -> None:
    pairs = [(1.0, 3.0), (1.0, -3.0), (0.0, 3.0), (0.0, -3.0), (1.0, 0.0), (1.0, 1.0)]
    apart = known(length_controlled([[pair] for pair in pairs * 4]))
    together = known(length_controlled([pairs[:2] * 4, pairs[2:4] * 4, pairs[4:] * 4]))
    assert together.high - together.low > apart.high - apart.low


def test_lengths_that_do_not_overlap_say_nothing() -> None:
    """The policy is 20 words longer, give or take one, and wins 3 of 4: whether by its length, no
    comparison tells. Shorter replies that lose would.
    """
    longer = [[(float(i % 4 > 0), 20.0 + i % 3 - 1)] for i in range(40)]
    assert length_controlled(longer) is None
    assert length_controlled([[(o, -words)] for ((o, words),) in longer]) is None
    even = known(length_controlled([*longer, *[[(0.0, -20.0)]] * 4]))
    assert even.share < 0.5


def test_equal_outcomes_or_one_prompt_say_nothing() -> None:
    assert length_controlled([[(1.0, 3.0)], [(1.0, -2.0)]]) is None
    assert length_controlled([[(1.0, 3.0), (0.0, 1.0)]]) is None
    assert length_controlled([]) is None


def test_detectable_difference() -> None:
    """Standard error .05: an interval of 2 x 1.96 x .05 = .196; (1.96 + .8416) x .05 = .1401."""
    assert detectable(0.402, 0.598) == pytest.approx(0.1401, abs=1e-4)
