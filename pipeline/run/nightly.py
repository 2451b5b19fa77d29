"""The nightly refresh: prompts that no earlier version of the data set has make the next version.

In:  a recipe, and the runs of earlier nights
Out: NightlyPlan: the run to take through its phases, or None when there is nothing to do

A night's run names the night before it as its parent. Its data set holds the parent's rows followed
by its own, and training uses all of them, so no prompt of the parent's may be held out. Where the
constitution has changed since, the night begins by making again what the change touches in the
version (`impact/version.py`), even if no prompt is new, and that becomes its parent.

With `evaluation.gate`, a night begins with the policy of the last night that was promoted, instead
of the recipe's: it writes the responses, and training continues from it.

A stopped night is finished first, from its own copies: its prompts are written when it is planned.
A night whose audit failed gave no pairs and would fail again from the same files, so the next
nights refuse to start until the recipe or one of its labeling files has changed; then the failed
night's prompts are asked again, along with the new ones.
"""

import fcntl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.config.overrides import override
from pipeline.config.paths import resolve_path
from pipeline.config.recipe import read_recipe
from pipeline.config.yaml_file import parse_model
from pipeline.data.dataset import DatasetManifest, load_dataset, parent_run
from pipeline.data.heldout import check_version
from pipeline.data.prompts import read_prompts
from pipeline.errors import AuditError, StoreError
from pipeline.ids import file_hash
from pipeline.impact.version import labeled_under, original_runs, outdated_runs
from pipeline.progress import current_progress
from pipeline.report.numbers import count_of
from pipeline.run.asked import AskedBefore, asked_before
from pipeline.run.audit_gate import AUDIT_FAILED
from pipeline.run.context import PROMOTED, open_context, promoted_model
from pipeline.run.files import copied_paths
from pipeline.run.nights import write_pages
from pipeline.run.passes import heldout_shards, prompt_shards
from pipeline.run.phases import run_all
from pipeline.run.start import CheckedRecipe, check_recipe, find_run, runs_root, start_run, work_in
from pipeline.store import RunDir, new_run_id
from pipeline.store.remote import is_locked


@dataclass(frozen=True)
class NightlyPlan:
    """The work of one night."""

    run: RunDir | None
    """The run to take through its phases; None when there is nothing to do."""
    message: str
    """The work in one sentence, for people."""


def plan_nightly(recipe: str, run_id: str | None = None) -> NightlyPlan:
    """Find a stopped night, or start a run for the new prompts and a changed constitution.

    Args:
        run_id: a night that is planned already; it is taken as it is.

    Raises:
        UserError: see `check_recipe`; nothing is written.
        StoreError: another process is at work on the last night; or the version before it, or a
            part of one that has to be made again, is gone. Nothing is written.
        DataError: a held-out prompt is in the previous version; nothing is written.
        AuditError: the last night failed its audit, and its files have not changed since.
    """
    if run_id is not None:
        run = find_run(run_id)
        return NightlyPlan(run, run.info().get("plan") or f"continues {run.run_id}")
    name = read_recipe(resolve_path(Path(recipe)))[0].name
    with _planning(name):
        nights = nightly_runs(name)
        for run in nights:
            if run.info().get("status") not in ("finished", AUDIT_FAILED):
                if is_locked(run.root):
                    raise StoreError(
                        f"the night of run {run.run_id} is still at work; wait for it, or stop it"
                    )
                return NightlyPlan(run, f"continues {run.run_id}, which was stopped")
        return _next_night(recipe, nights)


@contextmanager
def _planning(name: str) -> Iterator[None]:
    """Held by the one process that plans a night of this name; others on this machine wait."""
    path = runs_root().parent / "nights" / f".{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _next_night(recipe: str, nights: list[RunDir]) -> NightlyPlan:
    checked = check_recipe(Path(recipe))
    config = checked.config
    failed = nights.pop() if nights and nights[-1].info().get("status") == AUDIT_FAILED else None
    if failed and not files_changed(failed, checked):
        raise AuditError(
            f"the audit of the last night, run {failed.run_id}, failed, and it would fail again "
            f"with the same recipe; `rlaif audit {failed.info().get('audited') or failed.run_id}` "
            f"shows every check. Correct {recipe}, its constitution or its templates, and the next "
            "night asks the same prompts again; if only the judge itself has changed, move "
            f"{failed.root} elsewhere first"
        )
    parent = nights[-1] if nights else None
    if parent:
        require_dataset(parent)
        check_version(config, parent)
    if failed and labeled_under(failed, checked.constitution):
        parent = parent_run(failed) or parent  # what it made again is right for this night too
    again = outdated_runs(parent, checked.constitution) if parent and config.nightly.relabel else []
    version = require_dataset(parent).version if parent else 0
    asked = asked_before(config, parent)
    num_new = count_new_prompts(config, asked)
    near = f"; left out: {count_of(len(asked.near), 'near-duplicate')} of earlier prompts"
    near = near if asked.near else ""
    if not num_new and not again:
        where = f"version {version} (run {parent.run_id})" if parent else "no version"
        message = f"nothing to do: every prompt of the recipe is in {where} already{near}"
        return NightlyPlan(None, message)
    promoted = last_promoted(nights)
    idle = "" if again else no_training(config, nights, num_new)
    overrides = _untrained(config) if idle else []
    run = start_run(_overridden(checked, overrides), run_id=new_run_id(f"{config.name}-nightly"))
    going = "new prompt goes" if num_new == 1 else "new prompts go"
    plan = f"{num_new} {going} into version {version + 1}, run {run.run_id}"
    if promoted:
        plan += f", from the policy that run {promoted.run_id} promoted"
    if again:
        plan += "; what the changed constitution touches in earlier nights is made again"
    plan += near + idle
    run.update_info(
        series=config.name,
        parent=parent.run_id if parent else None,
        policy_of=promoted.run_id if promoted else None,
        replaces=failed.run_id if failed else None,
        plan=plan,
        **({"relabel": True} if again else {}),
        **({"overrides": overrides} if overrides else {}),
    )
    ctx = open_context(run)
    prompt_shards(ctx)
    if config.prompts.heldout:
        heldout_shards(ctx)
    return NightlyPlan(run, plan)


def require_dataset(night: RunDir) -> DatasetManifest:
    """What a night made. A night on top of one without would end where it needs its rows, and every
    later night again.

    Raises:
        StoreError: it is gone.
    """
    dataset = load_dataset(night)
    if dataset is None:
        raise StoreError(
            f"the data set of the night before, run {night.run_id}, is gone; "
            f"`rlaif resume {night.run_id}` makes it again"
        )
    return dataset


def nightly_runs(name: str) -> list[RunDir]:
    """The nights of a recipe, oldest first: each is the parent of the next. Those before a night
    whose folder is gone are left out, since the versions after it have their rows.

    A night that failed its audit is left out once another night replaces it.
    """
    runs = [RunDir(path.parent) for path in runs_root().glob("*/run.json")]
    nights = {run.run_id: run for run in runs if run.info().get("series") == name}
    replaced = {run.info().get("replaces") for run in nights.values()}
    origins = original_runs(runs)
    before: dict[str, str | None] = {}
    for run_id in nights.keys() - replaced:
        before[run_id] = nights[run_id].info().get("parent")
        while before[run_id] in origins:
            before[run_id] = origins[str(before[run_id])]
    chain: list[RunDir] = []
    # Ids of one series sort by time.
    latest = max(before.keys() - set(before.values()), default=None)
    while latest in before and len(chain) < len(before):
        chain.insert(0, nights[latest])
        latest = before[latest]
    return chain


def last_promoted(nights: Sequence[RunDir]) -> RunDir | None:
    """The last night whose policy its gate promoted; None when there is none.

    Raises:
        StoreError: that policy is gone.
    """
    promoted = [run for run in nights if run.info().get("gate") == PROMOTED]
    if promoted:
        promoted_model(promoted[-1])
    return promoted[-1] if promoted else None


def no_training(config: RunConfig, nights: Sequence[RunDir], num_new: int) -> str:
    """Why a night with this number of new prompts trains nothing; empty where it trains."""
    trained = [night for night in nights if not night.info().get("overrides")]
    if not trained or not _untrained(config):
        return ""
    asked, before = (
        dataset.num_prompts if (dataset := load_dataset(night)) else 0
        for night in (nights[-1], trained[-1])
    )
    total = asked + num_new
    if enough_new(total, before, config.nightly.min_new_share):
        return ""
    return (
        f"; nothing is trained: {total - before} of {total} prompts are newer than the training of "
        f"run {trained[-1].run_id}, and nightly.min_new_share is {config.nightly.min_new_share:g}"
    )


def enough_new(total: int, before: int, least: float) -> bool:
    """Whether the share of `total` prompts beyond the first `before` is at least `least`."""
    return (total - before) / total >= least


def _untrained(config: RunConfig) -> list[str]:
    """What leaves the trainings out of a recipe, and the gate, which judges them; empty where the
    recipe trains nothing.
    """
    sections = {
        "supervised.train": config.supervised.train,
        "preference.train": config.preference.train,
        "evaluation.gate": config.evaluation.gate,
    }
    # A gate without a training is refused.
    return [f"{key}=null" for key, section in sections.items() if section is not None]


def _overridden(recipe: CheckedRecipe, overrides: Sequence[str]) -> CheckedRecipe:
    if not overrides:
        return recipe
    text = override(recipe.text, overrides, "the recipe")
    return replace(recipe, config=parse_model(text, RunConfig, "tonight's recipe"), text=text)


def files_changed(run: RunDir, recipe: CheckedRecipe) -> bool:
    """Whether the recipe or a file that decides its labels has changed since the run started."""
    then = _overridden(recipe, run.info().get("overrides", ()))
    text = run.recipe.read_text(encoding="utf-8") if run.recipe.is_file() else ""
    return text != then.text or any(
        not copy.exists() or file_hash(copy) != file_hash(path)
        for copy, path in copied_paths(run, recipe.config).items()
    )


def count_new_prompts(config: RunConfig, asked: AskedBefore) -> int:
    """Number of training prompts that were not asked before."""
    prompts, seed = config.prompts, config.seed
    rows = read_prompts(prompts.train, limit=prompts.limit, seed=seed, exclude=asked)
    return sum(1 for _ in rows)


async def take_run(run: RunDir) -> Path:
    """Take a run through all its phases, under its lock and without Prefect; returns the report's
    path.
    """
    with work_in(run):
        return await run_all(open_context(run, current_progress()))


async def run_nightly(
    plan: NightlyPlan, take: Callable[[RunDir], Awaitable[object]] = take_run
) -> str:
    """Take tonight's run, if there is one, through its phases; returns the plan's message.

    Args:
        take: takes a run through its phases, such as `take_run` or a Prefect flow.
    """
    if plan.run is not None:
        await take(plan.run)
        for line in night_pages(plan.run):
            current_progress().note(line)
    return plan.message


def night_pages(run: RunDir) -> list[str]:
    """Write the pages of a night that is finished and the last one; returns lines for people. For
    other runs nothing.
    """
    info = run.info()
    nights = nightly_runs(info["series"]) if info.get("series") else []
    last = nights[-1].run_id if nights and info.get("status") == "finished" else None
    return write_pages(nights) if last == run.run_id else []
