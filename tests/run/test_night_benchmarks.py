"""The figures of `benchmarks.nightly_cost` and `benchmarks.night_alarms`, by hand."""

import numpy as np
import pytest

from benchmarks.night_alarms import alarm_rates, explained
from benchmarks.nightly_cost import changed_ids, figures


def test_shares_of_nights() -> None:
    """Of 100 calls and 1,000 tokens: 5 and 60 for new prompts; the larger of two changes each."""
    paid = {"full": (100, 1000), "new": (5, 60), "a": (10, 160), "b": (12, 90)}
    line = figures(paid, 20)
    assert (line["new_calls_share"], line["new_tokens_share"]) == (0.05, 0.06)
    assert (line["changed_calls_share"], line["changed_tokens_share"]) == (0.12, 0.16)
    assert not line["met"] and figures({**paid, "a": (10, 150)}, 20)["met"]
    assert len(set(changed_ids())) == 3


def test_counts_that_chance_explains() -> None:
    """One of 1,000 has the probability 1 - 0.999^2 = 0.002 in 2 nights, and two of 2 10^-6."""
    assert explained(0, 2, 0.001) and explained(1, 2, 0.001) and not explained(2, 2, 0.001)


def test_simulated_nights_miss_as_many_as_stated() -> None:
    noticed, false, missed = alarm_rates(np.random.default_rng(1), 40, 7, 20)
    assert noticed == pytest.approx(0.62, abs=0.05) and false == 0 and missed <= 10
