"""The runs of a sweep: one for each point, beginning with what an earlier point has finished.

In:  a recipe and its points
Out: a run folder per point; sweep.json and sweep.html in outputs/sweeps/<name>/

A point's run is named by its recipe and the files that it copies, so a sweep with more values
finds the points of the one before. A new run takes over the prompts, the shards and the SFT policy
of the first finished point, as far as its own recipe has such stages; the keys of the manifests and
the hash of the training decide what is right for it, and the rest is made again. Reference
log-probabilities are shared by all runs anyway.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import load_config
from pipeline.errors import AuditError, TrainingError
from pipeline.ids import content_hash, file_hash
from pipeline.run.context import open_context
from pipeline.run.files import copied_paths
from pipeline.run.passes import prompts_key
from pipeline.run.phases import planned_folders, sl_cai_model
from pipeline.run.start import CheckedRecipe, check_recipe, runs_root, start_run
from pipeline.store import RunDir, read_json, write_json
from pipeline.store.files import link_file, write_text
from pipeline.store.layout import check_folder_name
from pipeline.store.shards import load_manifest, publish
from pipeline.store.stage_names import HELDOUT, PROMPTS
from pipeline.sweep.points import Point, read_points

NOT_LINKED = shutil.ignore_patterns("train.log", "job.json", "result.json")
"""Files that a link would change in the other run too, or that name their folder."""


@dataclass(frozen=True)
class Planned:
    """A point with its checked recipe and the run that it belongs to."""

    point: Point
    checked: CheckedRecipe
    run: RunDir

    @property
    def finished(self) -> bool:
        """Whether its run is done."""
        return self.run.info().get("status") == "finished"


def plan_sweep(recipe: Path, over: Sequence[str]) -> list[Planned]:
    """The points, each checked as `rlaif check` does; nothing is written. Of two spellings of one
    value, such as 0.1 and 0.10, the first is a point.

    Raises:
        UserError: the first thing to correct.
    """
    checked = check_recipe(recipe)
    plan: dict[Path, Planned] = {}
    for point in read_points(checked.config, over):
        each = check_recipe(recipe, overrides=point.overrides, offline=True)
        copied = copied_paths(RunDir(Path()), each.config)
        named = content_hash([each.text, {str(a): file_hash(b) for a, b in copied.items()}])
        run = RunDir(runs_root() / f"{each.config.name}-sweep-{named[:12]}")
        plan.setdefault(run.root, Planned(point, each, run))
    return list(plan.values())


def sweep_folder(plan: Sequence[Planned], name: str | None) -> Path:
    """outputs/sweeps/<name>; by default named by the recipe and its points. Raises StoreError for a
    name that no folder can have.
    """
    if name is not None:
        check_folder_name(name, "the name of the sweep")
    default = content_hash([each.run.root.name for each in plan])[:8]
    return runs_root().parent / "sweeps" / (name or f"{plan[0].checked.config.name}-{default}")


def run_sweep(plan: Sequence[Planned], take: Callable[[RunDir], None]) -> dict[str, str]:
    """Take each point's run to its end, unless it is there; returns what ended a run early, by run.

    Args:
        take: takes a run through its phases.

    Raises:
        RunStoppedError, UserError: as a run does; a later call continues from there.
    """
    failed = {}
    for each in plan:
        if each.finished:
            continue
        if not each.run.root.exists():
            start_run(each.checked, run_id=each.run.root.name)
            before = next((other.run for other in plan if other.finished), None)
            if before is not None:
                begin_with(each.run, before)
        try:
            take(each.run)
        except (TrainingError, AuditError) as error:
            # What a value leads to is a result: beta near 0 or a high rate may break a training.
            failed[each.run.run_id] = str(error).splitlines()[0]
    return failed


def begin_with(run: RunDir, before: RunDir) -> None:
    """Link what another run has finished, and the recipe of a new one makes too, into the new one,
    where both read the same prompts.
    """
    ctx = open_context(run)
    config, other = ctx.config, load_config(before.recipe)
    if (config.prompts, config.seed) != (other.prompts, other.seed):
        return
    # Whatever lies in a run folder is read as its own: a pool of labels, another round, a policy.
    planned = planned_folders(ctx)
    for path in sorted(before.root.rglob("shard-*.json")):
        stage = path.parent.relative_to(before.root).as_posix()
        if stage not in planned:
            continue
        manifest = load_manifest(before.root, stage, int(path.stem.removeprefix("shard-")))
        if manifest is None:
            continue  # damaged: this run makes it itself
        shard = run.root / manifest.path
        shard.parent.mkdir(parents=True, exist_ok=True)
        link_file(before.root / manifest.path, shard)
        # Last: a manifest without its shard would be damage.
        publish(run.root, replace(manifest, counts=manifest.counts.as_reused()))
    for folder in (PROMPTS, HELDOUT):
        done = read_json(before.root / folder / "complete.json")
        if done is not None:
            key = prompts_key(config, run.run_id, folder)
            write_json(run.root / folder / "complete.json", {**done, "key": key})
    trained = before.training("sft")
    if sl_cai_model(ctx) is not None and (trained / "result.json").is_file():
        shutil.copytree(
            trained,
            run.training("sft"),
            copy_function=lambda a, b: link_file(Path(a), Path(b)),
            ignore=NOT_LINKED,
        )
        old, own = (json.dumps(str(each.root))[1:-1] for each in (before, run))
        for name in ("job.json", "result.json"):  # the mark of a finished training last
            text = (trained / name).read_text("utf-8")
            write_text(run.training("sft") / name, text.replace(old, own))
