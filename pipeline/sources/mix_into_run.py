"""Label sources of a run: which of their rows go into its preference set, and which of its own pairs.

In:  the label files of a run (`label_files.py`), the run's own pairs
Out: RunMixture: pairs and feedback to add, which own pairs stay, and what became of every source

A weight counts labels: one pair is one row, and so is one reply with feedback. Label files are read
whole. The run's own pairs stream through: what stays in memory of them is a count in each of 65,536
bins.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from pipeline.config import RunConfig
from pipeline.data.dataset import SourceUse
from pipeline.data.heldout import heldout_keys
from pipeline.data.id_set import IdSet
from pipeline.ids import conversation_key
from pipeline.sources.config import AnySource, FeedbackSource, MixtureConfig
from pipeline.sources.files import read_label_files
from pipeline.sources.mixing import drawn, largest_remainder, largest_size, mix_number
from pipeline.sources.rows import FeedbackRow, Imported, LabeledRow
from pipeline.store.layout import RunDir

BINS = 1 << 16
HELD_OUT = "its prompt is held out"
BY_WEIGHT = "left out by weight"
OwnIds = Callable[[], Iterable[str]]
"""Ids of the run's own pairs that could go in, from the start each time it is called."""
AnyRow = LabeledRow | FeedbackRow


@dataclass(frozen=True)
class Given:
    """What the label sources of one kind, pairs or feedback, give to a run."""

    rows: tuple[AnyRow, ...] = ()
    """In seeded order."""
    candidates: int = 0
    """Rows in the label files."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Those left out, by source and reason."""
    uses: tuple[SourceUse, ...] = ()


@dataclass(frozen=True)
class RunMixture:
    """What goes into a preference set besides, and instead of, the run's own pairs."""

    own_name: str = "run"
    own_limit: float | None = None
    """Own pairs with a larger seeded number stay out; None for all in."""
    seed: int = 0
    pairs: Given = Given()
    """Pairs of other sources; `uses` begins with the run itself."""
    feedback: Given = Given()
    """Replies that users judged on their own, for KTO."""

    def keeps(self, row_id: str) -> bool:
        """Whether an own pair goes in."""
        return self.own_limit is None or mix_number(row_id, self.seed) <= self.own_limit


def mix_into_run(run: RunDir, config: RunConfig, known: IdSet, own_ids: OwnIds) -> RunMixture:
    """Decide which rows of which source make up the preference set.

    Args:
        known: what the parent's version brings already: ids of its pairs, and what its feedback
            says (`FeedbackRow.says`).

    Raises:
        DataError: a label file is missing, or is not what it was when the run began.
    """
    if config.preference.sources is None:
        return RunMixture()
    listed, imports = read_label_files(run)
    reasons: dict[str, Counter[str]] = {each.record.name: Counter() for each in imports}
    usable = _usable(imports, heldout_keys(run, config), known, own_ids, reasons)
    owns = _OwnPairs(own_ids, listed.seed)
    owed = _owed(listed, {**{n: len(r) for n, r in usable.items()}, listed.own_name: owns.count})
    taken = {name: drawn(rows, owed[name], listed.seed) for name, rows in usable.items()}
    for name, rows in usable.items():
        reasons[name][BY_WEIGHT] += len(rows) - len(taken[name])
    merged = drawn(
        [row for rows in taken.values() for row in rows], sum(owed.values()), listed.seed
    )

    def given(of_kind: Callable[[AnySource], bool]) -> Given:
        found = [(e, s) for e, s in zip(imports, listed.files, strict=True) if of_kind(s)]
        names = {source.name for _, source in found}
        return Given(
            rows=tuple(_of_run(row, run.run_id) for row in merged if row.source in names),
            candidates=sum(each.record.num_rows for each, _ in found),
            reasons=Counter(
                {
                    f"{n}: {reason}": count
                    for n in reasons
                    if n in names
                    for reason, count in reasons[n].items()
                    if count
                }
            ),
            uses=tuple(_use(e, s, owed[s.name], len(taken[s.name])) for e, s in found),
        )

    pairs = given(lambda source: not isinstance(source, FeedbackSource))
    return RunMixture(
        own_name=listed.own_name,
        seed=listed.seed,
        own_limit=owns.limit(owed[listed.own_name]),
        pairs=replace(pairs, uses=(_own_use(listed, owed, owns.count), *pairs.uses)),
        feedback=given(lambda source: isinstance(source, FeedbackSource)),
    )


class _OwnPairs:
    """Counts own pairs by their seeded number, in bins, so that a limit needs no list of them."""

    def __init__(self, own_ids: OwnIds, seed: int) -> None:
        self._own_ids, self._seed = own_ids, seed
        self._bins = array("q", bytes(8 * BINS))
        for row_id in own_ids():
            self._bins[int(mix_number(row_id, seed) * BINS)] += 1
        self.count = sum(self._bins)

    def limit(self, wanted: int) -> float | None:
        """The largest number of the `wanted` pairs with the smallest ones; None for all pairs."""
        if wanted >= self.count:
            return None
        if wanted <= 0:
            return -1.0
        below, number = 0, 0
        while below + self._bins[number] < wanted:
            below += self._bins[number]
            number += 1
        numbers = (mix_number(row_id, self._seed) for row_id in self._own_ids())
        return sorted(n for n in numbers if int(n * BINS) == number)[wanted - below - 1]


def _usable(
    imports: Sequence[Imported],
    heldout: IdSet,
    known: IdSet,
    own_ids: OwnIds,
    reasons: dict[str, Counter[str]],
) -> dict[str, list[AnyRow]]:
    """Rows of each source that could go in; the others are counted with their reason."""
    imported = {row.row_id for each in imports for row in each.usable}
    own = {row_id for row_id in own_ids() if row_id in imported}
    seen: set[str] = set()
    usable: dict[str, list[AnyRow]] = {}
    for each in imports:
        rows = usable.setdefault(each.record.name, [])
        for row in each.rows:
            reason = row.reason if row.status != "ok" else _why_not(row, heldout, known, own, seen)
            if reason:
                reasons[each.record.name][reason] += 1
            else:
                seen.add(_label_id(row))
                rows.append(row)
    return usable


def _label_id(row: AnyRow) -> str:
    """Two rows with the same one are one label."""
    return row.says if isinstance(row, FeedbackRow) else row.row_id


def _why_not(row: AnyRow, heldout: IdSet, known: IdSet, own: set[str], seen: set[str]) -> str:
    if conversation_key(row.messages) in heldout:
        return HELD_OUT
    if _label_id(row) in known:
        return "already in the parent's version"
    if row.row_id in own:
        return "the run has this pair itself"
    return "the same row as in an earlier source" if _label_id(row) in seen else ""


def _of_run(row: AnyRow, run_id: str) -> AnyRow:
    if isinstance(row, FeedbackRow):
        return replace(row, run_id=run_id)
    # Its words are no principle's, and its origin is a line of a file.
    return replace(
        row, run_id=run_id, principle_id="", judgment_id="", comparison="imported", parent_ids=()
    )


def _owed(listed: MixtureConfig, available: dict[str, int]) -> dict[str, int]:
    """Rows that each source gives at most; see MixtureConfig for the two rules."""
    weights = {source.name: source.weight for source in listed.sources}
    if listed.own is None:
        num_own = available[listed.own_name]
        owed = {name: round(weight * num_own) for name, weight in weights.items()}
        return {**owed, listed.own_name: num_own}
    size = listed.size if listed.size is not None else largest_size(available, weights)
    total = sum(weights.values())
    return largest_remainder({name: size * w / total for name, w in weights.items()}, size)


def _own_use(listed: MixtureConfig, owed: dict[str, int], num_own: int) -> SourceUse:
    own = listed.own_name
    return SourceUse(
        name=own,
        kind="ai",
        weight=listed.own.weight if listed.own else None,
        file="",
        sha256="",
        trust=None,
        rows=num_own,
        usable=num_own,
        owed=owed[own],
        taken=min(owed[own], num_own),
    )


def _use(each: Imported, source: AnySource, owed: int, taken: int) -> SourceUse:
    record = each.record
    return SourceUse(
        name=record.name,
        kind=record.kind,
        weight=source.weight,
        file=record.path,
        sha256=record.sha256,
        trust=None if source.type in ("dataset", "feedback") else record.trust,
        rows=record.num_rows,
        usable=record.num_ok,
        owed=owed,
        taken=taken,
    )
