"""From a source list to rows: each source with its importer.

config = load_sources(Path("labels.yaml"))
imports = import_sources(config)
mixture = mix(imports, {s.name: s.weight for s in config.sources}, size=config.size)
"""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.records import PreferenceRow
from pipeline.soft_labels import margin
from pipeline.sources.config import (
    AnySource,
    DatasetSource,
    ExpertSource,
    FeedbackSource,
    LabelsConfig,
    OptionsSource,
    TranscriptsSource,
)
from pipeline.sources.expert import import_expert
from pipeline.sources.feedback import import_feedback
from pipeline.sources.hh_rlhf import import_transcripts
from pipeline.sources.hhh import import_options
from pipeline.sources.pairs import import_pairs
from pipeline.sources.rows import (
    Imported,
    LabeledRow,
    SourceInfo,
    imported,
    pair_fault,
    prompt_id,
    response_id,
)
from pipeline.types import Messages, messages_from

_COLUMNS = ("row_id", "messages", "chosen", "rejected", "soft_label")


def import_source(source: AnySource, *, seed: int = 0) -> Imported:
    """The rows of one source. Raises DataError with file and line."""
    match source:
        case TranscriptsSource():
            return import_transcripts(source)
        case OptionsSource():
            return import_options(source)
        case FeedbackSource():
            return import_feedback(source)
        case ExpertSource():
            return import_expert(source, seed=seed)
        case DatasetSource():
            return import_dataset(source)
        case _:
            return import_pairs(source)


def import_sources(config: LabelsConfig) -> list[Imported]:
    """All sources of a list, in order. Raises DataError with file and line."""
    return [import_source(source, seed=config.seed) for source in config.sources]


def import_dataset(source: DatasetSource) -> Imported:
    """The pairs of a Parquet file that a run of this pipeline wrote, with their own soft labels.

    A row that a label file could not give either (empty, identical, no conversation to ask) is dropped.

    Raises:
        DataError: the file is no Parquet file or lacks a column; or a soft label is no probability
            of the chosen side, which would turn the pair around: names the row.
    """
    values = _parquet_rows(source.path)
    return imported(
        source.info,
        [_from_values(source.info, number, value) for number, value in enumerate(values, start=1)],
    )


def from_preferences(name: str, rows: Iterable[PreferenceRow]) -> list[LabeledRow]:
    """Our own pairs as rows of a source of kind `ai`, ids kept; for mixing and agreement."""
    return [
        LabeledRow(
            **{each.name: getattr(row, each.name) for each in fields(PreferenceRow)},
            source=name,
            source_kind="ai",
            source_index=index,
        )
        for index, row in enumerate(rows, start=1)
    ]


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"label file {path} does not exist; check the path") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"label file {path} is no Parquet file ({error})") from None
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            f"label file {path} has no column '{missing[0]}'; a dataset of pairs with "
            f"{', '.join(_COLUMNS)} is needed, such as dataset/preference.parquet of a run"
        )
    return table.to_pylist()


def _from_values(info: SourceInfo, number: int, value: dict[str, Any]) -> LabeledRow:
    where = f"{info.path}, row {number} ({value['row_id']})"
    messages = _messages(value["messages"], where)
    chosen, rejected = value["chosen"] or "", value["rejected"] or ""
    soft_label = info.trust if value["soft_label"] is None else value["soft_label"]
    if not 0.5 <= soft_label <= 1:
        raise DataError(
            f"{where}: the soft label is {soft_label}, but a probability in [0.5, 1] is needed that "
            "the chosen response is better; exchange the sides of such rows, or leave them out"
        )
    status, reason = value.get("status") or "ok", value.get("reason") or ""
    if status == "ok" and (reason := pair_fault(messages, chosen, rejected, soft_label)):
        status = "dropped"
    prompt = prompt_id(messages)
    return LabeledRow(
        row_id=value["row_id"],
        parent_ids=tuple(value.get("parent_ids") or ()),
        run_id=value.get("run_id") or "",
        status=status,
        reason=reason,
        prompt_id=prompt,
        judgment_id=value.get("judgment_id") or "",
        comparison=value.get("comparison") or "imported",
        principle_id=value.get("principle_id") or "",
        messages=messages,
        chosen=chosen,
        rejected=rejected,
        chosen_id=value.get("chosen_id") or response_id(prompt, chosen),
        rejected_id=value.get("rejected_id") or response_id(prompt, rejected),
        soft_label=soft_label,
        margin=margin(soft_label),
        position_gap=value.get("position_gap"),
        source=info.name,
        source_kind=info.kind,
        source_index=number,
    )


def _messages(value: Any, where: str) -> Messages:
    try:
        return messages_from(value)
    except (KeyError, TypeError):
        raise DataError(
            f"{where}: 'messages' must be a list of turns with role and content; found {value!r:.80}"
        ) from None
