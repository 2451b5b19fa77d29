"""Do two sources prefer the same responses? Cohen's kappa on the items that both labeled.

In:  pairs of two sources (people and our judge, or two groups of people)
Out: Agreement: kappa and the share of equal labels, each with a 95 % interval

An item is a prompt with two responses, in either order. Surrounding white space and the Unicode
form of a text do not count, because importers strip texts and models do not. Its label is the
preferred response, called `first` or `second` by the order of the texts' hashes: neither source
knows that order, so neither can shift its marginals by always naming the same slot. The interval
resamples prompts, not items, because items of one prompt are alike.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ids import content_hash, conversation_key, plain_text, text_hash
from pipeline.records import PreferenceRow
from pipeline.stats import PERCENTILES, Estimate, clustered_share, cohen_kappa, generator


@dataclass(frozen=True)
class Agreement:
    """Agreement of two sources on the items that both labeled."""

    num_items: int
    """Items with a label from both."""
    num_prompts: int
    num_split: int
    """Items left out because one source has as many labels for either side."""
    kappa: float
    """Agreement beyond chance, at most 1; NaN without any shared item."""
    kappa_low: float
    kappa_high: float
    equal: Estimate | None
    """Share of items with the same label."""


def item_key(row: PreferenceRow) -> str:
    """Hash of a prompt and its two responses, equal for both orders of the responses."""
    texts = sorted((plain_text(row.chosen), plain_text(row.rejected)))
    return content_hash([conversation_key(row.messages), *texts])


def agreement(
    first: Iterable[PreferenceRow],
    second: Iterable[PreferenceRow],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Agreement of the rows of two sources; only rows of status ok count.

    Several labels of one source on an item count by their majority; without one, the item is left
    out and counted as split.
    """
    sides_a, split_a, prompts = _labels(first)
    sides_b, split_b, _ = _labels(second)
    known_a, known_b = sides_a.keys() | split_a, sides_b.keys() | split_b
    keys = sorted(sides_a.keys() & sides_b.keys())
    num_split = len((known_a & known_b) - set(keys))
    table = _tables([(prompts[k], sides_a[k], sides_b[k]) for k in keys])
    if not keys:
        nan = math.nan
        return Agreement(0, 0, num_split, nan, nan, nan, None)
    kappa = cohen_kappa([sides_a[k] for k in keys], [sides_b[k] for k in keys])
    low, high = kappa_interval(table, draws=draws, seed=seed)
    equal = clustered_share(table[:, 0] + table[:, 3], table.sum(axis=1))
    return Agreement(len(keys), len(table), num_split, kappa, low, high, equal)


def kappa_interval(tables: NDArray[np.float64], *, draws: int, seed: int) -> tuple[float, float]:
    """95 % percentile interval of kappa from resampled clusters (Efron and Tibshirani 1993).

    Args:
        tables: one row per cluster: items labeled (first, first), (first, second),
            (second, first), (second, second) by the two sources.

    Draws in which chance explains everything (kappa undefined) are left out; without any other
    draw, both bounds are NaN. One cluster shows no spread: both bounds are its kappa.
    """
    # Equal clusters are drawn together by a multinomial: the same distribution for less work.
    kinds, repeats = np.unique(tables, axis=0, return_counts=True)
    rng = generator(seed)
    drawn = rng.multinomial(len(tables), repeats / len(tables), size=draws) @ kinds
    n = drawn.sum(axis=1)
    observed = (drawn[:, 0] + drawn[:, 3]) / n
    first_a, first_b = (drawn[:, 0] + drawn[:, 1]) / n, (drawn[:, 0] + drawn[:, 2]) / n
    expected = first_a * first_b + (1 - first_a) * (1 - first_b)
    defined = expected < 1
    if not defined.any():
        return math.nan, math.nan
    kappas = (observed[defined] - expected[defined]) / (1 - expected[defined])
    low, high = np.percentile(kappas, PERCENTILES)
    return float(low), float(high)


def _labels(rows: Iterable[PreferenceRow]) -> tuple[Mapping[str, str], set[str], Mapping[str, str]]:
    """Label per item, items without a majority, and the prompt of each item."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    prompts: dict[str, str] = {}
    for row in rows:
        chosen, rejected = plain_text(row.chosen), plain_text(row.rejected)
        # No label can be right about two texts that differ only in white space.
        if row.status == "ok" and chosen != rejected:
            key = item_key(row)
            in_order = text_hash(chosen) < text_hash(rejected)
            votes[key]["first" if in_order else "second"] += 1
            prompts[key] = conversation_key(row.messages)
    split = {key for key, count in votes.items() if count["first"] == count["second"]}
    labels = {
        key: "first" if count["first"] > count["second"] else "second"
        for key, count in votes.items()
        if key not in split
    }
    return labels, split, prompts


def _tables(items: Sequence[tuple[str, str, str]]) -> NDArray[np.float64]:
    """Counts per prompt; columns as in `kappa_interval`."""
    cells = {
        ("first", "first"): 0,
        ("first", "second"): 1,
        ("second", "first"): 2,
        ("second", "second"): 3,
    }
    counts: dict[str, NDArray[np.float64]] = {}
    for prompt, a, b in items:
        counts.setdefault(prompt, np.zeros(4))[cells[a, b]] += 1
    return np.stack(list(counts.values())) if counts else np.zeros((0, 4))
