"""Shares, win rates and their intervals. All pure; numbers in, numbers out.

A prompt is the unit that is drawn anew: several responses to one prompt are no independent
evidence, so every interval here is clustered by prompt (Miller 2024, arXiv:2411.00640).
Everything random takes a seed.

Does not: correct for looking at many measures at once, or for prompts that resemble each other.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
_T95 = (12.706205, 4.302653, 3.182446, 2.776445)
"""The 97.5 % point of Student's t with 1 to 4 degrees, where no short series is good enough."""
PERCENTILES = (2.5, 97.5)
_CELLS = 4_000_000
"""Numbers held at once by a bootstrap (32 MB)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share (or a change of one) with its 95 % interval."""

    share: float
    low: float
    high: float
    n: int
    """Observations, not prompts."""

    def as_dict(self) -> dict[str, float]:
        """The shape that metrics.json holds."""
        return asdict(self)


def outcome(soft_label: float, tie_width: float) -> float:
    """Hardened label of the first side: 1 win, 0 loss, 0.5 within `tie_width` of 0.5."""
    if abs(soft_label - 0.5) <= tie_width:
        return 0.5
    return 1.0 if soft_label > 0.5 else 0.0


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), in [0, 1]; honest at 0 and 1 too.

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
    """Share over all observations, with a Wilson interval for clustered ones; None without any.

    Args:
        sums: successes per prompt. counts: observations per prompt.

    Wilson's interval of n_eff observations; with one observation per prompt n_eff is n.
    """
    s, c = _kept(sums, counts)
    if len(s) == 0:
        return None
    n = float(c.sum())
    p = float(s.sum()) / n
    effective = effective_size(s, c)
    low, high = wilson(p * effective, effective)
    return Estimate(p, low, high, round(n))


def effective_size(sums: ArrayLike, counts: ArrayLike) -> float:
    """Independent observations that tell as much as these clustered ones (at least one prompt).

    n_eff = n / deff * (t[n-1] / t[m-1])^2, Korn and Graubard 1998 (from memory), for n observations
    of m prompts, where

        deff = m / (m-1) * sum_i (s_i - p c_i)^2 / (n p (1-p)), and at least 1

    is the variance of the ratio by linearization over that of independent observations (Kish 1965),
    and the t-quantiles say how badly m prompts tell it. Never less than n^2 / sum_i c_i^2, which is
    what is left when all observations of a prompt are equal: nothing can be more alike. So n_eff is
    1 for a single prompt, and the number of prompts for prompts of equal size at p of 0 or 1.
    """
    s, c = _kept(sums, counts)
    n, m = float(c.sum()), len(s)
    least = n * n / float((c * c).sum())
    p = float(s.sum()) / n
    spread = p * (1 - p) * n
    if m == 1 or spread < 1e-12:
        return least
    deff = max(1.0, m / (m - 1) * float(((s - p * c) ** 2).sum()) / spread)
    return max(least, n / deff * (t95(round(n) - 1) / t95(m - 1)) ** 2)


def t95(degrees: int) -> float:
    """The 97.5 % point of Student's t: Abramowitz and Stegun 1964, 26.7.5 (from memory); 3e-4 off at
    5 degrees, less above.
    """
    if degrees <= len(_T95):
        return _T95[degrees - 1]
    z = Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def cluster_bootstrap(
    sums: ArrayLike, counts: ArrayLike, *, draws: int, seed: int, most: float = 1.0
) -> Estimate | None:
    """Mean over all observations with a percentile interval, prompts drawn with replacement.

    Args:
        sums: sum of values in [0, most] per prompt. counts: observations per prompt.

    Efron and Tibshirani 1993, chapter 13, with percentiles for few prompts (`expanded_percentiles`).
    Fewer than five still see too little: no draw leaves their range. When every prompt has the same mean, drawing again shows
    no spread at all; then Wilson's interval of as many prompts is given. None without any prompt.
    """
    s, c = _kept(sums, counts)
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
    """Percentiles of a bootstrap of m prompts (at least two) that make it as wide as a t-interval.

    The lower one is 100 Phi(-sqrt(m / (m-1)) t[m-1]): drawing from m prompts shows (m-1) / m of their
    variance, and the normal tails are too thin (Hesterberg 2015, arXiv:1411.5279, from memory). 2.5
    and 97.5 for very many.
    """
    reach = math.sqrt(num_prompts / (num_prompts - 1)) * t95(num_prompts - 1)
    tail = 50.0 * math.erfc(reach / math.sqrt(2.0))
    return tail, 100.0 - tail


def paired_change(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    *,
    draws: int,
    seed: int,
) -> Estimate | None:
    """Mean of `after` minus mean of `before` on the same prompts, with a percentile interval.

    Each argument is (sums, counts) per prompt, in the same order. A draw takes a prompt on both
    sides, which removes what makes prompts differ. Prompts that one side lacks are left out. When
    every prompt changes alike, drawing again shows no spread; shares then get Newcombe's interval
    from both Wilson intervals (Newcombe 1998, method 10), which is the wider one.
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
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    names = set(first) | set(second)
    expected = (
        sum(sum(a == name for a in first) * sum(b == name for b in second) for name in names) / n**2
    )
    return math.nan if expected == 1.0 else (observed - expected) / (1 - expected)


def _kept(sums: ArrayLike, counts: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    s, c = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    return s[c > 0], c[c > 0]


def _difference(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    return totals[:, 2] / totals[:, 3] - totals[:, 0] / totals[:, 1]


def _newcombe(table: NDArray[np.float64]) -> tuple[float, float]:
    """Interval of a difference of two shares: square-and-add of their Wilson intervals."""
    before, after = (
        clustered_share(table[:, 0], table[:, 1]),
        clustered_share(table[:, 2], table[:, 3]),
    )
    assert before is not None and after is not None
    change = after.share - before.share
    return (
        change - math.hypot(after.share - after.low, before.high - before.share),
        change + math.hypot(after.high - after.share, before.share - before.low),
    )


def _resampled(table: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """Column totals of `draws` samples of the rows, with replacement; shape (draws, columns).

    Equal rows are drawn together by a multinomial: the same distribution for less work.
    """
    kinds, repeats = np.unique(table, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    num_rows = len(table)
    block = max(1, _CELLS // len(kinds))
    parts = [
        rng.multinomial(num_rows, repeats / num_rows, size=min(block, draws - start)) @ kinds
        for start in range(0, draws, block)
    ]
    return np.concatenate(parts)
