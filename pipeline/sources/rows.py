"""Rows of imported labels, and the record of where they came from.

    pairwise labels, transcripts, expert answers -> LabeledRow     a PreferenceRow with its source
    thumbs up and down, regenerate events        -> FeedbackRow    one reply, good or bad (KTO)

A line that cannot be used is kept as a row of status `dropped` with its reason, as everywhere in
this project; a line that cannot be read at all stops the import with file and line.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipeline.errors import DataError
from pipeline.ids import file_hash, plain_text, row_id
from pipeline.records import PreferenceRow, Row, count_statuses, table_from_rows
from pipeline.soft_labels import margin
from pipeline.sources.conversations import BROKEN_TEXT, conversation_fault, is_unicode
from pipeline.store.files import atomic_write
from pipeline.store.shards import count_reasons, parquet_bytes
from pipeline.types import Messages

SourceKind = Literal["human", "expert", "user", "ai"]


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
    def says(self) -> str:
        """What the row says of which reply, as an id; see `feedback_says`."""
        return feedback_says(self.completion_id, self.label, self.weight)


@dataclass(frozen=True)
class SourceInfo:
    """What every importer must know about its source."""

    name: str
    kind: SourceKind
    path: Path
    trust: float = 1.0
    """Probability that a label of this source is right, in (0.5, 1]; it becomes the soft label."""


@dataclass(frozen=True)
class SourceRecord:
    """What was read from a source and what became of it; goes into reports and cards."""

    name: str
    kind: str
    path: str
    sha256: str
    trust: float
    num_rows: int
    num_ok: int
    num_dropped: int
    reasons: dict[str, int] = field(default_factory=dict)
    """Dropped rows by reason."""
    notes: dict[str, int] = field(default_factory=dict)
    """Irregularities of rows, kept or not: what was seen, how often."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{self.name} ({self.kind}): {self.num_ok} of {self.num_rows} rows usable"]
        lines += [f"  dropped {count}: {reason}" for reason, count in self.reasons.items()]
        lines += [f"  noted {count}: {note}" for note, count in self.notes.items()]
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


def prompt_id(messages: Messages) -> str:
    """Id of a conversation: the same in every source."""
    return row_id("prompt", [message.as_dict() for message in messages])


def response_id(prompt: str, text: str) -> str:
    """Id of a text that no model of ours wrote, below its prompt."""
    return row_id("imported-response", prompt, text)


def feedback_says(completion_id: str, label: bool, weight: float) -> str:
    """Id of one side for one reply with so much evidence: two rows with it are the same label."""
    return row_id("feedback says", completion_id, label, weight)


def labeled_row(
    info: SourceInfo,
    index: int,
    messages: Messages,
    chosen: str,
    rejected: str,
    *,
    reason: str = "",
    trust: float | None = None,
    annotator: str = "",
    tags: Sequence[str] = (),
) -> LabeledRow:
    """A row, dropped when `reason` says so, a response is empty, both are the same, or it is a tie.

    Args:
        trust: probability that this label is right, in [0.5, 1]; None for that of the source.
    """
    soft_label = info.trust if trust is None else trust
    reason = reason or text_fault(chosen, rejected) or ("tie" if soft_label <= 0.5 else "")
    prompt = prompt_id(messages)
    return LabeledRow(
        row_id=row_id("labeled", info.name, index, prompt, chosen, rejected, annotator),
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
        source=info.name,
        source_kind=info.kind,
        source_index=index,
        annotator=annotator,
        tags=tuple(tags),
    )


def text_fault(chosen: str, rejected: str) -> str:
    """Why two responses make no pair; empty when they do."""
    if not (chosen.strip() and rejected.strip()):
        return "empty response"
    if not (is_unicode(chosen) and is_unicode(rejected)):
        return BROKEN_TEXT
    return "identical responses" if plain_text(chosen) == plain_text(rejected) else ""


def pair_fault(messages: Messages, chosen: str, rejected: str, soft_label: float) -> str:
    """Why a finished pair is none that can be trained on; empty when it is one."""
    return (
        conversation_fault(messages)
        or text_fault(chosen, rejected)
        or ("tie" if soft_label <= 0.5 else "")
    )


def imported(info: SourceInfo, rows: Sequence[Row], notes: Iterable[str] = ()) -> Imported:
    """Rows with the record of their source; `notes` has one string per irregularity seen.

    Raises:
        DataError: the file has no row, or not one that can be used.
    """
    reasons = {key.removeprefix("dropped: "): n for key, n in count_reasons(rows).items()}
    if not rows:
        raise DataError(f"{info.path} holds no row, but a label source needs some; check the path")
    ok = count_statuses(rows)["ok"]
    if not ok:
        listed = ", ".join(f"{n} x {reason}" for reason, n in reasons.items())
        raise DataError(
            f"none of the {len(rows)} rows of {info.path} can be used ({listed}); check its type "
            "and columns in the source list"
        )
    return Imported(
        tuple(rows),
        SourceRecord(
            name=info.name,
            kind=info.kind,
            path=info.path.name,
            sha256=file_hash(info.path),
            trust=info.trust,
            num_rows=len(rows),
            num_ok=ok,
            num_dropped=len(rows) - ok,
            reasons=reasons,
            notes=dict(sorted(Counter(notes).items())),
        ),
    )


def write_labels(path: Path, rows: Sequence[Row]) -> None:
    """Usable rows of one kind as Parquet; pairs have every column that training needs.

    Raises:
        DataError: no row is usable. StoreError: the file cannot be written.
    """
    usable = [row for row in rows if row.status == "ok"]
    if not usable:
        raise DataError(f"no usable row to write to {path}; see the reasons of the import")
    data = parquet_bytes(table_from_rows(usable, type(usable[0])))
    atomic_write(path, lambda stream: _write(stream, data))


def _write(stream: Any, data: bytes) -> None:
    stream.write(data)
