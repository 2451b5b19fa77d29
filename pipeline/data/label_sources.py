"""Label sources of a run: imported before the run begins, mixed into its preference set at its end.

In:  the source list of a recipe (preference.sources), label files, the run's own pairs
Out: Mixture: rows to append, which own pairs stay, and what became of every source

    labeling/sources.yaml   the list as it was when the run began
    labeling/sources.json   path and SHA-256 of each label file; a changed file is refused

Label files are read whole. The run's own pairs stream through: what stays in memory of them is a
count in each of 65,536 bins.

Does not: find a held-out prompt that was changed by more than white space at the ends of its turns.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, resolve_path
from pipeline.data.dataset import SourceUse
from pipeline.data.id_set import IdSet
from pipeline.data.prompt_lines import display_path
from pipeline.data.prompts import read_prompts
from pipeline.errors import DataError
from pipeline.ids import file_hash
from pipeline.labels.config import AnySource, ExpertSource, MixtureConfig, load_mixture
from pipeline.labels.mixing import drawn, largest_remainder, largest_size, mix_number
from pipeline.labels.rows import Imported, LabeledRow, prompt_id
from pipeline.labels.sources import import_source
from pipeline.store.files import read_json, write_json
from pipeline.store.layout import RunDir
from pipeline.types import Message

LIST_NAME = "sources.yaml"
LIST, HASHES = f"labeling/{LIST_NAME}", "labeling/sources.json"
BINS = 1 << 16
HELD_OUT = "its prompt is held out"
BY_WEIGHT = "left out by weight"
OwnIds = Callable[[], Iterable[str]]
"""Ids of the run's own pairs that could go in, from the start each time it is called."""


@dataclass(frozen=True)
class RunMixture:
    """What goes into a preference set besides, and instead of, the run's own pairs."""

    own_name: str = "run"
    rows: tuple[LabeledRow, ...] = ()
    """Rows of other sources, in seeded order."""
    own_limit: float | None = None
    """Own pairs with a larger seeded number stay out; None for all in."""
    seed: int = 0
    candidates: int = 0
    """Rows in the label files."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Those left out, by source and reason."""
    uses: tuple[SourceUse, ...] = ()

    def keeps(self, row_id: str) -> bool:
        """Whether an own pair goes in."""
        return self.own_limit is None or mix_number(row_id, self.seed) <= self.own_limit


def check_label_sources(config: RunConfig) -> list[str]:
    """Import everything that the recipe's source list names; returns a line per source.

    Raises:
        ConfigError: the list is wrong. DataError: a file is, with its line.
    """
    if config.preference.sources is None:
        return []
    listed = load_mixture(resolve_path(config.preference.sources))
    records = [import_source(source, seed=listed.seed).record for source in _resolved(listed)]
    return ["; ".join(line.strip() for line in record.text().splitlines()) for record in records]


def record_label_files(run: RunDir, listed: MixtureConfig) -> Path:
    """Write labeling/sources.json; returns its path."""
    path = run.root / HASHES
    write_json(path, [
        {"source": source.name, "path": display_path(file), "sha256": file_hash(file)}
        for source in _resolved(listed) for file in _files(source)
    ])
    return path


def mix_into_run(run: RunDir, config: RunConfig, known: IdSet, own_ids: OwnIds) -> RunMixture:
    """Decide which rows of which source make up the preference set.

    Args:
        known: ids of rows that the parent's version brings already.

    Raises:
        DataError: a label file is missing, or is not what it was when the run began.
    """
    if config.preference.sources is None:
        return RunMixture()
    listed = load_mixture(run.root / LIST)
    _check_unchanged(run, listed)
    imports = [import_source(source, seed=listed.seed) for source in _resolved(listed)]
    reasons: Counter[str] = Counter()
    usable = _usable(imports, _heldout_ids(config), known, own_ids, reasons)
    owns = _OwnPairs(own_ids, listed.seed)
    owed = _owed(listed, {**{n: len(r) for n, r in usable.items()}, listed.own_name: owns.count})
    taken = {name: drawn(rows, owed[name], listed.seed) for name, rows in usable.items()}
    for name, rows in usable.items():
        reasons[f"{name}: {BY_WEIGHT}"] += len(rows) - len(taken[name])
    merged = drawn([row for rows in taken.values() for row in rows], sum(owed.values()), listed.seed)
    return RunMixture(
        own_name=listed.own_name, seed=listed.seed, own_limit=owns.limit(owed[listed.own_name]),
        # Its words are no principle's, and its origin is a line of a file.
        rows=tuple(replace(row, run_id=run.run_id, principle_id="", judgment_id="",
                           comparison="imported", parent_ids=()) for row in merged),
        candidates=sum(each.record.num_rows for each in imports),
        reasons=+reasons, uses=tuple(_uses(listed, imports, taken, owed, owns.count)),
    )


def label_file(run: RunDir, source: str) -> dict[str, Any] | None:
    """Path and hash of the file that a source came from, as recorded when the run began."""
    found = read_json(run.root / HASHES) or []
    return next((dict(entry) for entry in found if entry["source"] == source), None)


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
    imports: Sequence[Imported], heldout: IdSet, known: IdSet, own_ids: OwnIds,
    reasons: Counter[str],
) -> dict[str, list[LabeledRow]]:
    """Rows of each source that could go in; the others are counted with their reason."""
    imported = {row.row_id for each in imports for row in each.usable}
    own = {row_id for row_id in own_ids() if row_id in imported}
    seen: set[str] = set()
    usable: dict[str, list[LabeledRow]] = {}
    for each in imports:
        rows = usable.setdefault(each.record.name, [])
        for row in each.rows:
            reason = row.reason if row.status != "ok" else _why_not(row, heldout, known, own, seen)
            if reason:
                reasons[f"{each.record.name}: {reason}"] += 1
            else:
                seen.add(row.row_id)
                rows.append(row)
    return usable


def _why_not(
    row: LabeledRow, heldout: IdSet, known: IdSet, own: set[str], seen: set[str]
) -> str:
    if prompt_id(row.messages) in heldout:
        return HELD_OUT
    if row.row_id in known:
        return "already in the parent's version"
    if row.row_id in own:
        return "the run has this pair itself"
    return "the same row as in an earlier source" if row.row_id in seen else ""


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


def _uses(
    listed: MixtureConfig, imports: Sequence[Imported], taken: dict[str, list[LabeledRow]],
    owed: dict[str, int], num_own: int,
) -> Iterator[SourceUse]:
    own = listed.own_name
    yield SourceUse(
        name=own, kind="ai", weight=listed.own.weight if listed.own else None, file="", sha256="",
        trust=None, rows=num_own, usable=num_own, owed=owed[own], taken=min(owed[own], num_own),
    )
    for each, source in zip(imports, listed.files, strict=True):
        record = each.record
        yield SourceUse(
            name=record.name, kind=record.kind, weight=source.weight, file=record.path,
            sha256=record.sha256, trust=None if source.type == "dataset" else record.trust,
            rows=record.num_rows, usable=record.num_ok, owed=owed[record.name],
            taken=len(taken[record.name]),
        )


def _check_unchanged(run: RunDir, listed: MixtureConfig) -> None:
    recorded = {(e["source"], e["path"]): e["sha256"] for e in read_json(run.root / HASHES) or []}
    for source in _resolved(listed):
        for path in _files(source):
            if not path.exists():
                raise DataError(
                    f"label file {path} of run {run.run_id} does not exist any more; bring it back"
                )
            if recorded.get((source.name, display_path(path))) != file_hash(path):
                raise DataError(
                    f"label file {path} has changed since run {run.run_id} began; bring the old one "
                    "back, or start a new run"
                )


def _heldout_ids(config: RunConfig) -> IdSet:
    """Ids of all held-out prompts, used for evaluation or not."""
    rows = read_prompts([resolve_path(path) for path in config.prompts.heldout])
    return IdSet(
        # Importers strip each turn.
        prompt_id(tuple(Message(m.role, m.content.strip()) for m in row.messages)) for row in rows
    )


def _resolved(listed: MixtureConfig) -> list[AnySource]:
    """The file sources with their paths as a recipe's are resolved."""
    found: list[AnySource] = []
    for source in listed.files:
        paths = {"path": resolve_path(source.path)}
        if isinstance(source, ExpertSource) and source.responses is not None:
            paths["responses"] = resolve_path(source.responses)
        found.append(source.model_copy(update=paths))
    return found


def _files(source: AnySource) -> list[Path]:
    extra = source.responses if isinstance(source, ExpertSource) else None
    return [source.path, *([extra] if extra else [])]
