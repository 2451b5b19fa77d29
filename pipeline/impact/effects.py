"""What a changed constitution did to labels and pairs, counted comparison by comparison.

In:  for each comparison what became of it before and after (Outcome)
Out: Impact: effects in total, per principle and per move from one principle to another, and costs

A comparison counts for every principle that decided it, before or after, so the rows of two
principles overlap; the moves do not. The label says how probable it is that the first response is
preferred: it flips when it was beyond a tie and is so now, on the other side.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, computed_field

from pipeline.constitution import Constitution
from pipeline.constitution.diff import ConstitutionDiff, diff_constitutions
from pipeline.soft_labels import is_tie


@dataclass(frozen=True)
class Outcome:
    """What became of one comparison."""

    judgment_id: str
    text_ids: tuple[str, str]
    """The two responses."""
    principle_ids: tuple[str, ...]
    soft_label: float | None
    """P(first is preferred), in [0, 1]; None when there is no label."""
    kept: bool
    """True when a pair was made of it."""
    asked: bool = True
    """False for one that was dropped before a judge saw it."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Effects(_Record):
    """What happened to a group of comparisons."""

    before: int = 0
    """Labels before."""
    after: int = 0
    """Labels after."""
    asked_again: int = 0
    """Comparisons that a judge was asked anew, whether its verdict could be read or not."""
    new_texts: int = 0
    """Of these, comparisons of which a response is another text now."""
    flipped: int = 0
    """Labels that point the other way, ties aside."""
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
    """Mean absolute change of their labels, in [0, 1]."""

    def add(self, before: Outcome | None, after: Outcome | None, tie_width: float) -> None:
        """Enter one comparison; None where it was not made."""
        old, new = (None if side is None else side.soft_label for side in (before, after))
        kept_before, kept_after = (side is not None and side.kept for side in (before, after))
        anew = asked_anew(before, after)
        self.asked_again += anew
        self.new_texts += anew and (
            before is None or after is None or before.text_ids != after.text_ids
        )
        self.pairs_gained += kept_after and not kept_before
        self.pairs_lost += kept_before and not kept_after
        self.labels_gained += old is None and new is not None
        self.labels_lost += new is None and old is not None
        if old is None or new is None:
            return
        tied_before, tied_after = is_tie(old, tie_width), is_tie(new, tie_width)
        self.became_ties += tied_after and not tied_before
        self.stopped_being_ties += tied_before and not tied_after
        self.flipped += not tied_before and not tied_after and (old > 0.5) != (new > 0.5)
        self.labeled_twice += 1
        self.mean_change += (abs(new - old) - self.mean_change) / self.labeled_twice


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
    calls: int = 0
    calls_full: int = 0
    tokens: int = 0
    """Prompt and generated tokens of the rows that were made."""
    tokens_full: int = 0

    def add(self, calls: int, tokens: int, *, made: bool) -> None:
        """Enter one row."""
        self.rows += 1
        self.calls_full += calls
        self.tokens_full += tokens
        if made and calls:
            self.rows_made += 1
            self.calls += calls
            self.tokens += tokens


class Impact(BaseModel):
    """What impact.json says."""

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
        return _share(sum(c.calls for c in self.costs), sum(c.calls_full for c in self.costs))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cost_share(self) -> float:
        """The same for tokens."""
        return _share(sum(c.tokens for c in self.costs), sum(c.tokens_full for c in self.costs))


@dataclass
class ImpactTally:
    """Adds up comparisons one by one; its size does not grow with them."""

    tie_width: float
    total: Effects = field(default_factory=Effects)
    principles: dict[str, PrincipleImpact] = field(default_factory=dict)
    moves: dict[tuple[str, str], Move] = field(default_factory=dict)

    def add(self, before: Outcome | None, after: Outcome | None) -> None:
        """Enter one comparison as it was and as it is; None where it was not made."""
        ids_before, ids_after = _deciders(before), _deciders(after)
        self.total.add(before, after, self.tie_width)
        self.total.before += bool(ids_before)
        self.total.after += bool(ids_after)
        for name in dict.fromkeys((*ids_before, *ids_after)):
            one = self.principles.setdefault(name, PrincipleImpact(id=name, change=""))
            one.add(before, after, self.tie_width)
            one.before += name in ids_before
            one.after += name in ids_after
        if after is not None and asked_anew(before, after):
            key = ("+".join(ids_before), "+".join(after.principle_ids))
            move = self.moves.setdefault(key, Move(before_id=key[0], after_id=key[1]))
            move.add(before, after, self.tie_width)
            move.before += bool(ids_before)
            move.after += bool(ids_after)

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
    words: dict[str, list[str]] = {p.id: [] for p in (*old.principles, *new.principles)}
    for name, what in _changes(diff):
        words[name].append(what)
    return {name: ", ".join(dict.fromkeys(said)) or "unchanged" for name, said in words.items()}


def _changes(diff: ConstitutionDiff) -> Iterable[tuple[str, str]]:
    yield from ((name, "added") for name in diff.added)
    yield from ((name, "removed") for name in diff.removed)
    yield from ((each.principle_id, "reworded") for each in diff.reworded)
    for renamed in diff.renamed:
        yield renamed.before, f"renamed to {renamed.after}"
        yield renamed.after, f"renamed from {renamed.before}"
    for each in diff.reweighted:
        before, after = (share.partition(" ")[0] for share in (each.before, each.after))
        yield each.principle_id, f"weight {before} -> {after}"
    yield from ((name, "respelled") for name in diff.respelled)


def asked_anew(before: Outcome | None, after: Outcome | None) -> bool:
    """Whether a judge was asked about this comparison again, or for the first time."""
    return (
        after is not None
        and after.asked
        and (before is None or before.judgment_id != after.judgment_id)
    )


def _deciders(outcome: Outcome | None) -> tuple[str, ...]:
    return outcome.principle_ids if outcome and outcome.soft_label is not None else ()


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
