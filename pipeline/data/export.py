"""From shards to finished data sets: `sft.parquet` to learn from, `preference.parquet` to prefer by,
and `feedback.parquet` where users judged single replies.

In:  finished shards of prompts, revisions and pairs, label files
Out: dataset/{sft,preference,feedback}.parquet, manifest.json with counts and reasons, README.md

Shards stream through one at a time. Texts are joined by id. What is left out has a reason, and
candidates = kept + the sum of the reasons.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.constitution import Constitution
from pipeline.data.card import write_card
from pipeline.data.columns import (
    FEEDBACK_COLUMNS,
    FEEDBACK_SCHEMA,
    PREFERENCE_COLUMNS,
    PREFERENCE_SCHEMA,
    SFT_COLUMNS,
    SFT_SCHEMA,
)
from pipeline.data.dataset import (
    SetInfo,
    SourceUse,
    fill_columns,
    has_parent_set,
    parent_tables,
    record_set,
    write_tables,
)
from pipeline.data.id_set import IdSet
from pipeline.errors import StoreError
from pipeline.ids import file_hash, row_id
from pipeline.records import PromptRow, ResponseRow, RevisionRow, SftRow, table_from_rows
from pipeline.sources.mix_into_run import BY_WEIGHT, Given, RunMixture, mix_into_run
from pipeline.sources.rows import FeedbackRow, LabeledRow, feedback_says
from pipeline.store.layout import RunDir
from pipeline.store.shards import Manifest, load_manifest, read_rows, read_table, stage_manifests

NO_SET = {"rows": 0, "from_parent": 0, "candidates": 0, "reasons": {}, "sha256": "", "version": 0}


@dataclass
class Tally:
    """What one export has seen so far."""

    known: IdSet = field(default_factory=IdSet)
    """Keys of the parent's rows; a row of this run with the same key is left out."""
    reasons: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, str] = field(default_factory=dict)
    candidates: int = 0
    from_parent: int = 0
    rows: int = 0
    sources: tuple[SourceUse, ...] = ()
    feedback: Given = Given()
    """What the label sources give besides pairs."""


def export_sft(run: RunDir, config: RunConfig, constitution: Constitution) -> dict[str, Any]:
    """Write dataset/sft.parquet from the revisions (the responses where no round is asked for).

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
    return _export(run, config, constitution, "sft", SFT_SCHEMA, tables, tally)


def export_preference(run: RunDir, config: RunConfig, constitution: Constitution) -> dict[str, Any]:
    """Write dataset/preference.parquet from the pairs that are `ok`, and the recipe's label sources;
    dataset/feedback.parquet too where one of them, or the parent's version, has feedback.

    Returns, raises: as `export_sft`, `feedback` with the counts of that set if there is one;
        DataError when a label file is not what it was.
    """
    if not config.preference.enabled:
        return dict(NO_SET)
    tally = Tally()
    tables = _preference_tables(run, config, tally)
    counts = _export(run, config, constitution, "preference", PREFERENCE_SCHEMA, tables, tally)
    given = tally.feedback
    if given.uses or has_parent_set(run, "feedback"):
        tally = Tally(
            reasons=given.reasons,
            candidates=given.candidates,
            rows=len(given.rows),
            sources=given.uses,
        )
        tables = _feedback_tables(run, given, tally)
        counts["feedback"] = _export(
            run, config, constitution, "feedback", FEEDBACK_SCHEMA, tables, tally
        )
    return counts


def sft_folders(config: RunConfig) -> tuple[str, ...]:
    """Stages whose texts are learned from."""
    rounds = config.supervised.revise.rounds
    if not rounds:
        return ("supervised/sample",)
    first = rounds if config.supervised.sft_rows == "last" else 1
    return tuple(f"supervised/revise-{number}" for number in range(first, rounds + 1))


def sft_problem(row: ResponseRow | RevisionRow, text: str) -> str | None:
    """Why a text is not learned from, or None. A revision that changed nothing is kept: there was
    nothing to correct.
    """
    if row.status != "ok":
        return f"{row.kind} is {row.status}"
    if not text.strip():
        return "empty"
    # A cut text has no end; the policy would learn not to stop.
    return "truncated" if row.finish_reason == "length" else None


def _export(
    run: RunDir,
    config: RunConfig,
    constitution: Constitution,
    name: str,
    schema: pa.Schema,
    tables: Iterator[pa.Table],
    tally: Tally,
) -> dict[str, Any]:
    path = run.dataset / f"{name}.parquet"
    write_tables(path, schema, tables)
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
            shutil.copyfile(source, run.dataset / source.name)
    manifest = record_set(run, name, info)
    write_card(run, config, constitution, manifest)
    return {
        **info.model_dump(include={"rows", "from_parent", "candidates", "reasons", "sha256"}),
        "version": manifest.version,
    }


def _sft_tables(run: RunDir, config: RunConfig, tally: Tally) -> Iterator[pa.Table]:
    yield from _parents_rows(
        run,
        "sft",
        SFT_SCHEMA,
        tally,
        lambda table: map(
            _text_key, table["prompt_id"].to_pylist(), table["completion"].to_pylist()
        ),
    )
    for shard in stage_manifests(run.root, "prompts"):
        prompts = {row.row_id: row for row in _rows(run, shard.stage, shard.shard_index, tally)}
        # All rows of a prompt are in this shard, so that repeated texts show here.
        seen: set[str] = set()
        kept = [
            made
            for folder in sft_folders(config)
            for row in _rows(run, folder, shard.shard_index, tally)
            if (made := _sft_row(prompts[row.prompt_id], row, tally, seen))
        ]
        tally.rows += len(kept)
        yield table_from_rows(kept, SftRow).select(SFT_COLUMNS)


def _sft_row(
    prompt: PromptRow, row: ResponseRow | RevisionRow, tally: Tally, seen: set[str]
) -> SftRow | None:
    text = row.revision if isinstance(row, RevisionRow) else row.response
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
        run_id=row.run_id,
        prompt_id=prompt.row_id,
        messages=prompt.messages,
        completion=text,
        completion_id=row.row_id,
        round=row.round if isinstance(row, RevisionRow) else 0,
    )


def _preference_tables(run: RunDir, config: RunConfig, tally: Tally) -> Iterator[pa.Table]:
    before = {"source": RunMixture().own_name, "source_index": 0}
    yield from _parents_rows(
        run,
        "preference",
        PREFERENCE_SCHEMA,
        tally,
        lambda table: table["row_id"].to_pylist(),
        before,
    )
    for table in parent_tables(run, "feedback", FEEDBACK_SCHEMA):
        for says in map(
            feedback_says,
            *(table[name].to_pylist() for name in ("completion_id", "label", "weight")),
        ):
            tally.known.add(says)
    mixture = mix_into_run(run, config, tally.known, lambda: _own_ids(run, tally))
    own = {"source": mixture.own_name, "source_index": 0}
    for table in _pair_tables(run, tally):
        tally.candidates += table.num_rows
        keep = []
        for identity, status, reason in _states(table, tally):
            if status == "ok" and not mixture.keeps(identity):
                status, reason = "dropped", BY_WEIGHT
            if status != "ok":
                tally.reasons[reason or status] += 1
            keep.append(status == "ok")
        kept = table.filter(pa.array(keep, pa.bool_()))
        tally.rows += kept.num_rows
        yield fill_columns(kept, PREFERENCE_SCHEMA, own)
    given, tally.feedback = mixture.pairs, mixture.feedback
    tally.candidates += given.candidates
    tally.reasons.update(given.reasons)
    tally.rows += len(given.rows)
    tally.sources = given.uses
    yield table_from_rows(given.rows, LabeledRow).select(PREFERENCE_COLUMNS)


def _feedback_tables(run: RunDir, given: Given, tally: Tally) -> Iterator[pa.Table]:
    yield from _parents_rows(run, "feedback", FEEDBACK_SCHEMA, tally, lambda table: ())
    yield table_from_rows(given.rows, FeedbackRow).select(FEEDBACK_COLUMNS)


def _parents_rows(
    run: RunDir,
    name: str,
    schema: pa.Schema,
    tally: Tally,
    keys: Callable[[pa.Table], Iterable[str]],
    missing: Mapping[str, Any] | None = None,
) -> Iterator[pa.Table]:
    """The rows of the parent's version, which come first; their keys are known then."""
    for table in parent_tables(run, name, schema, missing):
        for key in keys(table):
            tally.known.add(key)
        tally.from_parent += table.num_rows
        tally.rows += table.num_rows
        yield table


def _pair_tables(run: RunDir, tally: Tally) -> Iterator[pa.Table]:
    for shard in stage_manifests(run.root, "prompts"):
        yield read_table(run.root, _whole(run, "preference/pair", shard.shard_index, tally))


def _states(table: pa.Table, tally: Tally) -> Iterator[tuple[str, str, str]]:
    """Id, status and reason of each pair; one that the parent has is dropped."""
    for identity, status, reason in zip(
        *(table[name].to_pylist() for name in ("row_id", "status", "reason")), strict=True
    ):
        known = status == "ok" and identity in tally.known
        yield (
            identity,
            *(("dropped", "already in the parent's version") if known else (status, reason)),
        )


def _own_ids(run: RunDir, tally: Tally) -> Iterator[str]:
    for table in _pair_tables(run, tally):
        yield from (identity for identity, status, _ in _states(table, tally) if status == "ok")


def _rows(run: RunDir, folder: str, shard_index: int, tally: Tally) -> list[Any]:
    return read_rows(run.root, _whole(run, folder, shard_index, tally))


def _whole(run: RunDir, folder: str, shard_index: int, tally: Tally) -> Manifest:
    """A finished shard, entered as an input. Raises StoreError when it is not whole."""
    manifest = load_manifest(run.root, folder, shard_index)
    if manifest is None:
        raise StoreError(
            f"{folder}/shard-{shard_index:05d} of run {run.run_id} is missing or damaged; "
            f"`rlaif resume {run.run_id}` makes it again"
        )
    tally.inputs[manifest.path] = manifest.sha256
    return manifest


def _text_key(prompt_id: str, text: str) -> str:
    return row_id("sft text", prompt_id, text)
