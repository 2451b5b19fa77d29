"""What changes when principles change, without paying again for what stays.

In:  a run whose labels are finished, and another constitution
Out: a new run with that constitution: its labels, pairs and preference set, impact.json, impact.md;
     as part of a version (`version.py`) also its critiques, revisions and supervised set

The new run begins with the old one's prompts, texts and labels. Its stages run again under the
Runner, which takes over each stored row whose id and inputs are still right: only comparisons
whose drawn principle changed are asked again, and where revisions are compared, the critiques and
revisions that the change touches. The old run is only read.

Does not: train, or sample responses again. Samples stay those of the policy that the old run had.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.config.paths import resolve_path
from pipeline.constitution import Constitution, load_constitution
from pipeline.data.export import export_preference, export_sft
from pipeline.data.prompts import first_shards
from pipeline.engines.base import Engine
from pipeline.engines.lazy import lazy_engine, unopened_engine
from pipeline.errors import ConfigError, StoreError
from pipeline.impact.effects import Impact
from pipeline.impact.measure import finished_texts, measure_impact, write_impact
from pipeline.labeling.labelers import labeler_of
from pipeline.run.audit_gate import require_audit
from pipeline.run.context import RunContext, open_context, relative_to_project
from pipeline.run.files import load_files
from pipeline.run.passes import Pass, prompt_shards, prompts_key, require_finished, run_pass
from pipeline.run.plan import (
    chain_folders,
    compared_texts,
    judge_folders,
    label_stages,
    supervised_stages,
)
from pipeline.run.start import make_run_folder, work_in, write_run_info
from pipeline.stages.base import Stage
from pipeline.stages.runner import Progress
from pipeline.store import RunDir, load_manifest, read_json, write_json
from pipeline.store.files import copy_file, link_file, write_text
from pipeline.store.layout import check_folder_name, run_beside
from pipeline.store.shards import stage_manifests
from pipeline.store.stage_names import INITIALS, PAIRS, PROMPTS

KEPT_INFO = ("name", "recipe", "parent", "policy_of")
"""Entries of run.json that are true of the new run too."""


async def run_impact(
    before: RunDir,
    constitution: Path,
    *,
    run_id: str | None = None,
    progress: Progress | None = None,
    night: str | None = None,
    parent: str | None = None,
) -> tuple[RunDir, bool]:
    """Make the new run, or continue it; returns it, and whether there was anything to do.

    Args:
        run_id: name of the new run's folder, beside the old one; by default a name that follows
            from the old run and the constitution.
        night: the night for which the old run is made again, whatever labels it has.
        parent: the run whose data set that of the new run continues, for a night.

    Raises:
        UserError: the old run's labels are not finished, were made by another model, or the folder
            is taken by something else; nothing is written then.
        RunStoppedError: too many rows failed; what succeeded is kept.
        AuditError: the new labels failed the recipe's audit; impact.json is there, no data set.
    """
    new = load_constitution(constitution)
    run = impact_run(before, new, run_id)
    if not run.root.exists():
        await _start(run, before, constitution, new, night, parent)
    elif not _is_impact(run, before, new):
        raise StoreError(
            f"run {run.run_id} exists already and is not the impact of {constitution} on "
            f"{before.run_id}; give another --run-id"
        )
    return run, await continue_impact(run, progress)


async def continue_impact(run: RunDir, progress: Progress | None = None) -> bool:
    """Finish an impact run; returns whether it was unfinished. Raises what `run_impact` raises."""
    if run.info().get("status") == "finished":
        return False
    before = impact_of(run)
    if before is None:
        raise StoreError(f"{run.root} is not an impact run; `rlaif constitution impact` makes one")
    with work_in(run):
        ctx = open_context(run, progress)
        prompts, for_night = prompt_shards(ctx), run.info().get("night")
        for engine, makers in revision_passes(ctx, before) if for_night else []:
            first = prompts[: first_shards(run.root, PROMPTS)]
            require_finished(ctx, first, [INITIALS])
            await run_pass(ctx, engine, first, makers)
        require_finished(ctx, prompts, tuple(finished_texts(ctx)))
        for engine, makers in impact_passes(ctx, before):
            await run_pass(ctx, engine, prompts, makers)
        # Before the export: labels that fail their audit are what a person wants to see most.
        write_impact(run, measure_impact(ctx, before))
        require_audit(ctx)
        if for_night:
            export_sft(run, ctx.config, ctx.constitution)
        export_preference(run, ctx.config, ctx.constitution)
        run.end("finished")
    return True


def impact_run(before: RunDir, new: Constitution, run_id: str | None = None) -> RunDir:
    """The folder of an impact run: beside the old run, named by the constitution's hash."""
    if run_id is not None:
        check_folder_name(run_id, "the run id")
    return RunDir(
        before.root.parent / (run_id or f"{before.run_id}-impact-{new.hash_with_tags[:8]}")
    )


def impact_of(run: RunDir) -> RunDir | None:
    """The run that an impact run was made from; None for other runs."""
    name = run.info().get("impact_of")
    return run_beside(run.root.parent, str(name)) if name else None


def load_impact(run: RunDir) -> Impact:
    """impact.json of a finished impact run. Raises StoreError when there is none."""
    impact = read_json(run.root / "impact.json")
    if impact is None:
        raise StoreError(
            f"run {run.run_id} has no impact.json; `rlaif resume {run.run_id}` makes it"
        )
    return Impact.model_validate(impact)


def impact_passes(ctx: RunContext, before: RunDir) -> list[Pass]:
    """Engines with their stages, in order; neighbors with one engine share it."""
    passes: list[Pass] = []
    if not ctx.config.preference.enabled:
        return passes
    if compared_texts(ctx).revisions:
        passes.append((ctx.policy_engine(), [partial(_revision_stages, before=before)]))
    for number, engine in enumerate(ctx.label_engines()):
        maker = partial(_label_stages, before=before, number=number)
        if passes and passes[-1][0] == engine:
            passes[-1][1].append(maker)
        else:
            passes.append((engine, [maker]))
    return passes


def revision_passes(ctx: RunContext, before: RunDir) -> list[Pass]:
    """The critiques and revisions that are trained on and not compared; empty where there are none.

    Those of the first draw of prompts, as later ones have none.
    """
    config = ctx.config
    if not config.supervised.enabled or (
        config.preference.enabled and compared_texts(ctx).revisions
    ):
        return []
    return [(ctx.policy_engine(), [partial(_revision_stages, before=before)])]


def check_parts(run: RunDir) -> None:
    """Refuse a run of which a part is gone that an impact run begins with; opens no engine, and so
    does not see what only an endpoint knows.

    Raises:
        StoreError: names the first shard that is missing or damaged.
        ConfigError, MachineError: a model is not the one that made the rows, or is gone.
    """
    ctx = open_context(run)
    for config, makers in (*impact_passes(ctx, run), *revision_passes(ctx, run)):
        if (engine := unopened_engine(config)) is not None:
            for maker in makers:
                maker(ctx, engine)
    if ctx.config.preference.enabled:
        _check_shards(run, [*finished_texts(ctx), *judge_folders(ctx), PAIRS])
    if ctx.config.supervised.enabled:
        _check_shards(run, chain_folders(ctx), first_shards(run.root, PROMPTS))


def _revision_stages(ctx: RunContext, engine: Engine, before: RunDir) -> list[Stage]:
    # Without the first: initial responses depend on no principle.
    return _same_models(supervised_stages(ctx, engine)[1:], before)


def _label_stages(ctx: RunContext, engine: Engine, before: RunDir, number: int) -> list[Stage]:
    return _same_models(label_stages(ctx, engine, number), before)


def _same_models(stages: list[Stage], before: RunDir) -> list[Stage]:
    """The stages. Raises ConfigError when another model would ask: all rows would be made again."""
    for stage in stages:
        for manifest in stage_manifests(before.root, stage.folder)[:1] if stage.engine else []:
            made_by = manifest.engine.get("fingerprint", "")
            if stage.engine and made_by != stage.engine.fingerprint:
                raise ConfigError(
                    f"{stage.folder} of run {before.run_id} was made by a model with fingerprint "
                    f"{made_by[:16]}, but {stage.engine.name} has {stage.engine.fingerprint[:16]} "
                    "now, so a difference would not come from the principles alone; bring the "
                    "model back, or make a new run"
                )
    return stages


async def _start(
    run: RunDir,
    before: RunDir,
    path: Path,
    new: Constitution,
    night: str | None,
    parent: str | None,
) -> None:
    """Check everything, then make the folder, whole or not at all."""
    ctx = open_context(before)
    _check_recipe(ctx, new, for_night=night is not None)
    load_files(ctx.config, new, before)
    # Pooled labels and pairs cost nothing and name their run: they are made again.
    labels = await _asked_folders(ctx, impact_passes(ctx, before))
    texts = await _asked_folders(ctx, revision_passes(ctx, before) if night else [])
    check_parts(before)
    _check_shards(before, labels)
    _check_shards(before, texts, first_shards(before.root, PROMPTS))
    initials = [INITIALS] if texts else []
    taken = dict.fromkeys([PROMPTS, *finished_texts(ctx), *labels, *initials, *texts])
    entries = {"night": night, "parent": parent} if night else {}
    make_run_folder(
        run.root, lambda folder: _fill(folder, run.run_id, ctx, path, [*taken], entries)
    )


async def _asked_folders(ctx: RunContext, passes: Sequence[Pass]) -> list[str]:
    """Folders of the stages of these passes that ask a model, which is the one that made them."""
    folders = []
    for config, makers in passes:
        async with lazy_engine(config) as engine:
            stages = [stage for maker in makers for stage in maker(ctx, engine)]
        folders += [stage.folder for stage in stages if stage.engine is not None]
    return folders


def _check_recipe(ctx: RunContext, new: Constitution, *, for_night: bool) -> None:
    run, config = ctx.run, ctx.config.preference
    principles = labeler_of(config).principles(config)
    if not for_night and (not config.enabled or principles != "drawn"):
        labels = {"all": "under all principles", "none": "without principles"}
        problem = (
            f"labels by '{config.labeler}', {labels[principles]}"
            if config.enabled
            else "has no preference phase"
        )
        raise ConfigError(
            f"the recipe of run {run.run_id} {problem}, but an impact compares labels under drawn "
            "principles; take a run with `labeler: judge`, or `score` with `principles: drawn`"
        )
    num_labels = labeler_of(config).labels_per_comparison(config)
    if config.enabled and num_labels > len(new.principles):
        raise ConfigError(
            f"constitution '{new.name}' has {len(new.principles)} principles, but judge."
            f"num_principles is {num_labels}; add principles"
        )


def _check_shards(run: RunDir, folders: Sequence[str], num_shards: int | None = None) -> None:
    prompts = stage_manifests(run.root, PROMPTS)[:num_shards]
    missing = [
        f"{folder}/shard-{manifest.shard_index:05d}"
        for manifest in prompts
        for folder in folders
        if load_manifest(run.root, folder, manifest.shard_index) is None
    ]
    # A night without new prompts has no shards, and says so.
    empty = (read_json(run.root / PROMPTS / "complete.json") or {}).get("shards") == []
    if missing or not (prompts or empty):
        raise StoreError(
            f"run {run.run_id} has no finished {missing[0] if missing else 'prompts'}; finish it "
            f"with `rlaif resume {run.run_id}`"
        )


def _fill(
    run: RunDir,
    run_id: str,
    ctx: RunContext,
    path: Path,
    taken: Sequence[str],
    entries: Mapping[str, str | None],
) -> None:
    old = ctx.run
    for each in sorted([*old.root.glob("templates/*"), *old.root.glob("labeling/*")]):
        copy_file(each, run.root / each.relative_to(old.root))
    copy_file(path, run.constitution)
    write_text(run.recipe, _with_constitution(old.recipe.read_text(encoding="utf-8"), path))
    for folder in taken:
        _take(old.root / folder, run.root / folder)
    write_json(
        run.root / "prompts" / "complete.json",
        {
            **(read_json(old.root / "prompts" / "complete.json") or {}),
            "key": prompts_key(ctx.config, run_id, "prompts"),
        },
    )
    copies = [run.recipe, run.constitution, *sorted(run.root.glob("templates/*"))]
    copies += sorted(run.root.glob("labeling/*"))
    info = old.info()
    kept = {name: info[name] for name in KEPT_INFO if info.get(name)} | dict(entries)
    write_run_info(run, run_id, copies, impact_of=old.run_id, **kept)


def _with_constitution(recipe: str, path: Path) -> str:
    """The recipe with another constitution, comments included; unchanged without a plain line."""
    line = f"constitution: {relative_to_project(resolve_path(path))}"
    return re.sub(r"(?m)^constitution:\s.*$", lambda _: line, recipe, count=1)


def _take(source: Path, target: Path) -> None:
    """Link the shards."""
    target.mkdir(parents=True)
    for path in sorted(source.glob("shard-*")):
        link_file(path, target / path.name)


def _is_impact(run: RunDir, before: RunDir, new: Constitution) -> bool:
    if run.info().get("impact_of") != before.run_id or not run.constitution.is_file():
        return False
    return load_constitution(run.constitution).hash_with_tags == new.hash_with_tags
