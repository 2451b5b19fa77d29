"""Compare an impact run with the run that it was made from, one shard at a time.

In:  two run folders with the same prompts
Out: Impact; impact.json and impact.md in the new one

A comparison is recognized by its prompt and its two sides: a response by its id, a revision by
the response at the start of its chain and its round, as its own id changes with its text.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.config import RunConfig
from pipeline.constitution import Constitution, load_constitution
from pipeline.constitution.diff import diff_constitutions
from pipeline.evaluation.shard_columns import label_folder
from pipeline.ids import file_hash
from pipeline.impact.effects import Impact, ImpactTally, Outcome, StageCost
from pipeline.impact.text import markdown
from pipeline.labeling.labelers import labeler_of
from pipeline.records import JudgmentRow, ModelRow, RevisionRow, ScoreRow
from pipeline.run.context import RunContext
from pipeline.run.plan import compared_texts
from pipeline.store import RunDir, read_rows, require_manifest, write_json
from pipeline.store.files import write_text
from pipeline.store.shards import stage_manifests, stage_rows
from pipeline.store.stage_names import INITIALS, PAIRS, POOLED, stage_folders

Key = tuple[str, ...]
TRAINED = (
    "The compared responses are those of the SL-CAI policy of run {run}: nothing was trained and "
    "no response was sampled again. A full run under the new constitution would first train "
    "another policy."
)
SAMPLED = "The compared responses are those of run {run}; no response was sampled again."
EXEMPLARS = (
    "The judge's exemplars show principles too, so comparisons that showed a changed one were "
    "judged again."
)


def measure_impact(ctx: RunContext, before: RunDir) -> Impact:
    """Compare all labels and pairs, and add up what the new ones cost.

    Raises:
        StoreError: a shard of either run is missing or damaged.
    """
    old = load_constitution(before.require().constitution)
    tally = ImpactTally(ctx.config.preference.pair.tie_width)
    costs = {folder: StageCost(folder=folder) for folder in paid_folders(ctx)}
    for manifest in stage_manifests(ctx.run.root, "prompts"):
        index = manifest.shard_index
        was = dict(outcomes(before, ctx, index))
        now = dict(outcomes(ctx.run, ctx, index))
        for key in dict.fromkeys((*was, *now)):
            tally.add(was.get(key), now.get(key))
    for folder, cost in costs.items():
        for row in stage_rows(ctx.run.root, folder):
            cost.add(
                num_calls(row, ctx.config),
                row.num_prompt_tokens + row.num_tokens,
                made=row.run_id == ctx.run.run_id,
            )
    return Impact(
        run_id=ctx.run.run_id,
        before_run=before.run_id,
        constitution_before=_named(old),
        constitution_after=_named(ctx.constitution),
        num_principles=len(ctx.constitution.principles),
        diff=diff_constitutions(old, ctx.constitution).text(),
        total=tally.total,
        principles=tally.by_principle(old, ctx.constitution),
        moves=tally.largest_moves(),
        costs=tuple(costs.values()),
        notes=tuple(_notes(ctx, before)),
    )


def write_impact(run: RunDir, impact: Impact) -> None:
    """Write impact.json and impact.md, with their hashes in run.json for `rlaif verify`."""
    write_text(run.root / "impact.md", markdown(impact))
    write_json(run.root / "impact.json", impact.model_dump(mode="json"))
    files = {name: file_hash(run.root / name) for name in ("impact.json", "impact.md")}
    run.update_info(files={**run.info().get("files", {}), **files})


def outcomes(run: RunDir, ctx: RunContext, shard_index: int) -> Iterator[tuple[Key, Outcome]]:
    """What became of each comparison of a shard; the compared folders are those of `ctx`."""
    if not ctx.config.preference.enabled:
        return
    folder = compared_texts(ctx).revisions
    revisions: list[RevisionRow] = _rows(run, folder, shard_index) if folder else []
    places = {row.row_id: f"{row.initial_id}/{row.round}" for row in revisions}
    paired = {row.judgment_id for row in _rows(run, PAIRS, shard_index) if row.status == "ok"}
    pooled = label_folder(run.root) == POOLED
    # Not that of `ctx`: one constitution may have conflicts, and pool its labels, and one not.
    for row in _rows(run, label_folder(run.root), shard_index):
        sides = (row.first_id, row.second_id)
        key = (row.prompt_id, row.comparison, *(places.get(side, side) for side in sides))
        yield (
            key,
            Outcome(
                verdict_ids=frozenset(row.parent_ids if pooled else (row.row_id,)),
                text_ids=sides,
                principle_ids=tuple(row.principle_id.split("+")),
                prob_first=row.prob_first if row.status == "ok" else None,
                kept=row.row_id in paired,
                asked=row.status != "dropped",
            ),
        )


def num_calls(row: ModelRow, config: RunConfig) -> int:
    """Model calls behind a row; 0 for one that was skipped, decided by a check, or dropped before
    it was asked.
    """
    if row.status == "dropped" and not row.num_prompt_tokens:
        return 0
    if not row.model_fingerprint or (isinstance(row, RevisionRow) and row.skipped):
        return 0
    if isinstance(row, ScoreRow):
        return len(row.parts)
    if isinstance(row, JudgmentRow):
        return 4 if config.preference.judge.chain_of_thought else 2
    return 1


def finished_texts(ctx: RunContext) -> list[str]:
    """Folders of compared texts that depend on no principle; none where nothing is compared."""
    if not ctx.config.preference.enabled:
        return []
    compared = compared_texts(ctx)
    folders = (compared.samples, *compared.others, compared.initials)
    return [folder for folder in folders if folder]


def paid_folders(ctx: RunContext) -> list[str]:
    """Stages of an impact run that ask a model, in the order in which they ran."""
    root, unpaid = ctx.run.root, [*finished_texts(ctx), INITIALS]
    return [
        folder
        for folder in stage_folders(root)
        if folder not in unpaid
        and any(manifest.engine for manifest in stage_manifests(root, folder)[:1])
    ]


def _notes(ctx: RunContext, before: RunDir) -> Iterable[str]:
    trained = ctx.config.supervised.enabled and ctx.config.supervised.train is not None
    sampled = compared_texts(ctx).samples is not None
    if sampled:
        yield (TRAINED if trained else SAMPLED).format(run=before.run_id)
    if ctx.files.labeling.exemplars is not None and labeler_of(ctx.config.preference).has_orders:
        yield EXEMPLARS


def _rows(run: RunDir, folder: str, shard_index: int) -> list[Any]:
    return read_rows(run.root, require_manifest(run.root, folder, shard_index))


def _named(constitution: Constitution) -> str:
    return f"{constitution.name} {constitution.hash}"
