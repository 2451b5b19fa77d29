"""Mix sources by weight: which rows of each source go into one data set.

In:  imported sources and a weight for each
Out: Mixture: the rows, and how many each source had, owed and gave

Each source owes weight / (sum of weights) of `size`. Rows are drawn without replacement by a seeded
number of their id: the order of the files does not matter, and a larger mixture contains the
smaller one. A source that has fewer rows gives all, nobody fills the gap, and the counts say so.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
    owed: int
    """Rows by weight."""
    taken: int
    """Rows that went in: the smaller of both."""
    share: float
    """Of the mixture, in [0, 1]."""


@dataclass(frozen=True)
class Mixture:
    """The mixed rows, in seeded order, and their counts."""

    rows: tuple[Any, ...]
    counts: tuple[SourceCount, ...]
    num_shared: int
    """Items (prompt and two responses) that more than one row of the mixture labels."""
    num_contradicted: int
    """Of these, items that are labeled both ways."""

    def as_dict(self) -> dict[str, Any]:
        """Counts for a report; without the rows."""
        return {
            "size": len(self.rows),
            "sources": [asdict(count) for count in self.counts],
            "shared_items": self.num_shared,
            "contradicted_items": self.num_contradicted,
        }

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{len(self.rows)} rows from {len(self.counts)} sources"]
        for c in self.counts:
            short = f", {c.owed - c.taken} short of its weight" if c.taken < c.owed else ""
            lines.append(f"  {c.source}: {c.taken} of {c.available} ({c.share:.1%}){short}")
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
    """Draw from each source by its weight (1 where `weights` has none).

    Args:
        size: rows of the mixture; None for the most at which no source runs short.

    Raises:
        DataError: pairs and unpaired feedback together, or no row would be left.
        ValueError: a weight is not above 0.
    """
    usable = {each.record.name: each.usable for each in imports}
    _one_kind(usable)
    chosen = {name: weights.get(name, 1.0) for name in usable}
    if not all(weight > 0 and math.isfinite(weight) for weight in chosen.values()):
        raise ValueError(f"weights {chosen} must be above 0")
    total = sum(chosen.values())
    if size is None:
        size = largest_size({name: len(rows) for name, rows in usable.items()}, chosen)
    owed = largest_remainder({name: size * w / total for name, w in chosen.items()}, size)
    taken = {name: drawn(usable[name], owed[name], seed) for name in usable}
    rows = drawn([row for part in taken.values() for row in part], size, seed)
    if not rows:
        raise DataError(f"a mixture of size {size} has no row; raise size or add rows")
    shared, contradicted = _overlap(rows)
    return Mixture(
        tuple(rows),
        tuple(
            SourceCount(
                name,
                chosen[name],
                len(usable[name]),
                owed[name],
                len(taken[name]),
                len(taken[name]) / len(rows),
            )
            for name in usable
        ),
        shared,
        contradicted,
    )


def _one_kind(usable: Mapping[str, Sequence[Any]]) -> None:
    kinds = {name: type(rows[0]) for name, rows in usable.items() if rows}
    unpaired = [name for name, kind in kinds.items() if kind is FeedbackRow]
    if unpaired and len(unpaired) < len(kinds):
        raise DataError(
            f"source '{unpaired[0]}' holds unpaired feedback and others hold pairs; mix them "
            "separately, as KTO and DPO need different rows"
        )


def largest_size(available: Mapping[str, int], weights: Mapping[str, float]) -> int:
    """Rows of the largest mixture in which no source runs short of its weight."""
    total = sum(weights.values())
    # The tiny tolerance keeps 30 / 0.3 from becoming 99.
    return math.floor(min(available[n] * total / w for n, w in weights.items()) + 1e-9)


def largest_remainder(quotas: Mapping[str, float], size: int) -> dict[str, int]:
    """Whole numbers that add up to `size`, each within 1 of its quota (Hamilton's method)."""
    whole = {name: math.floor(quota + 1e-9) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: whole[name] - quotas[name])
    for name in by_remainder[: size - sum(whole.values())]:
        whole[name] += 1
    return whole


def mix_number(row_id: str, seed: int) -> float:
    """The seeded number of a row, in [0, 1): a source gives its rows with the smallest ones."""
    return uniform("mix", seed, row_id)


def drawn(rows: Sequence[Any], limit: int, seed: int) -> list[Any]:
    """`limit` rows at most, in seeded order."""
    return sorted(rows, key=lambda row: mix_number(row.row_id, seed))[:limit]


def _overlap(rows: Sequence[Any]) -> tuple[int, int]:
    pairs = [row for row in rows if isinstance(row, LabeledRow)]
    seen = Counter(item_key(row) for row in pairs)
    sides: dict[str, set[str]] = {}
    for row in pairs:
        sides.setdefault(item_key(row), set()).add(plain_text(row.chosen))
    shared = [key for key, times in seen.items() if times > 1]
    return len(shared), sum(len(sides[key]) > 1 for key in shared)
