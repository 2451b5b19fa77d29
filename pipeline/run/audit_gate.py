"""The gate before the export: are the labels worth it, and does the data look sane?

In:  a run whose pairs are made
Out: preference/audit.json, and AuditError (exit code 3) when a check failed; nothing is exported
     then, and every row stays where it is

The audit reads what is on disk and asks no model, so a resumed run gets the same answer for free.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.audits.findings import AuditFinding, AuditReport
from pipeline.audits.judge_audit import JudgeAudit, audit_judge
from pipeline.audits.label_figures import EVERYTHING, FIGURES
from pipeline.audits.text_checks import audit_pairs
from pipeline.errors import AuditError, StoreError
from pipeline.report import write_report
from pipeline.run.context import RunContext
from pipeline.run.plan import judge_folders
from pipeline.store import RunDir, read_rows, write_json
from pipeline.store.shards import stage_manifests
from pipeline.store.stage_names import PAIRS

SELF_PREFERENCE = (
    "the judge of {folder} is the model that wrote the responses; a model may prefer what it would "
    "have written itself, so compare with another judge"
)
NO_CANARIES = (
    "no canary check of {folder} could be made ({why}), so nothing that is known was asked of it: set "
    "preference.audit.canaries_per_shard in a new run, or a min_rows and min_prompts that so few "
    "prompts reach"
)
UNTESTED = (
    "no shipped canary was judged, so no known answer was tested: give the principles tags of the "
    "canary file, or the recipe canaries with tags of the constitution"
)


@dataclass(frozen=True)
class RunAudit:
    """All that is checked before an export."""

    judges: tuple[JudgeAudit, ...]
    """Empty when the recipe does not audit its labels."""
    collapse: AuditReport | None
    """None when the recipe does not audit its texts."""

    @property
    def failed(self) -> list[tuple[str, AuditFinding]]:
        """What failed, each with the data that it is about; checks of all rows before those of one
        principle.
        """
        found = [(j.folder, f) for j in self.judges for f in j.findings if f.status == "failed"]
        found.sort(key=lambda entry: bool(entry[1].scope))
        texts = self.collapse.failed if self.collapse else ()
        return [*found, *(("the chosen texts", finding) for finding in texts)]

    @property
    def notes(self) -> list[str]:
        """What a person should know although no check fails."""
        found = [SELF_PREFERENCE.format(folder=j.folder) for j in self.judges if j.judges_itself]
        # Scores and follow-ups have no slots, and nothing to ask a canary of.
        asked = [j for j in self.judges if "off_option" in j.figures[EVERYTHING]]
        for judge in asked:
            checks = [f for f in judge.findings if FIGURES[f.name].is_canary and not f.scope]
            if checks and all(f.status == "skipped" for f in checks):
                most = max(checks, key=lambda finding: finding.n)
                found.append(NO_CANARIES.format(folder=judge.folder, why=most.detail))
        if asked and not any("known" in judge.figures[EVERYTHING] for judge in asked):
            found.append(UNTESTED)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The contents of preference/audit.json."""
        return {
            "passed": not self.failed,
            "notes": self.notes,
            "judges": [asdict(judge) for judge in self.judges],
            "collapse": self.collapse.as_dict() if self.collapse else None,
        }


def audit_path(run: RunDir) -> Path:
    """Where the audit of a run stands."""
    return run.root / "preference" / "audit.json"


def audit_run(ctx: RunContext) -> RunAudit:
    """Audit the labels and pairs of a run, whatever its recipe enables of it.

    Raises:
        StoreError: there are no labels yet, or a shard is damaged.
    """
    config = ctx.config.preference
    folders = [name for name in judge_folders(ctx) if stage_manifests(ctx.run.root, name)]
    if not folders:
        raise StoreError(
            f"run {ctx.run.run_id} has no labels yet; `rlaif resume {ctx.run.run_id}` goes on with it"
        )
    judges = tuple(
        audit_judge(ctx.run.root, name, config.audit, tie_width=config.pair.tie_width)
        for name in folders
    )
    return RunAudit(judges, _audit_pairs(ctx))


def require_audit(ctx: RunContext) -> None:
    """Let the export go on only when nothing failed.

    Raises:
        AuditError: a check failed; the audit and a report are written, all rows are kept.
        StoreError: a shard is damaged.
    """
    config = ctx.config.preference
    if not config.enabled or not (config.audit.enabled or config.collapse):
        return
    audit = audit_run(ctx)
    if not config.audit.enabled:
        audit = RunAudit((), audit.collapse)
    write_json(audit_path(ctx.run), audit.as_dict())
    for note in audit.notes:
        ctx.progress.note(note)
    if audit.failed:
        ctx.run.update_info(status="audit failed")
        write_report(ctx.run)
        raise AuditError(refusal(ctx.run, audit))


def refusal(run: RunDir, audit: RunAudit) -> str:
    """One line: the first check that failed, what was found and needed, where the rest is."""
    subject, first = audit.failed[0]
    others = len(audit.failed) - 1
    return (
        f"the audit of run {run.run_id} failed: {first.title} of {subject} is {first.measured} over "
        f"{first.n}, needed {first.needed}{f'; {others} more failed' if others else ''}. Nothing "
        f"was exported and all rows are kept; `rlaif audit {run.run_id}` shows every check "
        f"({audit_path(run)}). Correct the judge, or change the thresholds in a new recipe"
    )


def _audit_pairs(ctx: RunContext) -> AuditReport | None:
    config = ctx.config.preference.collapse
    if config is None:
        return None
    prompts = list(_rows(ctx, "prompts"))
    return audit_pairs(_rows(ctx, PAIRS), prompts=prompts, config=config)


def _rows(ctx: RunContext, folder: str) -> Iterator[Any]:
    for manifest in stage_manifests(ctx.run.root, folder):
        yield from read_rows(ctx.run.root, manifest)
