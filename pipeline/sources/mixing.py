"""Mix sources by weight: which rows of each source go into one data set.

In:  imported sources and a weight for each
Out: Mixture: the rows, and how many each source had, its quota, and how many were selected

The quota of a source is weight / (sum of weights) of `size`. Rows are drawn without replacement by
a seeded number of their id: the order of the files does not matter, and a larger mixture contains
the smaller one. A source with fewer rows contributes all of them; no other source fills the gap,
and the counts show it.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DataError
from pipeline.ids import plain_text, uniform
from pipeline.sources.agreement import item_key
from pipeline.sources.rows import FeedbackRow, Imported, LabeledRow


@dataclass(frozen=True)
class SourceCount:
    """What one source contributed."""

    source: str
    weight: float
    available: int
    """Usable rows."""
    quota: int
    """Rows by weight."""
    num_selected: int
    """Rows that went in: the smaller of both."""
    share: float
    """Of the mixture, in [0, 1]."""


@dataclass(frozen=True)
class Mixture:
    """The mixed rows, in seeded order, and their counts."""

    rows: tuple[Any, ...]
    counts: tuple[SourceCount, ...]
    num_shared: int
    """Items (a prompt and two responses) that more than one row of the mixture labels."""
    num_contradicted: int
    """Of these, items that are labeled both ways."""

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{len(self.rows)} rows from {len(self.counts)} sources"]
        for c in self.counts:
            missing = c.quota - c.num_selected
            short = f", {missing} short of its weight" if missing else ""
            lines.append(
                f"  {c.source}: {c.num_selected} of {c.available} ({100 * c.share:.1f} %){short}"
            )
        if self.num_shared:
            lines.append(
                f"  {self.num_shared} items occur more than once, {self.num_contradicted} of them "
                "labeled both ways"
            )
        return "\n".join(lines)


def mix(
    imports: Sequence[Imported],
    weights: Mapping[str, float],
    *,
    size: int | None = None,
    seed: int = 0,
) -> Mixture:
    """Draw from each source by its weight, which is above 0 (1 where `weights` has none).

    Args:
        size: rows of the mixture; see `quotas`.

    Raises:
        DataError: pairs and unpaired feedback together, or no row would be left.
    """
    usable = {each.record.name: each.usable for each in imports}
    _one_kind(usable)
    chosen = {name: weights.get(name, 1.0) for name in usable}
    quota = quotas({name: len(rows) for name, rows in usable.items()}, chosen, size)
    selected = {name: drawn(usable[name], quota[name], seed) for name in usable}
    rows = drawn([row for part in selected.values() for row in part], None, seed)
    if not rows:
        size = sum(quota.values())
        raise DataError(f"a mixture of size {size} has no row; raise size or add rows")
    counts = tuple(
        SourceCount(
            source=name,
            weight=chosen[name],
            available=len(usable[name]),
            quota=quota[name],
            num_selected=len(selected[name]),
            share=len(selected[name]) / len(rows),
        )
        for name in usable
    )
    return Mixture(tuple(rows), counts, *_overlap(rows))


def _one_kind(usable: Mapping[str, Sequence[Any]]) -> None:
    kinds = {name: type(rows[0]) for name, rows in usable.items() if rows}
    unpaired = [name for name, kind in kinds.items() if kind is FeedbackRow]
    if unpaired and len(unpaired) < len(kinds):
        raise DataError(
            f"source '{unpaired[0]}' holds unpaired feedback and others hold pairs; mix them "
            "separately, as KTO and DPO need different rows"
        )


def quotas(
    available: Mapping[str, int], weights: Mapping[str, float], size: int | None = None
) -> dict[str, int]:
    """Rows of each source by weight.

    Args:
        available: rows that each source has.
        size: rows of the mixture; None for the most at which no source falls short of its weight.
    """
    total = sum(weights.values())
    if size is None:
        # The tiny tolerance keeps 30 / 0.3 from becoming 99.
        size = math.floor(min(available[n] * total / w for n, w in weights.items()) + 1e-9)
    return largest_remainder({name: size * w / total for name, w in weights.items()}, size)


def largest_remainder(quotas: Mapping[str, float], size: int) -> dict[str, int]:
    """Whole numbers that add up to `size`, each within 1 of its quota (Hamilton's method)."""
    whole = {name: math.floor(quota + 1e-9) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: whole[name] - quotas[name])
    for name in by_remainder[: size - sum(whole.values())]:
        whole[name] += 1
    return whole


def mix_number(row_id: str, seed: int) -> float:
    """The seeded number of a row, in [0, 1): the rows with the smallest numbers are drawn."""
    return uniform("mix", seed, row_id)


def drawn(rows: Sequence[Any], limit: int | None, seed: int) -> list[Any]:
    """At most `limit` rows (all for None), in seeded order."""
    return sorted(rows, key=lambda row: mix_number(row.row_id, seed))[:limit]


def _overlap(rows: Sequence[Any]) -> tuple[int, int]:
    """Numbers of items with more than one label, and of those labeled both ways."""
    chosen: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if isinstance(row, LabeledRow):
            chosen[item_key(row)].append(plain_text(row.chosen))
    shared = [texts for texts in chosen.values() if len(texts) > 1]
    return len(shared), sum(len(set(texts)) > 1 for texts in shared)
