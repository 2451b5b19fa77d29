"""What the judge said about each labelled pair, put beside the truth.

In:  items, JudgmentRows
Out: Verdict: all probabilities as P(the chosen response), so that 1 is right whichever was first

A pair without a readable label is a Verdict too: it counts in the shares that say so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.judge_eval.items import Item
from pipeline.records import JudgmentRow, Status

EVEN = 1e-9
"""A judge that sees nothing but the slot gives 0.5 up to rounding; that must not decide anything."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison of a labelled pair."""

    prompt_id: str
    chosen_first: bool
    status: Status
    reason: str
    label: float | None
    """P(chosen), mean of both orders, calibrated where the recipe names a calibration."""
    raw_label: float | None
    """The same before calibration."""
    forward: float | None
    """P(chosen) of the call in which slot A held `first`."""
    swapped: float | None
    """P(chosen) of the call in which slot A held `second`."""
    exact: bool
    longer: int
    """1 when the chosen response has more words, -1 when fewer, 0 when as many."""
    principle_id: str
    tags: tuple[str, ...]

    @property
    def right(self) -> float | None:
        """1 for a right label, 0 for a wrong one, 0.5 for exactly 0.5."""
        return None if self.label is None else decided(self.label)

    @property
    def by_slot(self) -> tuple[float, float] | None:
        """P(chosen) when the chosen response stood in slot A, and when it stood in slot B."""
        if self.forward is None or self.swapped is None:
            return None
        return (self.forward, self.swapped) if self.chosen_first else (self.swapped, self.forward)


def decided(probability: float) -> float:
    """The side that a probability is on: 1, 0, or 0.5 for exactly 0.5."""
    if abs(probability - 0.5) < EVEN:
        return 0.5
    return float(probability > 0.5)


def read_verdicts(items: Iterable[Item], judgments: Iterable[JudgmentRow]) -> list[Verdict]:
    """One verdict per judgment; judgments of other pairs are left out."""
    by_key = {item.key: item for item in items}
    return [
        _verdict(by_key[key], row)
        for row in judgments
        if (key := (row.first_id, row.second_id)) in by_key
    ]


def compare_lengths(first: str, second: str) -> int:
    """1 when the first text has more words, -1 when fewer, 0 when as many."""
    a, b = len(first.split()), len(second.split())
    return (a > b) - (a < b)


def readable(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those with a label."""
    return [verdict for verdict in verdicts if verdict.label is not None]


def _verdict(item: Item, row: JudgmentRow) -> Verdict:
    # A row that is not ok may still carry the number of one order; it is no label.
    read = row.status == "ok"
    swapped = None if row.prob_swapped is None else 1.0 - row.prob_swapped
    raw = row.soft_label if row.raw_label is None else row.raw_label
    return Verdict(
        prompt_id=row.prompt_id,
        chosen_first=item.chosen_first,
        status=row.status,
        reason=row.reason,
        label=_of_chosen(item, row.soft_label, read),
        raw_label=_of_chosen(item, raw, read),
        forward=_of_chosen(item, row.prob_forward, read),
        swapped=_of_chosen(item, swapped, read),
        exact=row.exact,
        longer=compare_lengths(item.row.chosen, item.row.rejected),
        principle_id=row.principle_id,
        tags=item.row.tags,
    )


def _of_chosen(item: Item, prob_first: float | None, read: bool) -> float | None:
    if prob_first is None or not read:
        return None
    return prob_first if item.chosen_first else 1.0 - prob_first
