"""The version of a data set that a night extends, made again under the night's constitution.

In:  a night whose constitution differs from that of runs whose rows the version holds
Out: an impact run for each of them and all later ones, `<night>-v<version>`, each the parent of the
     next; the night then continues the data set of the last

Only rows that a changed principle touched are asked for again. The old runs are only read.
"""

from collections.abc import Iterable
from functools import reduce

from pipeline.constitution import Constitution, load_constitution
from pipeline.data.dataset import load_dataset, parent_run
from pipeline.errors import AuditError, StoreError, UserError
from pipeline.impact.effects import Impact
from pipeline.impact.run import check_parts, load_impact, run_impact
from pipeline.run.audit_gate import AUDIT_FAILED
from pipeline.run.context import RunContext
from pipeline.store import RunDir
from pipeline.store.layout import run_beside

KEEP = "set nightly.relabel to false, which keeps all rows of earlier nights as they are"


async def relabel_version(ctx: RunContext) -> None:
    """Make again what the version before a night has under another constitution than the night's;
    a repeated call continues, and does nothing once all is done.

    Raises:
        UserError: see `run_impact`.
        AuditError: labels made again failed the audit of their recipe; the night counts as failed.
    """
    night = ctx.run
    last = parent_run(night)
    runs = outdated_runs(last, ctx.constitution) if last else []
    parent = runs[0].info().get("parent") if runs else None
    for before in runs:
        dataset = load_dataset(before)
        run_id = f"{night.run_id}-v{dataset.version if dataset else 0}"
        try:
            run, _ = await run_impact(
                before,
                night.constitution,
                run_id=run_id,
                progress=ctx.progress,
                night=night.run_id,
                parent=parent,
            )
        except AuditError:
            night.update_info(audited=run_id)
            night.end(AUDIT_FAILED)
            raise
        parent = run.run_id
    if runs:
        night.update_info(parent=parent)


def outdated_runs(last: RunDir, new: Constitution) -> list[RunDir]:
    """The runs of a version, the last of which is `last`, whose rows have to be made again, oldest
    first: from the first one under another constitution on. Empty where all have the new one.

    Raises:
        StoreError: there are such runs, and one of them, or a part of it, is gone.
        ConfigError, MachineError: a model that made their rows is gone.
    """
    runs, gone = [last], ""
    while name := runs[0].info().get("parent"):
        run = run_beside(last.root.parent, str(name))
        if load_dataset(run) is None:
            gone = str(name)
            break
        runs.insert(0, run)
    first = next((i for i, each in enumerate(runs) if not labeled_under(each, new)), None)
    if first is None:
        return []
    if gone:
        raise StoreError(
            f"the constitution has changed, but the data set of run {gone}, whose rows it touches, "
            f"is gone; bring it back, or {KEEP}"
        )
    for run in runs[first:]:
        try:
            check_parts(run)
        except UserError as error:
            raise type(error)(f"{error}; or {KEEP}") from None
    return runs[first:]


def labeled_under(run: RunDir, new: Constitution) -> bool:
    """Whether a run's rows would be the same under a constitution; the order of principles decides
    nothing.
    """
    old = load_constitution(run.constitution)
    weights = [sorted((p.hash, p.weight) for p in each.principles) for each in (old, new)]
    return weights[0] == weights[1] and old.overrulers == new.overrulers


def relabeled(night: RunDir) -> Impact | None:
    """What became of the rows that a night, or a failed one that it replaces, made again, of all
    runs together; None without any.
    """
    names, name, impacts = set(), night.run_id, list[Impact]()
    while name and name not in names:
        names.add(name)
        name = run_beside(night.root.parent, name).info().get("replaces") or ""
    run = night
    while name := run.info().get("parent") or "":
        run = run_beside(night.root.parent, name)
        if run.info().get("night") not in names:
            break
        impacts.insert(0, load_impact(run))
    return reduce(Impact.plus, impacts) if impacts else None


def original_runs(runs: Iterable[RunDir]) -> dict[str, str]:
    """By id of a run that a night made again: the id of the run that it was made from."""
    infos = ((run.run_id, run.info()) for run in runs)
    return {run_id: str(info["impact_of"]) for run_id, info in infos if info.get("night")}
