"""The nightly refresh: prompts that no earlier data set version has become the next version.

In:  a recipe, and the runs that earlier nights made from it
Out: NightlyPlan: the run to take through its phases, or none because nothing is new

A night's run names the night before as its parent; its data set holds the parent's rows and, after
them, its own, and training starts from all of them. So no prompt of the parent's rows may be held
out.

A night that was stopped is finished first. One whose audit failed gave no pairs and would fail
again with what it began with: the next night asks its prompts again, together with the new ones, as
soon as the recipe or a file that it names for labeling has changed, and says so until then.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.config.paths import resolve_path
from pipeline.data.dataset import known_prompt_ids, load_dataset
from pipeline.data.heldout import check_version
from pipeline.data.prompts import read_prompts
from pipeline.errors import AuditError
from pipeline.ids import file_hash
from pipeline.progress import current_progress
from pipeline.run.context import open_context
from pipeline.run.files import copied_paths
from pipeline.run.phases import run_all
from pipeline.run.start import CheckedRecipe, check_recipe, find_run, runs_root, start_run
from pipeline.store import RunDir, RunLock, new_run_id

AUDIT_FAILED = "audit failed"
"""What run.json says of a run whose labels did not pass."""


@dataclass(frozen=True)
class NightlyPlan:
    """What there is to do tonight."""

    run: RunDir | None
    """The run to work on; None when nothing is new."""
    message: str
    """What will be done, in words."""


def plan_nightly(recipe: str, run_id: str | None = None) -> NightlyPlan:
    """Find the stopped night, or make a run for the new prompts.

    Args:
        run_id: a night that was planned already; it is taken as it is.

    Raises:
        UserError: see `check_recipe`; nothing is written then.
        DataError: a prompt is held out that the version before has; nothing is written either.
        AuditError: the last night failed its audit, and nothing has changed since.
    """
    if run_id is not None:
        run = find_run(run_id)
        return NightlyPlan(run, run.info().get("plan") or f"continues {run.run_id}")
    checked = check_recipe(Path(recipe))
    config = checked.config
    nights = nightly_runs(config.name)
    for run in nights:
        if run.info().get("status") not in ("finished", AUDIT_FAILED):
            return NightlyPlan(run, f"continues {run.run_id}, which was stopped")
    failed = nights.pop() if nights and nights[-1].info().get("status") == AUDIT_FAILED else None
    if failed and not labels_otherwise(failed, checked):
        raise AuditError(
            f"the audit of the last night, run {failed.run_id}, failed, and it would fail again with "
            f"the same recipe; `rlaif audit {failed.run_id}` shows every check. Correct {recipe}, its "
            "constitution or its templates, and the next night asks the same prompts again; if it "
            f"was the judge itself that changed, move {failed.root} elsewhere first"
        )
    parent = nights[-1] if nights else None
    if parent:
        check_version(config, parent)
    num_new = count_new_prompts(config, parent)
    if not num_new:
        return NightlyPlan(None, _nothing_new(parent))
    run = start_run(checked, run_id=new_run_id(f"{config.name}-nightly"))
    plan = f"{num_new} new prompts go into version {_version(parent) + 1}, run {run.run_id}"
    run.update_info(
        series=config.name,
        parent=parent.run_id if parent else None,
        replaces=failed.run_id if failed else None,
        plan=plan,
    )
    return NightlyPlan(run, plan)


def nightly_runs(name: str) -> list[RunDir]:
    """The nights of a recipe, oldest first: each is the parent of the next.

    A night that failed its audit does not count any more once another one replaces it.
    """
    found = [RunDir(path.parent) for path in runs_root().glob("*/run.json")]
    nights = {run.run_id: run for run in found if run.info().get("series") == name}
    replaced = {run.info().get("replaces") for run in nights.values()}
    after = {
        run.info().get("parent"): run for run_id, run in nights.items() if run_id not in replaced
    }
    chain: list[RunDir] = []
    latest: str | None = None
    while latest in after and len(chain) < len(nights):
        chain.append(after[latest])
        latest = chain[-1].run_id
    return chain


def labels_otherwise(run: RunDir, recipe: CheckedRecipe) -> bool:
    """Whether the recipe, or a file that decides its labels, is not what the run began with."""
    files = {run.recipe: recipe.path, **copied_paths(run, recipe.config)}
    return any(
        not copy.exists() or file_hash(copy) != file_hash(path) for copy, path in files.items()
    )


def count_new_prompts(config: RunConfig, parent: RunDir | None) -> int:
    """Training prompts that the parent's version and those before it have not asked."""
    files = [resolve_path(path) for path in config.prompts.train]
    exclude = known_prompt_ids(parent) if parent else ()
    rows = read_prompts(files, limit=config.prompts.limit, seed=config.seed, exclude=exclude)
    return sum(1 for _ in rows)


async def take_run(run: RunDir) -> Path:
    """All phases of a run under its lock, without an orchestrator; returns the report's path."""
    with RunLock(run.root):
        return await run_all(open_context(run, current_progress()))


async def run_nightly(
    plan: NightlyPlan, take: Callable[[RunDir], Awaitable[object]] = take_run
) -> str:
    """Take tonight's run, if there is one, through its phases; returns what was done, in words.

    Args:
        take: takes a run through its phases, such as `take_run` or a Prefect flow.
    """
    if plan.run is not None:
        await take(plan.run)
    return plan.message


def _nothing_new(parent: RunDir | None) -> str:
    where = f"version {_version(parent)} (run {parent.run_id})" if parent else "no version"
    return f"nothing to do: every prompt of the recipe is in {where} already"


def _version(run: RunDir | None) -> int:
    dataset = load_dataset(run) if run else None
    return dataset.version if dataset else 0
