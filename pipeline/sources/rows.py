"""Rows of imported labels, and the record of where they came from.

    pairwise labels, transcripts, expert answers -> LabeledRow     a PreferenceRow with its source
    thumbs up and down, regenerate events        -> FeedbackRow    one reply, good or bad (KTO)

A line that cannot be used is kept as a row of status `dropped` with its reason, as everywhere in
this project; a line that cannot be read at all stops the import with file and line.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pipeline.errors import DataError
from pipeline.ids import file_hash, plain_text, prompt_id, row_id
from pipeline.records import PreferenceRow, Row, count_statuses, table_from_rows
from pipeline.soft_labels import margin
from pipeline.sources.config import Source
from pipeline.sources.conversations import conversation_fault, turn_fault
from pipeline.sources.lines import Line
from pipeline.store.files import atomic_write
from pipeline.store.shards import count_reasons, parquet_bytes
from pipeline.types import Messages, is_blank

_EVIDENCE = re.compile(
    r"(?i)score|rating|margin|reward|rank|strength|winner|prefer|better|verdict|vote|flip|swap|revers"
    r"|(?:^|_)tie(?:$|_)"
)


_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#x?[0-9a-fA-F]+);")
MISSING = (
    *("nan", "none", "null", "n/a", "#n/a", "<na>"),
    *("#ref!", "#name?", "#value!", "#div/0!", "#num!", "#null!"),
)
"""How programs write a value that is not there, in lower case."""
MAY_BE_MISSING = "a response that may stand for a missing value (such as nan): kept as it is"
ENTITIES = "HTML entities (such as &amp;) in a response: kept as they are"


@dataclass(frozen=True, kw_only=True)
class LabeledRow(PreferenceRow):
    """A pair that somebody labeled, in the shape of our own pairs."""

    kind: ClassVar[str] = "labeled"
    source: str = ""
    """Name of the source, as in the source list."""
    source_kind: str = ""
    """`human`, `expert`, `user` or `ai`."""
    source_index: int = 0
    """Line in the source's file, from 1."""
    annotator: str = ""
    """Who labeled it, if the file says so."""
    tags: tuple[str, ...] = ()

    @property
    def label_key(self) -> str:
        """Equal for two rows that are the same label: the row id."""
        return self.row_id


@dataclass(frozen=True, kw_only=True)
class FeedbackRow(Row):
    """One reply that users liked or did not like: an unpaired row for KTO."""

    kind: ClassVar[str] = "feedback"
    prompt_id: str = ""
    messages: Messages = ()
    completion: str = ""
    completion_id: str = ""
    label: bool = False
    """True for desirable."""
    weight: float = 0.0
    """Strength of the evidence, in (0, 1]; 0 when the row is dropped."""
    events: tuple[str, ...] = ()
    """The events that it sums up, in the order of the file."""
    source: str = ""
    source_kind: str = ""
    source_index: int = 0
    """Line of the first event."""

    @property
    def label_key(self) -> str:
        """Equal for two rows that are the same label; see `feedback_key`."""
        return feedback_key(self.completion_id, self.label, self.weight)


@dataclass(frozen=True)
class SourceRecord:
    """Counts of one imported source, for reports and cards."""

    name: str
    kind: str
    path: str
    sha256: str
    label_accuracy: float
    num_rows: int
    num_ok: int
    num_dropped: int
    reasons: dict[str, int] = field(default_factory=dict)
    """Dropped rows by reason."""
    notes: dict[str, int] = field(default_factory=dict)
    """Irregularities of rows, whether kept or dropped, and how often each occurs."""
    unread: tuple[str, ...] = ()
    """Columns of the file that nothing read."""

    @property
    def unread_evidence(self) -> tuple[str, ...]:
        """Columns that were not read and whose names promise evidence for or against a label."""
        return tuple(name for name in self.unread if _EVIDENCE.search(name))

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{self.name} ({self.kind}): {self.num_ok} of {self.num_rows} rows usable"]
        lines += [f"  dropped {count}: {reason}" for reason, count in self.reasons.items()]
        lines += [f"  noted {count}: {note}" for note, count in self.notes.items()]
        if self.unread:
            lines.append(f"  columns not read: {', '.join(map(_shown, self.unread))}")
        if self.unread_evidence:
            names = ", ".join(map(_shown, self.unread_evidence))
            lines.append(f"  may contradict the labels, and were not read: {names}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Imported:
    """The rows of one source, dropped ones included, with the record of the source."""

    rows: tuple[Any, ...]
    record: SourceRecord

    @property
    def usable(self) -> list[Any]:
        """Rows of status ok."""
        return [row for row in self.rows if row.status == "ok"]


def response_id(prompt: str, text: str) -> str:
    """Id of a text that no model of ours wrote, below its prompt."""
    return row_id("imported-response", prompt, text)


def feedback_key(completion_id: str, label: bool, weight: float) -> str:
    """Hash of a reply, its label and its weight: rows that agree in all three are one label."""
    return row_id("feedback label", completion_id, label, weight)


def labeled_row(
    source: Source,
    index: int,
    messages: Messages,
    chosen: str,
    rejected: str,
    *,
    reason: str = "",
    label_accuracy: float | None = None,
    annotator: str = "",
    tags: tuple[str, ...] = (),
) -> LabeledRow:
    """A pair of a label file; its status is `dropped` when it cannot be trained on.

    Args:
        index: line in the file, from 1.
        reason: why the importer drops it; empty for a pair that only needs the checks made here
            (empty response, identical responses, tie).
        label_accuracy: probability that this label is right, in [0.5, 1]; None for the source's.
    """
    soft_label = source.label_accuracy if label_accuracy is None else label_accuracy
    reason = reason or text_fault(chosen, rejected) or ("tie" if soft_label <= 0.5 else "")
    prompt = prompt_id(messages)
    return LabeledRow(
        row_id=row_id("labeled", source.name, index, prompt, chosen, rejected, annotator),
        status="dropped" if reason else "ok",
        reason=reason,
        prompt_id=prompt,
        comparison="imported",
        messages=messages,
        chosen=chosen,
        rejected=rejected,
        chosen_id=response_id(prompt, chosen),
        rejected_id=response_id(prompt, rejected),
        soft_label=soft_label,
        margin=margin(soft_label),
        source=source.name,
        source_kind=source.kind,
        source_index=index,
        annotator=annotator,
        tags=tags,
    )


def text_fault(chosen: str, rejected: str) -> str:
    """Why two responses cannot form a pair; empty when they can."""
    if fault := turn_fault(chosen, "assistant") or turn_fault(rejected, "assistant"):
        return fault
    if is_blank(chosen) or is_blank(rejected):
        return "empty response"
    return "identical responses" if plain_text(chosen) == plain_text(rejected) else ""


def pair_fault(messages: Messages, chosen: str, rejected: str, soft_label: float) -> str:
    """Why a finished pair cannot be trained on; empty when it can."""
    return (
        conversation_fault(messages)
        or text_fault(chosen, rejected)
        or ("tie" if soft_label <= 0.5 else "")
    )


def imported(
    source: Source, rows: Sequence[Row], notes: Iterable[str] = (), lines: Iterable[Line] = ()
) -> Imported:
    """Rows with the record of their source; `notes` has one string per irregularity.

    Args:
        lines: what the rows were read from, for the columns that nothing read.

    Raises:
        DataError: the file has no row, or none that can be used.
    """
    path = source.path
    if not rows:
        raise DataError(f"{path} has no rows, but a label source needs some; check the path")
    reasons = {key.removeprefix("dropped: "): n for key, n in count_reasons(rows).items()}
    num_ok = count_statuses(rows)["ok"]
    if not num_ok:
        listed = ", ".join(f"{n} x {reason}" for reason, n in reasons.items())
        raise DataError(
            f"none of the {len(rows)} rows of {path} can be used ({listed}); check its type and "
            "columns in the source list"
        )
    pairs = [(row.chosen, row.rejected) for row in rows if isinstance(row, LabeledRow)]
    escaped = sum(any(map(_ENTITY.search, texts)) for texts in pairs)
    missing = sum(any(text.casefold() in MISSING for text in texts) for texts in pairs)
    notes = [*notes, *[ENTITIES] * escaped, *[MAY_BE_MISSING] * missing]
    record = SourceRecord(
        name=source.name,
        kind=source.kind,
        path=path.name,
        sha256=file_hash(path),
        label_accuracy=source.label_accuracy,
        num_rows=len(rows),
        num_ok=num_ok,
        num_dropped=len(rows) - num_ok,
        reasons=reasons,
        notes=dict(sorted(Counter(notes).items())),
        unread=_unread(lines),
    )
    return Imported(tuple(rows), record)


def _shown(name: str) -> str:
    """A column name without what a terminal would act on."""
    return name if name.isprintable() else repr(name)


def _unread(lines: Iterable[Line]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    read: set[str] = set()
    for line in lines:
        names.update(dict.fromkeys(line.values))
        read |= line.read
    return tuple(name for name in names if name not in read)


def write_labels(path: Path, rows: Sequence[Row]) -> None:
    """Write the usable rows, all of one kind, as Parquet with every column that training needs.

    Raises:
        DataError: no row is usable. StoreError: the file cannot be written.
    """
    usable = [row for row in rows if row.status == "ok"]
    if not usable:
        raise DataError(f"no usable row to write to {path}; see the reasons of the import")
    data = parquet_bytes(table_from_rows(usable, type(usable[0])))

    def write(stream: BinaryIO) -> None:
        stream.write(data)

    atomic_write(path, write)
