"""Forecasts with their intervals.

In:  values of a sample
Out: Range: their sum over a larger number
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.stats import t95


@dataclass(frozen=True)
class Range:
    """A forecast with its 95 % interval; all three are equal where nothing is uncertain."""

    value: float
    low: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.value + other.value, self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Range":
        """The range in another unit."""
        return Range(self.value * factor, self.low * factor, self.high * factor)


def forecast_sum(values: Sequence[float], number: float) -> Range:
    """Sum over `number` units of which these are a sample, with a 95 % prediction interval.

    N m -+ t[n-1] s N sqrt(1/n + 1/N) for n values with mean m and deviation s; at least 0. With a
    single value the interval is from 0 to infinity, unless N is 0.
    """
    n = len(values)
    if not n or not number:
        return Range(0.0, 0.0, 0.0)
    mean = float(np.mean(values))
    if n == 1:
        return Range(number * mean, 0.0, math.inf)
    deviation = float(np.std(values, ddof=1))
    half = t95(n - 1) * deviation * number * math.sqrt(1 / n + 1 / number)
    return Range(number * mean, max(0.0, number * mean - half), number * mean + half)
