"""From shards to finished data sets: `sft.parquet`, `preference.parquet`, and `feedback.parquet`
where users judged single replies.

In:  finished shards of prompts, revisions and pairs, label files
Out: dataset/{sft,preference,feedback}.parquet, manifest.json with counts and reasons, README.md

Shards stream through one at a time. Texts are joined by id. Every row that is left out has a
reason: candidates = rows of this run + the sum of the reasons.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.config.training import DpaConfig
from pipeline.constitution import Constitution
from pipeline.data.card import write_card
from pipeline.data.dataset import (
    FEEDBACK_SCHEMA,
    PREFERENCE_SCHEMA,
    SFT_SCHEMA,
    SetInfo,
    SourceUse,
    fill_columns,
    has_parent_set,
    parent_tables,
    record_set,
    schema_of,
    write_tables,
)
from pipeline.data.directed import DirectedRow, directed_rows
from pipeline.data.prompts import first_shards
from pipeline.engines.reply import with_thought
from pipeline.ids import file_hash, row_id
from pipeline.labeling.contrast import measure_contrast
from pipeline.records import PromptRow, ResponseRow, RevisionRow, SftRow, table_from_rows
from pipeline.sources.mix_into_run import BY_WEIGHT, MixtureResult, SourceRows, mix_into_run
from pipeline.sources.rows import FeedbackRow, LabeledRow, feedback_key
from pipeline.store.files import copy_file
from pipeline.store.layout import RunDir
from pipeline.store.shards import Manifest, iter_manifests, read_rows, read_table, require_manifest
from pipeline.store.stage_names import (
    INITIALS,
    PAIRS,
    PREFERENCE,
    PROMPTS,
    REVISE,
    SCORE,
    SUPERVISED,
    stage_folder,
    stage_folders,
)

DIRECTED_SCHEMA = schema_of(
    DirectedRow, "row_id prompt_id messages completion completion_id score_id angle status run_id"
)
SCHEMAS = {
    "sft": SFT_SCHEMA,
    "preference": PREFERENCE_SCHEMA,
    "feedback": FEEDBACK_SCHEMA,
    "directed": DIRECTED_SCHEMA,
}
BEYOND_TARGET = "beyond prompts.target_pairs"
NO_SET = {"rows": 0, "from_parent": 0, "candidates": 0, "reasons": {}, "sha256": "", "version": 0}


@dataclass
class Tally:
    """Running counts of one export."""

    known: set[str] = field(default_factory=set)
    """Keys of the parent's rows; a row of this run with the same key is left out."""
    reasons: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, str] = field(default_factory=dict)
    candidates: int = 0
    from_parent: int = 0
    rows: int = 0
    sources: tuple[SourceUse, ...] = ()
    feedback: SourceRows = field(default_factory=SourceRows)
    """Unpaired rows of the label sources."""


def export_sft(run: RunDir, config: RunConfig, constitution: Constitution) -> dict[str, Any]:
    """Write dataset/sft.parquet from the revisions, or from the responses without a revision round.

    Returns:
        rows, from_parent, candidates, reasons, sha256, version; zeros, and no file, when the
        recipe leaves the phase out.

    Raises:
        StoreError: a shard is missing or damaged, or the disk is full.
    """
    if not config.supervised.enabled:
        return dict(NO_SET)
    tally = Tally()
    tables = _sft_tables(run, config, tally)
    return _export(run, config, constitution, "sft", tables, tally)


def export_preference(run: RunDir, config: RunConfig, constitution: Constitution) -> dict[str, Any]:
    """Write dataset/preference.parquet from the pairs that are `ok` and the recipe's label sources;
    also dataset/feedback.parquet where a source, or the parent's version, has feedback.

    Returns:
        The counts that `export_sft` returns, and under `feedback` those of the second set.

    Raises:
        StoreError: a shard is missing or damaged, or the disk is full.
        DataError: a label file is missing or has changed since the run began.
    """
    if not config.preference.enabled:
        return dict(NO_SET)
    tally = Tally()
    tables = _preference_tables(run, config, tally)
    counts = _export(run, config, constitution, "preference", tables, tally)
    rows = tally.feedback
    if rows.uses or has_parent_set(run, "feedback"):
        tally = Tally()
        tables = _feedback_tables(run, rows, tally)
        counts["feedback"] = _export(run, config, constitution, "feedback", tables, tally)
    if isinstance(train := config.preference.train, DpaConfig):
        tally = Tally()
        tables = _directed_tables(run, train, config.seed, tally)
        counts["directed"] = _export(run, config, constitution, "directed", tables, tally)
    return counts


def sft_folders(config: RunConfig) -> tuple[str, ...]:
    """Stages whose texts go into the SFT set."""
    rounds = config.supervised.revise.rounds
    if not rounds:
        return (INITIALS,)
    first = rounds if config.supervised.sft_rows == "last" else 1
    return tuple(stage_folder(SUPERVISED, REVISE, number) for number in range(first, rounds + 1))


def sft_problem(row: ResponseRow | RevisionRow, text: str) -> str | None:
    """Why a text stays out of the SFT set, or None.

    A revision that changed nothing is kept: there was nothing to correct.
    """
    if row.status != "ok":
        return f"{row.kind} is {row.status}"
    if not text.strip():
        return "empty"
    # The policy would learn from a cut text not to stop.
    return "truncated" if row.finish_reason == "length" else None


def _export(
    run: RunDir,
    config: RunConfig,
    constitution: Constitution,
    name: str,
    tables: Iterator[pa.Table],
    tally: Tally,
) -> dict[str, Any]:
    path = run.dataset / f"{name}.parquet"
    write_tables(path, SCHEMAS[name], tables)
    info = SetInfo(
        path=f"dataset/{name}.parquet",
        sha256=file_hash(path),
        rows=tally.rows,
        from_parent=tally.from_parent,
        candidates=tally.candidates,
        reasons=dict(tally.reasons.most_common()),
        inputs=tally.inputs,
        sources=tally.sources,
    )
    for source in (run.recipe, run.constitution):
        if source.exists():
            copy_file(source, run.dataset / source.name)
    manifest = record_set(run, name, info)
    # Before the preference phase its shards may be those of an earlier attempt.
    finished = name != "sft"
    width = config.preference.pair.tie_width
    contrast = measure_contrast(run.root, width) if finished else None
    write_card(run, config, constitution, manifest, contrast)
    return {
        **info.model_dump(include={"rows", "from_parent", "candidates", "reasons", "sha256"}),
        "version": manifest.version,
    }


def _sft_tables(run: RunDir, config: RunConfig, tally: Tally) -> Iterator[pa.Table]:
    for table in _parents_tables(run, "sft", tally):
        tally.known.update(_keys(table, _text_key, "prompt_id", "completion"))
        yield table
    # The policy that writes the samples of later draws has been trained on the first one.
    # A run made again for a night takes texts over from another run, and is where they are traced.
    own_id = run.run_id if run.info().get("night") else None
    for shard in islice(iter_manifests(run.root, PROMPTS), first_shards(run.root, PROMPTS)):
        prompts = {row.row_id: row for row in _rows(run, shard.stage, shard.shard_index, tally)}
        # All rows of a prompt are in this shard, so repeated texts show here.
        seen: set[str] = set()
        thoughts = config.supervised.sft_thoughts
        rows = [
            sft_row
            for folder in sft_folders(config)
            for row in _rows(run, folder, shard.shard_index, tally)
            if (sft_row := _sft_row(prompts[row.prompt_id], row, tally, seen, thoughts, own_id))
        ]
        tally.rows += len(rows)
        yield table_from_rows(rows, SftRow).select(SFT_SCHEMA.names)


def _sft_row(
    prompt: PromptRow,
    row: ResponseRow | RevisionRow,
    tally: Tally,
    seen: set[str],
    with_thoughts: bool,
    own_id: str | None,
) -> SftRow | None:
    text = row.revision if isinstance(row, RevisionRow) else row.response
    if with_thoughts and text.strip():
        text = with_thought(row.thought, text)
    key = _text_key(prompt.row_id, text)
    tally.candidates += 1
    reason = sft_problem(row, text)
    if reason is None and (key in seen or key in tally.known):
        reason = "same text as an earlier row of the prompt"
    if reason:
        tally.reasons[reason] += 1
        return None
    seen.add(key)
    return SftRow(
        row_id=row_id("sft", row.row_id),
        parent_ids=(prompt.row_id, row.row_id),
        run_id=own_id or row.run_id,
        prompt_id=prompt.row_id,
        messages=prompt.messages,
        completion=text,
        completion_id=row.row_id,
        round=row.round if isinstance(row, RevisionRow) else 0,
    )


def _preference_tables(run: RunDir, config: RunConfig, tally: Tally) -> Iterator[pa.Table]:
    older = {"source": MixtureResult().own_name, "source_index": 0}
    for table in _parents_tables(run, "preference", tally, older):
        tally.known.update(table["row_id"].to_pylist())
        yield table
    for table in parent_tables(run, "feedback", FEEDBACK_SCHEMA):
        tally.known.update(_keys(table, feedback_key, "completion_id", "label", "weight"))
    target, usable = config.prompts.target_pairs, 0
    mixture = mix_into_run(run, config, tally.known, lambda: islice(_own_ids(run, tally), target))
    own = {"source": mixture.own_name, "source_index": 0}
    for table in _pair_tables(run, tally):
        tally.candidates += table.num_rows
        keep = []
        for identity, status, reason in _states(table, tally):
            usable += status == "ok"
            if status == "ok" and target is not None and usable > target:
                status, reason = "dropped", BEYOND_TARGET
            if status == "ok" and not mixture.keeps(identity):
                status, reason = "dropped", BY_WEIGHT
            if status != "ok":
                tally.reasons[reason or status] += 1
            keep.append(status == "ok")
        pairs = table.filter(pa.array(keep, pa.bool_()))
        tally.rows += pairs.num_rows
        yield fill_columns(pairs, PREFERENCE_SCHEMA, own)
    tally.feedback = mixture.feedback
    _add(mixture.pairs, tally)
    yield table_from_rows(mixture.pairs.rows, LabeledRow).select(PREFERENCE_SCHEMA.names)


def _feedback_tables(run: RunDir, feedback: SourceRows, tally: Tally) -> Iterator[pa.Table]:
    yield from _parents_tables(run, "feedback", tally)
    _add(feedback, tally)
    yield table_from_rows(feedback.rows, FeedbackRow).select(FEEDBACK_SCHEMA.names)


def _directed_tables(run: RunDir, train: DpaConfig, seed: int, tally: Tally) -> Iterator[pa.Table]:
    yield from _parents_tables(run, "directed", tally)
    for shard in iter_manifests(run.root, PROMPTS):
        index = shard.shard_index
        prompts = _rows(run, PROMPTS, index, tally)
        rated = stage_folders(run.root, PREFERENCE, SCORE)
        manifests = [_whole(run, folder, index, tally) for folder in rated]
        inputs = dict.fromkeys(path.rpartition("/")[0] for m in manifests for path in m.inputs)
        texts = [r for f in inputs if f != PROMPTS for r in _rows(run, f, index, tally)]
        scores = [row for manifest in manifests for row in read_rows(run.root, manifest)]
        rows = []
        for row in directed_rows(prompts, texts, scores, train, seed, run.run_id):
            tally.candidates += 1
            if isinstance(row, str):
                tally.reasons[row] += 1
            else:
                rows.append(row)
        tally.rows += len(rows)
        yield table_from_rows(rows, DirectedRow).select(DIRECTED_SCHEMA.names)


def _add(rows: SourceRows, tally: Tally) -> None:
    tally.candidates += rows.candidates
    tally.reasons.update(rows.reasons)
    tally.rows += len(rows.rows)
    tally.sources = rows.uses


def _keys(table: pa.Table, key: Callable[..., str], *columns: str) -> Iterable[str]:
    return map(key, *(table[name].to_pylist() for name in columns))


def _parents_tables(
    run: RunDir, name: str, tally: Tally, missing: Mapping[str, Any] | None = None
) -> Iterator[pa.Table]:
    """The rows of the parent's version, which come first."""
    for table in parent_tables(run, name, SCHEMAS[name], missing):
        tally.from_parent += table.num_rows
        tally.rows += table.num_rows
        yield table


def _pair_tables(run: RunDir, tally: Tally) -> Iterator[pa.Table]:
    for shard in iter_manifests(run.root, PROMPTS):
        yield read_table(run.root, _whole(run, PAIRS, shard.shard_index, tally))


def _states(table: pa.Table, tally: Tally) -> Iterator[tuple[str, str, str]]:
    """Id, status and reason of each pair; a pair that the parent has is dropped."""
    columns = (table[name].to_pylist() for name in ("row_id", "status", "reason"))
    for identity, status, reason in zip(*columns, strict=True):
        if status == "ok" and identity in tally.known:
            status, reason = "dropped", "already in the parent's version"
        yield identity, status, reason


def _own_ids(run: RunDir, tally: Tally) -> Iterator[str]:
    for table in _pair_tables(run, tally):
        yield from (identity for identity, status, _ in _states(table, tally) if status == "ok")


def _rows(run: RunDir, folder: str, shard_index: int, tally: Tally) -> list[Any]:
    return read_rows(run.root, _whole(run, folder, shard_index, tally))


def _whole(run: RunDir, folder: str, shard_index: int, tally: Tally) -> Manifest:
    """A finished shard, recorded as an input. Raises StoreError when it is not whole."""
    manifest = require_manifest(run.root, folder, shard_index)
    tally.inputs[manifest.path] = manifest.sha256
    return manifest


def _text_key(prompt_id: str, text: str) -> str:
    return row_id("sft text", prompt_id, text)
