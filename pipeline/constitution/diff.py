"""What changed between two versions of a constitution, by meaning and not by line.

In:  two constitutions
Out: ConstitutionDiff: principles that were added, removed, reworded, rechecked, renamed, moved, ...

The semantic hash of a principle covers its check, and its three requests and its rationale after
folding white space and the case of the first letter. Order, weight, priority, conflicts, tags and
id do not change it: a principle under another id with the same hash is renamed, not new.

Does not: predict which rows a run has to make again. Rows carry the exact hash of a principle,
which covers its id and every character (`Principle.hash`); `respelled` lists those whose rows are
made again although their meaning is the same.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.constitution import Constitution, Principle
from pipeline.ids import canonical_json, content_hash

REQUESTS = ("critique_request", "revision_request", "comparison_request")
TEXTS = (*REQUESTS, "rationale")


@dataclass(frozen=True)
class Rewording:
    """A request or a rationale whose meaning changed."""

    principle_id: str
    request: str
    """One of `TEXTS`."""
    before: str
    after: str


@dataclass(frozen=True)
class Change:
    """A value of a principle, before and after: an id, a weight, or a place counted from 1."""

    principle_id: str
    """The id in the new version."""
    before: str
    after: str


@dataclass(frozen=True)
class ConstitutionDiff:
    """All changes; empty tuples where there are none."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    reworded: tuple[Rewording, ...]
    rechecked: tuple[Change, ...]
    """Another check, or one where there was none, or none any more."""
    renamed: tuple[Change, ...]
    reprioritized: tuple[Change, ...]
    """Another priority, or other conflicts, by the ids of the new version."""
    reweighted: tuple[Change, ...]
    """With the share of draws: `1 (6.2 %)`."""
    retagged: tuple[Change, ...]
    moved: tuple[Change, ...]
    """The fewest principles whose move explains the new order; moves do not affect draws."""
    respelled: tuple[str, ...]
    """Equal meaning, different characters: their rows have another hash."""
    num_unchanged: int
    """Principles with the same id, wording, weight, priority, conflicts and tags."""

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"added {name}" for name in self.added]
        lines += [f"removed {name}" for name in self.removed]
        for each in self.reworded:
            lines.append(f"reworded {each.principle_id}, {each.request}")
            lines += [f"  - {each.before or 'none'}", f"  + {each.after or 'none'}"]
        for what in ("rechecked", "renamed", "reprioritized", "reweighted", "retagged", "moved"):
            lines += [
                f"{what} {c.principle_id}: {c.before or 'none'} -> {c.after or 'none'}"
                for c in getattr(self, what)
            ]
        lines += [f"respelled {name}: same meaning, other hash" for name in self.respelled]
        lines.append(f"{self.num_unchanged} principles unchanged")
        return "\n".join(lines)


def semantic_hash(principle: Principle) -> str:
    """Hash of the meaning of the requests, the rationale and the check, 16 hex digits."""
    check = [principle.check_values] if principle.check else []
    rationale = [["rationale", _folded(principle.rationale)]] if principle.rationale else []
    requests = (_folded(getattr(principle, key)) for key in REQUESTS)
    return content_hash([*requests, *check, *rationale])[:16]


def diff_constitutions(old: Constitution, new: Constitution) -> ConstitutionDiff:
    """What changed from `old` to `new`."""
    pairs = _matched(old, new)
    matched_old = {before.id for before, _ in pairs}
    matched_new = {after.id for _, after in pairs}
    new_ids = {before.id: after.id for before, after in pairs}
    same = [(b, a) for b, a in pairs if semantic_hash(b) == semantic_hash(a)]

    def changed(
        of_old: Callable[[Principle], str], of_new: Callable[[Principle], str]
    ) -> tuple[Change, ...]:
        return tuple(
            Change(after.id, was, now)
            for before, after in pairs
            if (was := of_old(before)) != (now := of_new(after))
        )

    return ConstitutionDiff(
        added=tuple(p.id for p in new.principles if p.id not in matched_new),
        removed=tuple(p.id for p in old.principles if p.id not in matched_old),
        reworded=tuple(
            Rewording(after.id, key, getattr(before, key), getattr(after, key))
            for before, after in pairs
            for key in TEXTS
            if _folded(getattr(before, key)) != _folded(getattr(after, key))
        ),
        rechecked=changed(_check, _check),
        renamed=changed(lambda p: p.id, lambda p: p.id),
        reprioritized=changed(lambda p: _rank(p, old, new_ids), lambda p: _rank(p, new, {})),
        reweighted=tuple(
            Change(a.id, _weight(b, old), _weight(a, new)) for b, a in pairs if a.weight != b.weight
        ),
        retagged=tuple(
            Change(a.id, ", ".join(b.tags), ", ".join(a.tags))
            for b, a in pairs
            if set(a.tags) != set(b.tags)
        ),
        moved=_moved(pairs, old, new),
        respelled=tuple(a.id for b, a in same if a.hash != b.hash and a.id == b.id),
        num_unchanged=sum(
            a.id == b.id
            and a.weight == b.weight
            and set(a.tags) == set(b.tags)
            and _rank(b, old, new_ids) == _rank(a, new, {})
            for b, a in same
        ),
    )


def _matched(old: Constitution, new: Constitution) -> list[tuple[Principle, Principle]]:
    """Principles that are the same rule in both, in the new order: by id, else by meaning."""
    by_id = {p.id: p for p in old.principles}
    taken = {p.id for p in new.principles if p.id in by_id}
    by_meaning: dict[str, list[Principle]] = {}
    for principle in old.principles:
        if principle.id not in taken:
            by_meaning.setdefault(semantic_hash(principle), []).append(principle)
    pairs = []
    for after in new.principles:
        candidates = by_meaning.get(semantic_hash(after), [])
        if after.id in by_id:
            pairs.append((by_id[after.id], after))
        elif candidates:
            pairs.append((candidates.pop(0), after))
    return pairs


def _moved(
    pairs: list[tuple[Principle, Principle]], old: Constitution, new: Constitution
) -> tuple[Change, ...]:
    place_old = {p.id: i for i, p in enumerate(old.principles)}
    place_new = {p.id: i for i, p in enumerate(new.principles)}
    in_order = _longest_increasing([place_old[before.id] for before, _ in pairs])
    return tuple(
        Change(after.id, str(place_old[before.id] + 1), str(place_new[after.id] + 1))
        for index, (before, after) in enumerate(pairs)
        if index not in in_order
    )


def _longest_increasing(values: list[int]) -> set[int]:
    """Indices of a longest increasing subsequence (patience sorting)."""
    tails: list[int] = []
    ends: list[int] = []
    previous: list[int | None] = []
    for index, value in enumerate(values):
        at = bisect_left(tails, value)
        previous.append(ends[at - 1] if at else None)
        tails[at : at + 1] = [value]
        ends[at : at + 1] = [index]
    longest: set[int] = set()
    step = ends[-1] if ends else None
    while step is not None:
        longest.add(step)
        step = previous[step]
    return longest


def _folded(text: str) -> str:
    folded = " ".join(text.split())
    return folded[:1].lower() + folded[1:]


def _check(principle: Principle) -> str:
    return canonical_json(principle.check_values) if principle.check else ""


def _weight(principle: Principle, constitution: Constitution) -> str:
    total = sum(p.weight for p in constitution.principles)
    return f"{principle.weight:g} ({100 * principle.weight / total:.1f} % of draws)"


def _rank(principle: Principle, constitution: Constitution, new_ids: Mapping[str, str]) -> str:
    """Priority and conflicts, from whichever side they are named, in words; empty for neither."""
    named = {p.id for p in constitution.principles if principle.id in p.conflicts}
    others = sorted(new_ids.get(name, name) for name in named | set(principle.conflicts))
    conflicts = f", in conflict with {', '.join(others)}" if others else ""
    return f"priority {principle.priority}{conflicts}" if principle.priority or others else ""
