"""Confidence against accuracy: is a judge that says 0.8 right 8 times in 10?

In:  confidences max(p, 1 - p) in [0.5, 1], and whether each label was right (1, 0, 0.5 for even)
Out: bins of equal mass, the expected calibration error, and what it would be by chance alone

Confidences and not P(first) are binned: they are the same whichever response was called first, so
the drawn order adds no noise. With few rows the error is well above 0 even for a judge that is
calibrated perfectly; `chance_error` is that floor, and only what is above it says something.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.stats import wilson

NUM_BINS = 15
CHANCE_DRAWS = 400


@dataclass(frozen=True, slots=True)
class Bin:
    """Labels of about the same confidence."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean confidence."""
    accuracy: float
    """Share of right labels, an even one half."""
    accuracy_low: float
    """Wilson's 95 % interval of it; takes rows for independent."""
    accuracy_high: float

    def as_dict(self) -> dict[str, Any]:
        """The shape that metrics.json holds."""
        return asdict(self)


def equal_mass_bins(
    confidences: Sequence[float], right: Sequence[float], num_bins: int = NUM_BINS
) -> list[Bin]:
    """At most `num_bins` bins with as nearly equal numbers of labels as ties allow.

    Equal confidences stay in one bin: which of them falls left of a cut would be chance.
    """
    c, r = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    order = np.argsort(c, kind="stable")
    return [_bin(c[part], r[part]) for part in _cuts(order, c, num_bins)]


def expected_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error, in [0, 1]: mean |accuracy - confidence|, bins weighted by size
    (Naeini et al. 2015).
    """
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.accuracy - each.confidence) for each in bins) / total


def chance_error(confidences: Sequence[float], num_bins: int = NUM_BINS, *, seed: int) -> float:
    """Mean expected calibration error of a perfectly calibrated judge with these confidences."""
    c = np.asarray(confidences, dtype=float)
    order = np.argsort(c, kind="stable")
    rng = np.random.default_rng(seed)
    right = rng.random((CHANCE_DRAWS, len(c))) < c
    parts = _cuts(order, c, num_bins)
    gaps = [np.abs(right[:, part].sum(axis=1) - c[part].sum()) for part in parts]
    return float(np.sum(gaps, axis=0).mean() / len(c))


def _cuts(
    order: NDArray[np.int64], values: NDArray[np.float64], num_bins: int
) -> list[NDArray[np.int64]]:
    """Indices of each bin, from the smallest value; each cut moves past values that are equal."""
    ordered = values[order]
    cuts = [
        int(np.searchsorted(ordered, ordered[at - 1] + 1e-12, side="right"))
        for at in (round(len(order) * k / num_bins) for k in range(1, num_bins))
        if at > 0
    ]
    return [part for part in np.split(order, sorted(set(cuts))) if len(part)]


def _bin(confidences: NDArray[np.float64], right: NDArray[np.float64]) -> Bin:
    low, high = wilson(float(right.sum()), len(right))
    return Bin(
        float(confidences.min()),
        float(confidences.max()),
        len(right),
        float(confidences.mean()),
        float(right.mean()),
        low,
        high,
    )
