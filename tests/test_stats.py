"""Shares and intervals against numbers derived by hand."""

import math

import numpy as np
import pytest

from pipeline.stats import (
    brier,
    calibration_error,
    cluster_bootstrap,
    clustered_share,
    cohen_kappa,
    effective_size,
    expanded_percentiles,
    generator,
    log_loss,
    paired_change,
    t95,
    wilson,
)


def test_wilson_of_eight_in_ten() -> None:
    """Z = 1.96: center (0.8 + 3.8416 / 20) / 1.38416 = 0.716738, half
    1.96 sqrt(0.016 + 3.8416 / 400) / 1.38416 = 0.226580, so 0.490158 to 0.943318.
    """
    assert wilson(8, 10, z=1.96) == pytest.approx((0.490158, 0.943318), abs=1e-5)


def test_wilson_is_honest_at_the_ends() -> None:
    """P = 1: center - half = 1 / (1 + z^2 / n), so 10 / 13.8416 = 0.722460 for n = 10."""
    assert wilson(10, 10, z=1.96) == pytest.approx((0.722460, 1.0), abs=1e-5)
    assert wilson(0, 10, z=1.96) == pytest.approx((0.0, 0.277540), abs=1e-5)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


def test_clustered_share_is_wilson_for_single_answers() -> None:
    estimate = clustered_share([1] * 8 + [0] * 2, [1] * 10)
    assert estimate is not None
    assert (estimate.low, estimate.high) == pytest.approx(wilson(8, 10))
    assert (estimate.share, estimate.n) == (0.8, 10)


def test_clustered_share_counts_copies_once() -> None:
    """Four equal answers per prompt tell what one tells: n^2 / sum c^2 = 1600 / 160 = 10 again."""
    estimate = clustered_share([4] * 8 + [0] * 2, [4] * 10)
    assert estimate is not None
    assert (estimate.low, estimate.high) == pytest.approx(wilson(8, 10))
    assert estimate.n == 40


def test_clustered_share_at_one_counts_prompts() -> None:
    estimate = clustered_share([4, 4, 4], [4, 4, 4])
    assert estimate is not None and estimate.low == pytest.approx(wilson(3, 3)[0])


def test_one_prompt_is_one_observation() -> None:
    """Half of its hundred labels: the residual 50 - 0.5 * 100 is 0, whatever other prompts do."""
    estimate = clustered_share([50], [100])
    assert estimate is not None and (estimate.low, estimate.high) == wilson(0.5, 1)
    assert estimate.n == 100


def test_effective_size_of_three_prompts() -> None:
    """S = 3, 2, 1 of 4 each: p = 1/2, residuals 1, 0, -1, so deff = 3/2 * 2 / (12 / 4) = 1, and 12
    (t11 / t2)^2 = 12 (2.200985 / 4.302653)^2 = 3.1401. s = 4, 2, 0: deff = 3/2 * 8 / 3 = 4 leaves
    less than the three prompts that there are.
    """
    assert effective_size([3, 2, 1], [4, 4, 4]) == pytest.approx(3.1401, abs=1e-4)
    assert effective_size([4, 2, 0], [4, 4, 4]) == 3.0


def test_unequal_prompts_are_fewer() -> None:
    """Kish: (6 + 1 + 1)^2 / (36 + 1 + 1) = 64 / 38."""
    assert effective_size([6, 1, 1], [6, 1, 1]) == pytest.approx(64 / 38)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.70620), (2, 4.30265), (5, 2.57058), (9, 2.26216), (29, 2.04523), (1000, 1.96234)],
)
def test_t_quantile_is_that_of_the_tables(degrees: int, quantile: float) -> None:
    assert t95(degrees) == pytest.approx(quantile, abs=5e-6)


@pytest.mark.parametrize("num_prompts", [1, 2, 3, 5, 40])
def test_few_prompts_cover_the_truth(num_prompts: int) -> None:
    """Prompts whose own share is anywhere between 0 and 1: 95 % must hold the common one, 0.5, for
    few prompts too.
    """
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        won = rng.binomial(20, rng.beta(2, 2, size=num_prompts))
        estimate = clustered_share(won, np.full(num_prompts, 20))
        assert estimate is not None
        held += estimate.low <= 0.5 <= estimate.high
    assert held / 400 >= 0.925


def test_nothing_counted_gives_no_share() -> None:
    assert clustered_share([], []) is None
    assert cluster_bootstrap([0.0], [0.0], draws=100, seed=0) is None
    assert paired_change(([1], [1]), ([0], [0]), draws=100, seed=0) is None


def test_bootstrap_of_two_prompts() -> None:
    """Means of two draws from {0, 1}: 0 and 1 each with probability 1/4: both ends are reached."""
    estimate = cluster_bootstrap([0, 1], [1, 1], draws=1000, seed=3)
    assert estimate is not None
    assert (estimate.share, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def test_bootstrap_mean_weighs_observations() -> None:
    """Prompt one won 3 of 3, prompt two 0 of 1: 3 / 4."""
    estimate = cluster_bootstrap([3, 0], [3, 1], draws=200, seed=3)
    assert estimate is not None and estimate.share == 0.75


def test_bootstrap_width_is_that_of_the_mean() -> None:
    """1000 prompts, half won: standard error sqrt(0.25 / 1000) = 0.015811, x 1.96 = 0.030990."""
    estimate = cluster_bootstrap([1, 0] * 500, [1] * 1000, draws=4000, seed=1)
    assert estimate is not None
    assert (estimate.high - estimate.low) / 2 == pytest.approx(0.030990, rel=0.06)


def test_bootstrap_ignores_copies_within_a_prompt() -> None:
    single = cluster_bootstrap([1, 0] * 50, [1] * 100, draws=2000, seed=1)
    copied = cluster_bootstrap([8, 0] * 50, [8] * 100, draws=2000, seed=1)
    assert single is not None and copied is not None
    assert (single.low, single.high) == (copied.low, copied.high)


def test_percentiles_of_few_prompts() -> None:
    """M = 10: sqrt(10 / 9) 2.262157 = 2.384523, and Phi(-2.3845) = 0.855 % of a normal table."""
    assert expanded_percentiles(10) == pytest.approx((0.855, 99.145), abs=5e-4)
    assert expanded_percentiles(10**6) == pytest.approx((2.5, 97.5), abs=1e-3)


def test_bootstrap_of_five_prompts_covers_the_truth() -> None:
    """Means of five prompts that lie anywhere between 0 and 1."""
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(300):
        estimate = cluster_bootstrap(rng.beta(2, 3, size=5), np.ones(5), draws=500, seed=seed)
        assert estimate is not None
        held += estimate.low <= 0.4 <= estimate.high
    assert held / 300 >= 0.9


def test_bootstrap_repeats_by_seed() -> None:
    values = np.random.default_rng(0).random(60)
    first, again, other = (
        cluster_bootstrap(values, np.ones(60), draws=300, seed=s) for s in (5, 5, 6)
    )
    assert first == again != other


def test_bootstrap_without_spread_uses_wilson() -> None:
    estimate = cluster_bootstrap([1] * 10, [1] * 10, draws=100, seed=0)
    assert estimate is not None and estimate.low == pytest.approx(wilson(10, 10)[0])


def test_bootstrap_without_spread_knows_the_greatest_value() -> None:
    """Always 0.5 of at most 0.5: half of Wilson's 20 / (20 + z^2) = 0.839."""
    estimate = cluster_bootstrap([0.5] * 20, [1] * 20, draws=100, seed=0, most=0.5)
    assert estimate is not None
    assert (estimate.share, estimate.high) == (0.5, 0.5) and estimate.low == pytest.approx(
        0.4194, abs=1e-3
    )


def test_paired_change_removes_prompt_differences() -> None:
    """Half of the prompts gain 0.5, half 0.4: no draw leaves 0.40 to 0.50; levels differ more."""
    before = ([0, 10] * 20, [20] * 40)
    after = ([10, 18] * 20, [20] * 40)
    change = paired_change(before, after, draws=500, seed=0)
    assert change is not None
    assert change.share == pytest.approx(0.45) and change.n == 40
    assert 0.40 <= change.low < change.high <= 0.50


def test_paired_change_without_spread_is_newcombe() -> None:
    """Ten prompts from 0 to 1: Wilson gives 0 to 0.277533 and 0.722467 to 1 (z = 1.959964), so
    low = 1 - sqrt(0.277533^2 + 0.277533^2) = 0.607509; high is 1.
    """
    change = paired_change(([0] * 10, [1] * 10), ([1] * 10, [1] * 10), draws=100, seed=0)
    assert change is not None
    found = (change.share, change.low, change.high)
    assert found == pytest.approx((1.0, 0.607509, 1.0), abs=1e-5)


def test_unchanged_share_is_not_certain() -> None:
    change = paired_change(([0] * 10, [1] * 10), ([0] * 10, [1] * 10), draws=100, seed=0)
    assert change is not None and change.low < 0 == change.share < change.high


def test_paired_change_of_lengths_may_be_constant() -> None:
    change = paired_change(([5] * 4, [1] * 4), ([7] * 4, [1] * 4), draws=100, seed=0)
    assert change is not None and (change.share, change.low, change.high) == (2.0, 2.0, 2.0)


def test_paired_change_leaves_out_single_prompts() -> None:
    change = paired_change(([0, 1], [1, 1]), ([1, 0], [1, 0]), draws=100, seed=0)
    assert change is not None and (change.share, change.n) == (1.0, 1)


def test_brier_of_even_odds() -> None:
    assert brier([0.5, 0.5], [1, 0]) == 0.25
    assert brier([1.0, 0.8], [1, 1]) == pytest.approx(0.02)


def test_log_loss_by_hand() -> None:
    """-ln 0.8, -ln 0.75 and -ln 0.5, by truth."""
    expected = -(math.log(0.8) + math.log(0.75) + math.log(0.5)) / 3
    assert log_loss([0.8, 0.25, 0.5], [1, 0, 1]) == pytest.approx(expected)
    assert log_loss([1.0], [0]) == pytest.approx(30.0)
    with pytest.raises(ValueError, match="equally many"):
        log_loss([], [])


def test_calibration_error_by_hand() -> None:
    """Bins {0.2, 0.2} with outcomes 0, 1 and {0.9, 0.9} with 1, 1: (|1 - 0.4| + |2 - 1.8|) / 4 =
    0.2.
    """
    assert calibration_error([0.9, 0.2, 0.9, 0.2], [1, 0, 1, 1], num_bins=2) == pytest.approx(0.2)


def test_kappa_by_hand() -> None:
    """Observed 3/4, expected (2 * 3 + 2 * 1) / 16 = 1/2, so (3/4 - 1/2) / (1/2) = 1/2."""
    assert cohen_kappa("AABB", "AAAB") == pytest.approx(0.5)
    assert cohen_kappa("ABAB", "ABAB") == 1.0
    assert math.isnan(cohen_kappa("AA", "AA"))


def test_kappa_needs_equally_many_labels() -> None:
    with pytest.raises(ValueError, match="equally many"):
        cohen_kappa("A", "AB")


@pytest.mark.parametrize("seed", [-1, -(10**30), 10**30])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    assert generator(seed).random() == generator(seed).random() != generator(seed + 1).random()
