"""The two sides of a run's pairs: who wrote them, and how often the longer one is preferred.

In:  shards of pairs, and the shards that they were made from
Out: PairContrast, for the metrics, the report and the card of the data set

A policy learns the difference of the two sides, so this is what a data set teaches apart from its
principles. Only labeled pairs count, those that thresholds dropped included.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.section import Section
from pipeline.soft_labels import is_tie
from pipeline.store.shards import Manifest, iter_manifests, open_parquet
from pipeline.store.stage_names import JUDGE, PAIRS, POOL, STAGES, split_folder, stage_title

COLUMNS = (
    "judgment_id",
    "status",
    "comparison",
    "chosen",
    "rejected",
    "chosen_id",
    "rejected_id",
    "soft_label",
)
UNKNOWN = "unknown"


def num_words(text: str) -> int:
    """Words of a text, separated by white space."""
    return len(text.split())


class PairSource(Section):
    """Pairs of one origin."""

    comparison: str
    """Kind of the comparison, such as `samples`."""
    method: str
    """What made the label, such as `judge`."""
    chosen: str
    """Who wrote the chosen side, such as `revisions`."""
    rejected: str
    """Who wrote the rejected side."""
    labeled: int
    """Pairs with a label."""
    kept: int
    """Of `labeled`: in the data set."""
    share: float | None
    """`kept` as a share of all pairs kept; None when none is."""


class PairContrast(Section):
    """What distinguishes the two sides of the labeled pairs."""

    labeled: int
    """Pairs with a label."""
    kept: int
    """Of `labeled`: in the data set."""
    longer_labeled: float
    """Share of `labeled` whose preferred response has more words; ties, of words or of the label,
    count half."""
    longer_kept: float | None
    """This share of `kept`; None when none is."""
    sources: tuple[PairSource, ...]
    """The origins, the one with the most labeled pairs first."""

    def describe(self) -> str:
        """One sentence for cards and reports."""
        kept = (
            ""
            if self.longer_kept is None
            else f" and {100 * self.longer_kept:.1f} % of {self.kept:,} kept"
        )
        return (
            f"The preferred response is the longer one in {100 * self.longer_labeled:.1f} % of "
            f"{self.labeled:,} labeled pairs{kept}; ties count half."
        )


@dataclass
class _Counts:
    """Running counts over pairs."""

    longer: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    """Pairs whose preferred side is longer, by whether they are kept."""
    sources: dict[bool, Counter[tuple[str, ...]]] = field(
        default_factory=lambda: {False: Counter(), True: Counter()}
    )


def measure_contrast(root: Path, tie_width: float) -> PairContrast | None:
    """The contrast of a run's own pairs; None when none has a label.

    Args:
        root: folder of the run.
        tie_width: distance from 0.5 within which a label prefers neither side.

    Raises:
        StoreError: a shard is damaged.
    """
    counts = _Counts()
    for manifest in iter_manifests(root, PAIRS):
        _count(root, manifest, tie_width, counts)
    dropped, kept = (counts.sources[state] for state in (False, True))
    everything = dropped + kept
    labeled, num_kept = everything.total(), kept.total()
    if not labeled:
        return None
    return PairContrast(
        labeled=labeled,
        kept=num_kept,
        longer_labeled=sum(counts.longer.values()) / labeled,
        longer_kept=counts.longer[True] / num_kept if num_kept else None,
        sources=tuple(
            PairSource(
                **dict(zip(("comparison", "method", "chosen", "rejected"), origin, strict=True)),
                labeled=number,
                kept=kept[origin],
                share=kept[origin] / num_kept if num_kept else None,
            )
            for origin, number in sorted(everything.items(), key=lambda item: (-item[1], item[0]))
        ),
    )


def _count(root: Path, manifest: Manifest, tie_width: float, counts: _Counts) -> None:
    """Add one shard of pairs."""
    writers: dict[str, str] = {}
    methods: dict[str, str] = {}
    for path in manifest.inputs:
        folder = str(Path(path).parent)
        kind = split_folder(folder)[1]
        if kind in STAGES and STAGES[kind].text:
            rows = _read(root, path, ["row_id"])
            writers.update((row["row_id"], stage_title(folder)) for row in rows)
        elif kind in (JUDGE, POOL):
            methods.update(
                (row["row_id"], row["method"]) for row in _read(root, path, ["row_id", "method"])
            )
    for row in _read(root, manifest.path, COLUMNS):
        if row["soft_label"] is None:
            continue
        kept = row["status"] == "ok"
        sides = (writers.get(row[side], UNKNOWN) for side in ("chosen_id", "rejected_id"))
        method = methods.get(row["judgment_id"], UNKNOWN)
        counts.sources[kept][(row["comparison"], method, *sides)] += 1
        difference = num_words(row["chosen"]) - num_words(row["rejected"])
        undecided = not difference or is_tie(row["soft_label"], tie_width)
        counts.longer[kept] += 0.5 if undecided else float(difference > 0)


def _read(root: Path, path: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    with open_parquet(root / path) as file:
        rows: list[dict[str, Any]] = file.read(columns=list(columns), use_threads=False).to_pylist()
    return rows
