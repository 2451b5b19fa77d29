"""What a changed constitution did to labels and pairs, counted comparison by comparison.

In:  for each comparison what became of it before and after (Outcome)
Out: Impact: effects in total, per principle and per move from one principle to another, and costs

A comparison counts for every principle that decided it, before or after, so the rows of two
principles overlap; the moves do not. A comparison is relabeled when its label preferred one
response before and prefers the other one now; ties are counted apart.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, computed_field

from pipeline.constitution import Constitution
from pipeline.constitution.diff import ConstitutionDiff, diff_constitutions
from pipeline.soft_labels import outcome


@dataclass(frozen=True)
class Outcome:
    """What became of one comparison."""

    verdict_ids: frozenset[str]
    """The rows of the judges behind the label."""
    text_ids: tuple[str, str]
    """The two responses."""
    principle_ids: tuple[str, ...]
    prob_first: float | None
    """P(first is preferred), in [0, 1]; None when there is no label."""
    kept: bool
    """True when a pair was made of it."""
    asked: bool = True
    """False for one that was dropped before a judge saw it."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    def plus(self, other: Self) -> Self:
        """The counts of both; names stay."""
        counts = {n: v + getattr(other, n) for n, v in self if isinstance(v, int)}
        return self.model_copy(update=counts)


AnyRecord = TypeVar("AnyRecord", bound=_Record)


class Effects(_Record):
    """What happened to a group of comparisons; every field but the last counts comparisons."""

    before: int = 0
    """Labels before."""
    after: int = 0
    """Labels after."""
    asked_again: int = 0
    """Comparisons that a judge was asked again, whether its verdict could be read or not."""
    new_texts: int = 0
    """Of these, comparisons in which the text of a response changed."""
    relabeled: int = 0
    """Labels that prefer the other response now, ties aside."""
    became_ties: int = 0
    stopped_being_ties: int = 0
    labels_gained: int = 0
    """Comparisons that had no label and have one."""
    labels_lost: int = 0
    pairs_gained: int = 0
    pairs_lost: int = 0
    labeled_twice: int = 0
    """Comparisons with a label before and after."""
    mean_change: float = 0.0
    """Mean absolute change of the labels of `labeled_twice`, in [0, 1]."""

    def add(
        self,
        before: Outcome | None,
        after: Outcome | None,
        tie_width: float,
        principle: str | None = None,
    ) -> None:
        """Count one comparison.

        Args:
            before: None where the comparison was not made; likewise `after`.
            principle: count the label of a side only where this principle decided it.
        """
        old, new = (None if side is None else side.prob_first for side in (before, after))
        kept_before, kept_after = (side is not None and side.kept for side in (before, after))
        asked = asked_again(before, after)
        self.before += old is not None and (not principle or principle in _deciders(before))
        self.after += new is not None and (not principle or principle in _deciders(after))
        self.asked_again += asked
        self.new_texts += asked and (
            before is None or after is None or before.text_ids != after.text_ids
        )
        self.pairs_gained += kept_after and not kept_before
        self.pairs_lost += kept_before and not kept_after
        self.labels_gained += old is None and new is not None
        self.labels_lost += new is None and old is not None
        if old is None or new is None:
            return
        side_before, side_after = outcome(old, tie_width), outcome(new, tie_width)
        self.became_ties += side_before != 0.5 and side_after == 0.5
        self.stopped_being_ties += side_before == 0.5 and side_after != 0.5
        self.relabeled += {side_before, side_after} == {0.0, 1.0}
        self.labeled_twice += 1
        self.mean_change += (abs(new - old) - self.mean_change) / self.labeled_twice

    def plus(self, other: Self) -> Self:
        """The counts of both, and the mean change of all."""
        both = super().plus(other)
        change = sum(each.mean_change * each.labeled_twice for each in (self, other))
        return both.model_copy(update={"mean_change": change / max(1, both.labeled_twice)})


class PrincipleImpact(Effects):
    """Effects on the comparisons that one principle decided, before or after."""

    id: str
    change: str
    """`unchanged`, `added`, `removed`, `reworded`, ...; see `kinds_of_change`."""


class Move(Effects):
    """Effects on the comparisons asked again that went from one principle to another."""

    before_id: str
    """Empty for a comparison that was not there."""
    after_id: str


class StageCost(_Record):
    """What one stage cost now, and what all of its rows cost together."""

    folder: str
    rows: int = 0
    rows_made: int = 0
    """Rows that were made again."""
    calls: int = 0
    """Model calls of the rows that were made again."""
    calls_full: int = 0
    """Model calls of all rows."""
    tokens: int = 0
    """Prompt and generated tokens of the rows that were made again."""
    tokens_full: int = 0
    """Prompt and generated tokens of all rows."""

    def add(self, calls: int, tokens: int, *, made: bool) -> None:
        """Count one row."""
        self.rows += 1
        self.calls_full += calls
        self.tokens_full += tokens
        if made and calls:
            self.rows_made += 1
            self.calls += calls
            self.tokens += tokens


class Impact(BaseModel):
    """The contents of impact.json."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    run_id: str
    before_run: str
    constitution_before: str
    """Name and hash."""
    constitution_after: str
    num_principles: int
    """Of the new constitution."""
    diff: str
    """The change, in lines for people."""
    total: Effects
    principles: tuple[PrincipleImpact, ...]
    moves: tuple[Move, ...]
    costs: tuple[StageCost, ...]
    notes: tuple[str, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def calls_share(self) -> float:
        """Calls paid now, of those of all rows of these stages, in [0, 1]."""
        return _share(self.paid("calls"), self.paid("calls_full"))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cost_share(self) -> float:
        """Tokens paid now, of those of all rows of these stages, in [0, 1]."""
        return _share(self.paid("tokens"), self.paid("tokens_full"))

    def paid(self, name: str) -> int:
        """A number of `StageCost`, over all stages."""
        return sum(getattr(cost, name) for cost in self.costs)

    def plus(self, other: "Impact") -> "Impact":
        """Both together, under the constitutions and with the moves of the other."""
        principles = _added({p.id: p for p in self.principles}, {p.id: p for p in other.principles})
        costs = _added({c.folder: c for c in self.costs}, {c.folder: c for c in other.costs})
        together = {
            "total": self.total.plus(other.total),
            "principles": tuple(principles.values()),
            "costs": tuple(costs.values()),
        }
        return other.model_copy(update=together)


@dataclass
class ImpactTally:
    """Adds up comparisons one by one; its size does not grow with them."""

    tie_width: float
    total: Effects = field(default_factory=Effects)
    principles: dict[str, PrincipleImpact] = field(default_factory=dict)
    moves: dict[tuple[str, str], Move] = field(default_factory=dict)

    def add(self, before: Outcome | None, after: Outcome | None) -> None:
        """Count one comparison as it was and as it is; None where it was not made."""
        ids_before, ids_after = _deciders(before), _deciders(after)
        self.total.add(before, after, self.tie_width)
        for name in dict.fromkeys((*ids_before, *ids_after)):
            principle = self.principles.setdefault(name, PrincipleImpact(id=name, change=""))
            principle.add(before, after, self.tie_width, name)
        if after is not None and asked_again(before, after):
            key = ("+".join(ids_before), "+".join(after.principle_ids))
            move = self.moves.setdefault(key, Move(before_id=key[0], after_id=key[1]))
            move.add(before, after, self.tie_width)

    def by_principle(self, old: Constitution, new: Constitution) -> tuple[PrincipleImpact, ...]:
        """One entry for each principle of either version, in their order."""
        return tuple(
            self.principles.get(name, PrincipleImpact(id=name, change="")).model_copy(
                update={"change": change}
            )
            for name, change in kinds_of_change(old, new).items()
        )

    def largest_moves(self) -> tuple[Move, ...]:
        """All moves, those of the most comparisons first."""
        return tuple(sorted(self.moves.values(), key=lambda m: (-m.after, m.before_id, m.after_id)))


def kinds_of_change(old: Constitution, new: Constitution) -> dict[str, str]:
    """What happened to each principle, by id: those of the old version, then the new ones."""
    diff = diff_constitutions(old, new)
    changes: dict[str, list[str]] = {p.id: [] for p in (*old.principles, *new.principles)}
    for name, change in _changes(diff):
        changes[name].append(change)
    return {name: ", ".join(dict.fromkeys(words)) or "unchanged" for name, words in changes.items()}


def _changes(diff: ConstitutionDiff) -> Iterable[tuple[str, str]]:
    yield from ((name, "added") for name in diff.added)
    yield from ((name, "removed") for name in diff.removed)
    yield from ((each.principle_id, "reworded") for each in diff.reworded)
    yield from ((each.principle_id, "rechecked") for each in diff.rechecked)
    for renamed in diff.renamed:
        yield renamed.before, f"renamed to {renamed.after}"
        yield renamed.after, f"renamed from {renamed.before}"
    yield from ((each.principle_id, "reprioritized") for each in diff.reprioritized)
    for each in diff.reweighted:
        before, after = (share.partition(" ")[0] for share in (each.before, each.after))
        yield each.principle_id, f"weight {before} -> {after}"
    yield from ((name, "respelled") for name in diff.respelled)


def asked_again(before: Outcome | None, after: Outcome | None) -> bool:
    """Whether a judge was asked about this comparison, again or for the first time."""
    return (
        after is not None
        and after.asked
        and (before is None or not after.verdict_ids <= before.verdict_ids)
    )


def _deciders(outcome: Outcome | None) -> tuple[str, ...]:
    return outcome.principle_ids if outcome and outcome.prob_first is not None else ()


def _added(one: dict[str, AnyRecord], other: dict[str, AnyRecord]) -> dict[str, AnyRecord]:
    return one | {name: one[name].plus(v) if name in one else v for name, v in other.items()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
