"""Shares, win rates, and their 95 % intervals. All pure: numbers in, numbers out.

The prompt is the unit of resampling: several responses to one prompt are not independent evidence,
so every interval here is clustered by prompt (Miller 2024, arXiv:2411.00640). Everything random
takes a seed.

Does not: correct for looking at many measures at once, or for prompts that resemble each other.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.ids import derive_seed
from pipeline.soft_labels import margin

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
Z80 = 0.8416212335729143
"""The 80 % point of the normal distribution."""
PERCENTILES = (2.5, 97.5)
_CELLS = 4_000_000
"""Numbers that a bootstrap holds in memory at once (32 MB)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share (or a change of one) with its 95 % interval."""

    share: float
    low: float
    high: float
    n: int
    """Observations, not prompts; of a change, the prompts that both sides have."""


def detectable(low: float, high: float) -> float:
    """The smallest true difference that a study with this 95 % interval finds in 80 % of its
    repetitions: (z_.975 + z_.8) standard errors, where the interval is 2 z_.975 of them.
    """
    return (Z95 + Z80) / (2 * Z95) * (high - low)


@dataclass
class Tally:
    """One measure: the sum of its values and their number per cluster, such as a prompt."""

    sums: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, values: Sequence[float]) -> None:
        """Append one cluster."""
        self.sums.append(sum(values))
        self.counts.append(len(values))

    @property
    def num_clusters(self) -> int:
        """Clusters with at least one observation."""
        return sum(count > 0 for count in self.counts)

    def mean(self) -> float | None:
        """Mean over all observations; None without any."""
        return sum(self.sums) / sum(self.counts) if any(self.counts) else None

    def share(self) -> Estimate | None:
        """Mean of values in [0, 1] with a Wilson interval; see `clustered_share`."""
        return clustered_share(self.sums, self.counts)

    def bootstrap(self, *, draws: int, seed: int, most: float = 1.0) -> Estimate | None:
        """Mean of values in [0, `most`] with a bootstrap interval; see `cluster_bootstrap`."""
        return cluster_bootstrap(self.sums, self.counts, draws=draws, seed=seed, most=most)


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), in [0, 1]; holds at 0 and 1 too.

    center = (p + z^2 / 2n) / (1 + z^2 / n)
    half   = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n)

    `n` may be an effective sample size, hence not whole. Raises ValueError unless 0 < n and
    0 <= successes <= n.
    """
    if not n > 0 or not -1e-9 <= successes <= n + 1e-9:
        raise ValueError(f"{successes} successes of {n}: need 0 <= successes <= n and n > 0")
    p = min(1.0, max(0.0, successes / n))
    scale = 1.0 + z * z / n
    center = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return max(0.0, min(p, center - half)), min(1.0, max(p, center + half))


def clustered_share(sums: ArrayLike, counts: ArrayLike) -> Estimate | None:
    """Share over all observations with Wilson's interval of `effective_size`; None without any.

    Args:
        sums: successes per prompt.
        counts: observations per prompt.
    """
    s, c = _with_counts(sums, counts)
    if len(s) == 0:
        return None
    n = float(c.sum())
    p = float(s.sum()) / n
    effective = effective_size(s, c)
    low, high = wilson(p * effective, effective)
    return Estimate(p, low, high, round(n))


def effective_size(sums: ArrayLike, counts: ArrayLike) -> float:
    """Number of independent observations worth as much as these clustered ones.

    n_eff = n / deff * (t[n-1] / t[m-1])^2, Korn and Graubard 1998 (from memory), for n observations
    of m prompts, where

        deff = m / (m-1) * sum_i (s_i - p c_i)^2 / (n p (1-p)), and at least 1

    is the variance of the ratio by linearization over that of independent observations (Kish 1965),
    and the t-quantiles account for estimating it from m prompts. Never less than n^2 / sum_i c_i^2,
    the size when all observations of a prompt are equal. So n_eff is 1 for a single prompt, n with
    one observation per prompt, and m for prompts of equal size at p of 0 or 1.
    """
    s, c = _with_counts(sums, counts)
    n, m = float(c.sum()), len(s)
    least = n * n / float((c * c).sum())
    p = float(s.sum()) / n
    spread = p * (1 - p) * n
    if m == 1 or spread < 1e-12:
        return least
    deff = max(1.0, m / (m - 1) * float(((s - p * c) ** 2).sum()) / spread)
    return max(least, n / deff * (t95(round(n) - 1) / t95(m - 1)) ** 2)


def t95(degrees: int) -> float:
    """The 97.5 % point of Student's t with this many degrees of freedom."""
    from scipy.special import stdtrit  # loaded here: a light import of the pipeline has no SciPy

    return float(stdtrit(degrees, 0.975))


def cluster_bootstrap(
    sums: ArrayLike, counts: ArrayLike, *, draws: int, seed: int, most: float = 1.0
) -> Estimate | None:
    """Mean over all observations with a percentile interval, prompts drawn with replacement.

    Args:
        sums: sum of values in [0, most] per prompt.
        counts: observations per prompt.

    Efron and Tibshirani 1993, chapter 13, with `expanded_percentiles` for few prompts; below five
    prompts the interval is still too narrow, as no draw leaves their range. When every prompt has
    the same mean, resampling shows no spread, and Wilson's interval of as many prompts is used.
    None without any prompt.
    """
    s, c = _with_counts(sums, counts)
    if len(s) == 0:
        return None
    mean = float(s.sum() / c.sum())
    if float(np.ptp(s / c)) < 1e-12:
        low, high = wilson(mean / most * len(s), len(s))
        return Estimate(mean, low * most, high * most, round(float(c.sum())))
    totals = _resampled(np.stack([s, c], axis=1), draws, seed)
    low, high = np.percentile(totals[:, 0] / totals[:, 1], expanded_percentiles(len(s)))
    return Estimate(mean, float(low), float(high), round(float(c.sum())))


def expanded_percentiles(num_prompts: int) -> tuple[float, float]:
    """Percentiles that make a bootstrap of m >= 2 prompts as wide as a t-interval.

    The lower one is 100 Phi(-sqrt(m / (m-1)) t[m-1]): resampling m prompts shows (m-1) / m of their
    variance, and normal tails are too thin (Hesterberg 2015, arXiv:1411.5279, from memory). They
    approach 2.5 and 97.5 as m grows.
    """
    from scipy.special import ndtr

    reach = math.sqrt(num_prompts / (num_prompts - 1)) * t95(num_prompts - 1)
    tail = 100.0 * float(ndtr(-reach))
    return tail, 100.0 - tail


def paired_change(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    *,
    draws: int,
    seed: int,
) -> Estimate | None:
    """Mean of `after` minus mean of `before` on the same prompts, with a percentile interval.

    Each argument is (sums, counts) per prompt, in one order. A draw takes a prompt on both sides,
    which cancels differences between prompts. Prompts that one side lacks are left out. When every
    prompt changes by the same amount, resampling shows no spread; shares then get Newcombe's wider
    interval from both Wilson intervals (Newcombe 1998, method 10).
    """
    table = np.stack([np.asarray(part, dtype=float) for part in (*before, *after)], axis=1)
    table = table[(table[:, 1] > 0) & (table[:, 3] > 0)]
    if len(table) == 0:
        return None
    change = float(_difference(table.sum(axis=0, keepdims=True))[0])
    if float(np.ptp(_difference(table))) < 1e-12:
        shares = bool(((table[:, [0, 2]] >= 0) & (table[:, [0, 2]] <= table[:, [1, 3]])).all())
        low, high = _newcombe(table) if shares else (change, change)
        return Estimate(change, low, high, len(table))
    totals = _resampled(table, draws, seed)
    low, high = np.percentile(_difference(totals), expanded_percentiles(len(table)))
    return Estimate(change, float(low), float(high), len(table))


def brier(probabilities: Sequence[float], outcomes: Sequence[float]) -> float:
    """Mean squared distance of probability and outcome, in [0, 1] (Brier 1950); 0.25 for 0.5."""
    p, y = np.asarray(probabilities, dtype=float), np.asarray(outcomes, dtype=float)
    return float(((p - y) ** 2).mean())


def log_loss(probabilities: Sequence[float], outcomes: Sequence[float]) -> float:
    """Mean cross-entropy in nats, outcomes in [0, 1]; log-odds within +-30. 0.6931 for 0.5."""
    if len(probabilities) != len(outcomes) or not probabilities:
        raise ValueError(
            f"{len(probabilities)} probabilities and {len(outcomes)} outcomes; need equally many, "
            "at least one"
        )
    odds = np.array([margin(p) for p in probabilities])
    return float(np.mean(np.logaddexp(0.0, odds) - np.asarray(outcomes) * odds))


def calibration_error(
    probabilities: Sequence[float], outcomes: Sequence[float], num_bins: int = 10
) -> float:
    """Expected calibration error over bins of equal size, in [0, 1] (Naeini et al. 2015).

    sum over bins of (rows in bin / rows) |mean outcome - mean probability|.
    """
    p, y = np.asarray(probabilities, dtype=float), np.asarray(outcomes, dtype=float)
    order = np.argsort(p, kind="stable")
    bins = [b for b in np.array_split(order, min(num_bins, len(p))) if len(b)]
    return float(sum(abs(y[b].sum() - p[b].sum()) for b in bins) / len(p))


def cohen_kappa(first: Sequence[object], second: Sequence[object]) -> float:
    """Agreement beyond chance: (observed - expected) / (1 - expected) (Cohen 1960), at most 1.

    NaN when both always say the same single thing: chance explains everything then.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} labels; need equally many, at least one")
    n, counts_a, counts_b = len(first), Counter(first), Counter(second)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    expected = sum(counts_a[name] * counts_b[name] for name in counts_a) / n**2
    return math.nan if expected == 1.0 else (observed - expected) / (1 - expected)


def _with_counts(
    sums: ArrayLike, counts: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    s, c = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    return s[c > 0], c[c > 0]


def _difference(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    return totals[:, 2] / totals[:, 3] - totals[:, 0] / totals[:, 1]


def _newcombe(table: NDArray[np.float64]) -> tuple[float, float]:
    """Interval of a difference of two shares: square-and-add of their Wilson intervals."""
    before = clustered_share(table[:, 0], table[:, 1])
    after = clustered_share(table[:, 2], table[:, 3])
    assert before is not None and after is not None
    change = after.share - before.share
    return (
        change - math.hypot(after.share - after.low, before.high - before.share),
        change + math.hypot(after.high - after.share, before.share - before.low),
    )


def generator(seed: int) -> np.random.Generator:
    """NumPy's generator for any whole number, although NumPy itself takes none below zero."""
    return np.random.default_rng(seed if seed >= 0 else derive_seed("negative", seed))


def _resampled(table: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """Column totals of `draws` samples of the rows, with replacement; shape (draws, columns).

    Equal rows are drawn together by a multinomial: the same distribution for less work.
    """
    kinds, repeats = np.unique(table, axis=0, return_counts=True)
    rng = generator(seed)
    num_rows = len(table)
    block = max(1, _CELLS // len(kinds))
    parts = [
        rng.multinomial(num_rows, repeats / num_rows, size=min(block, draws - start)) @ kinds
        for start in range(0, draws, block)
    ]
    return np.concatenate(parts)
