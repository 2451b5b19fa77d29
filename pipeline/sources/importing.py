"""From a source list to rows: each source type with its reader.

config = load_sources(Path("labels.yaml"))
imports = import_sources(config)
mixture = mix(imports, {s.name: s.weight for s in config.sources}, size=config.size)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipeline.errors import DataError
from pipeline.ids import prompt_id
from pipeline.records import STATUSES, Status
from pipeline.soft_labels import margin
from pipeline.sources.config import (
    AnySource,
    BattlesSource,
    BinarizedSource,
    DatasetSource,
    ExpertSource,
    FeedbackSource,
    LabelsConfig,
    OpenAISource,
    OptionsSource,
    PairsSource,
    RankedSource,
    ShareGPTSource,
    TranscriptsSource,
)
from pipeline.sources.expert import import_expert
from pipeline.sources.feedback import import_feedback
from pipeline.sources.hh_rlhf import import_transcripts
from pipeline.sources.hhh import import_options
from pipeline.sources.lines import parquet_rows
from pipeline.sources.pairs import import_pairs
from pipeline.sources.ranked import import_ranked
from pipeline.sources.rows import Imported, LabeledRow, imported, pair_fault, response_id
from pipeline.types import Messages, Role, messages_from

_COLUMNS = ("row_id", "messages", "chosen", "rejected", "soft_label")


def import_dataset(source: DatasetSource, seed: int = 0) -> Imported:
    """The pairs of a Parquet file that a run of this pipeline wrote, with their own soft labels.

    Rows that a label file could not contribute either (an empty response, identical responses, a
    conversation that a model cannot be asked) are dropped.

    Raises:
        DataError: the file is not Parquet or lacks a column; or a soft label is not a probability
            of the chosen side, which would reverse the pair: names the row.
    """
    values = _parquet_rows(source.path)
    return imported(source, [_row(source, n, value) for n, value in enumerate(values, start=1)])


@dataclass(frozen=True)
class SourceType:
    """One `type` of a source list."""

    config: type[AnySource]
    """Its settings."""
    read: Callable[[Any, int], Imported]
    """Reads a source with these settings; the integer is the seed of the list."""
    one_file_of_pairs: bool = False
    """Whether it is one file of pairs that people labeled: what `rlaif judge-eval FILE` takes."""


SOURCE_TYPES: dict[str, SourceType] = {
    "pairs": SourceType(PairsSource, import_pairs, one_file_of_pairs=True),
    "openai": SourceType(OpenAISource, import_pairs, one_file_of_pairs=True),
    "sharegpt": SourceType(ShareGPTSource, import_pairs, one_file_of_pairs=True),
    "binarized": SourceType(BinarizedSource, import_pairs, one_file_of_pairs=True),
    "battles": SourceType(BattlesSource, import_pairs, one_file_of_pairs=True),
    "ranked": SourceType(RankedSource, import_ranked),
    "hh-rlhf": SourceType(TranscriptsSource, import_transcripts, one_file_of_pairs=True),
    "hhh": SourceType(OptionsSource, import_options, one_file_of_pairs=True),
    "feedback": SourceType(FeedbackSource, import_feedback),
    "expert": SourceType(ExpertSource, import_expert),
    "dataset": SourceType(DatasetSource, import_dataset),
}


def import_source(source: AnySource, *, seed: int = 0) -> Imported:
    """The rows of one source. Raises DataError with file and line."""
    return SOURCE_TYPES[source.type].read(source, seed)


def import_sources(config: LabelsConfig) -> list[Imported]:
    """All sources of a list, in order. Raises DataError with file and line."""
    return [import_source(source, seed=config.seed) for source in config.sources]


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    # Turns are checked row by row, so that a message names the row.
    types = [column for column in LabeledRow.schema() if column.name != "messages"]
    names, rows = parquet_rows(path, types)
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        raise DataError(
            f"label file {path} has no column '{missing[0]}'; a dataset of pairs with "
            f"{', '.join(_COLUMNS)} is needed, such as dataset/preference.parquet of a run"
        )
    return rows


def _row(source: DatasetSource, number: int, value: dict[str, Any]) -> LabeledRow:
    where = f"{source.path}, row {number} ({value['row_id']})"
    messages = _messages(value["messages"], where)
    chosen, rejected = value["chosen"] or "", value["rejected"] or ""
    soft_label = value["soft_label"]
    if soft_label is None:
        soft_label = source.label_accuracy
    if not 0.5 <= soft_label <= 1:
        raise DataError(
            f"{where}: the soft label is {soft_label}, but P(chosen is better), a number in "
            "[0.5, 1], is needed; exchange the sides of such rows, or leave them out"
        )
    status: Status = value.get("status") or "ok"
    if status not in STATUSES:
        raise DataError(
            f"{where}: the status is '{status}', but only {', '.join(STATUSES)} are known"
        )
    reason = value.get("reason") or ""
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
        source=source.name,
        source_kind=source.kind,
        source_index=number,
    )


def _messages(value: Any, where: str) -> Messages:
    try:
        messages = messages_from(value)
        if not all(isinstance(m.content, str) and m.role in get_args(Role) for m in messages):
            raise TypeError
        return messages
    except (KeyError, TypeError):
        raise DataError(
            f"{where}: 'messages' must be a list of turns with role and content; found "
            f"{value!r:.80}"
        ) from None
