"""Label sources of a run: which of their rows, and which of the run's own pairs, make up its
preference set.

In:  the label files of a run (`files.py`), the ids of the run's own pairs
Out: MixtureResult: pairs and feedback to add, which own pairs stay, and what became of every source

A weight counts labels: one pair is one row, and so is one reply with feedback.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from pipeline.config import RunConfig
from pipeline.data.dataset import SourceUse, iter_tables, load_dataset, set_path
from pipeline.data.heldout import heldout_keys
from pipeline.ids import conversation_key
from pipeline.sources.config import AnySource, MixtureConfig, load_mixture
from pipeline.sources.files import LIST, read_label_files
from pipeline.sources.mixing import drawn, mix_number, quotas
from pipeline.sources.rows import FeedbackRow, Imported, LabeledRow
from pipeline.store.layout import RunDir, run_beside

HELD_OUT = "its prompt is held out"
BY_WEIGHT = "left out by weight"
AnyRow = LabeledRow | FeedbackRow


@dataclass(frozen=True)
class SourceRows:
    """What the label sources of one kind, pairs or feedback, contribute to a run."""

    rows: tuple[AnyRow, ...] = ()
    """In seeded order."""
    candidates: int = 0
    """Rows in the label files."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Rows that were left out, by `source: reason`."""
    uses: tuple[SourceUse, ...] = ()


@dataclass(frozen=True)
class MixtureResult:
    """Which rows make up the preference set of a run, its own pairs included."""

    own_name: str = "run"
    own_ids: frozenset[str] | None = None
    """Ids of the own pairs that go in; None for all of them."""
    pairs: SourceRows = SourceRows()
    """Pairs of other sources; `uses` begins with the run itself."""
    feedback: SourceRows = SourceRows()
    """Single replies that users judged, for KTO."""

    def keeps(self, row_id: str) -> bool:
        """Whether an own pair goes in."""
        return self.own_ids is None or row_id in self.own_ids


def mix_into_run(
    run: RunDir, config: RunConfig, known: Collection[str], own_ids: Callable[[], Iterable[str]]
) -> MixtureResult:
    """Decide which rows of which source make up the preference set.

    Args:
        known: `label_key` of every row that the parent's version has.
        own_ids: reads the ids of the run's own usable pairs; called only where sources are mixed.

    Raises:
        DataError: a label file is missing, or has changed since the run began.
    """
    if config.preference.sources is None:
        return MixtureResult()
    if run.info().get("night"):
        return _taken_over(run, run_beside(run.root.parent, str(run.info()["impact_of"])), own_ids)
    listed, imports = read_label_files(run)
    own, own_name = set(own_ids()), listed.own_name
    reasons: dict[str, Counter[str]] = {each.record.name: Counter() for each in imports}
    usable = _usable(imports, heldout_keys(run, config), known, own, reasons)
    available = {name: len(rows) for name, rows in usable.items()} | {own_name: len(own)}
    quota = _quotas(listed, available)
    selected = {name: drawn(rows, quota[name], listed.seed) for name, rows in usable.items()}
    for name, rows in usable.items():
        reasons[name][BY_WEIGHT] += len(rows) - len(selected[name])
    merged = drawn([row for rows in selected.values() for row in rows], None, listed.seed)
    selected_own = heapq.nsmallest(quota[own_name], own, lambda i: mix_number(i, listed.seed))

    def of_kind(unpaired: bool) -> SourceRows:
        entries = [
            (each, source)
            for each, source in zip(imports, listed.files, strict=True)
            if source.unpaired == unpaired
        ]
        names = {source.name for _, source in entries}
        return SourceRows(
            rows=tuple(_of_run(row, run.run_id) for row in merged if row.source in names),
            candidates=sum(each.record.num_rows for each, _ in entries),
            reasons=Counter(
                {
                    f"{name}: {reason}": count
                    for name in reasons
                    if name in names
                    for reason, count in reasons[name].items()
                    if count
                }
            ),
            uses=tuple(_use(e, s, quota[s.name], len(selected[s.name])) for e, s in entries),
        )

    own_use = SourceUse(
        name=own_name,
        kind="ai",
        weight=listed.own.weight if listed.own else None,
        rows=len(own),
        usable=len(own),
        quota=quota[own_name],
        num_selected=len(selected_own),
    )
    pairs = of_kind(unpaired=False)
    return MixtureResult(
        own_name=own_name,
        own_ids=frozenset(selected_own),
        pairs=replace(pairs, uses=(own_use, *pairs.uses)),
        feedback=of_kind(unpaired=True),
    )


def _taken_over(run: RunDir, before: RunDir, own_ids: Callable[[], Iterable[str]]) -> MixtureResult:
    """What the label sources gave to the run that this one makes again: no principle decides it,
    and the files may have changed since. Of the own pairs, again the number that went in.
    """
    dataset = load_dataset(before)
    sets = dataset.sets if dataset else {}

    def of_set(name: str, row_type: type[AnyRow], own_name: str) -> SourceRows:
        if name not in sets:
            return SourceRows()
        empty = row_type(row_id="").as_dict()  # a set does not have every column
        rows = [
            row_type.from_dict({**empty, **values, "run_id": run.run_id})
            for table in iter_tables(set_path(before, name))
            for values in table.to_pylist()
            if values["run_id"] == before.run_id and values["source"] != own_name
        ]
        return SourceRows(tuple(rows), candidates=len(rows), uses=sets[name].sources)

    own = sets["preference"].sources[0]
    seed = load_mixture(run.root / LIST).seed
    selected = heapq.nsmallest(own.num_selected, own_ids(), lambda i: mix_number(i, seed))
    return MixtureResult(
        own_name=own.name,
        own_ids=None if own.num_selected == own.usable else frozenset(selected),
        pairs=of_set("preference", LabeledRow, own.name),
        feedback=of_set("feedback", FeedbackRow, ""),
    )


def _usable(
    imports: Sequence[Imported],
    heldout: Collection[str],
    known: Collection[str],
    own: Collection[str],
    reasons: dict[str, Counter[str]],
) -> dict[str, list[AnyRow]]:
    """Rows of each source that could go in; counts the reasons of the others."""
    seen: set[str] = set()

    def exclusion_reason(row: AnyRow) -> str:
        if row.status != "ok":
            return row.reason or row.status
        if conversation_key(row.messages) in heldout:
            return HELD_OUT
        if row.label_key in known:
            return "already in the parent's version"
        if row.row_id in own:
            return "the run has this pair itself"
        return "the same row as in an earlier source" if row.label_key in seen else ""

    usable: dict[str, list[AnyRow]] = {}
    for each in imports:
        rows = usable.setdefault(each.record.name, [])
        for row in each.rows:
            if reason := exclusion_reason(row):
                reasons[each.record.name][reason] += 1
            else:
                seen.add(row.label_key)
                rows.append(row)
    return usable


def _of_run(row: AnyRow, run_id: str) -> AnyRow:
    if isinstance(row, FeedbackRow):
        return replace(row, run_id=run_id)
    # No principle of this run decided it, and its origin is a line of a file.
    return replace(
        row, run_id=run_id, principle_id="", judgment_id="", comparison="imported", parent_ids=()
    )


def _quotas(listed: MixtureConfig, available: dict[str, int]) -> dict[str, int]:
    """Rows that each source contributes at most; see MixtureConfig for the two rules."""
    weights = {source.name: source.weight for source in listed.sources}
    if listed.own:
        return quotas(available, weights, listed.size)
    num_own = available[listed.own_name]
    by_weight = {name: round(weight * num_own) for name, weight in weights.items()}
    return by_weight | {listed.own_name: num_own}


def _use(each: Imported, source: AnySource, quota: int, num_selected: int) -> SourceUse:
    record = each.record
    return SourceUse(
        name=record.name,
        kind=record.kind,
        weight=source.weight,
        file=record.path,
        sha256=record.sha256,
        label_accuracy=None if source.labels_differ else record.label_accuracy,
        rows=record.num_rows,
        usable=record.num_ok,
        quota=quota,
        num_selected=num_selected,
    )
