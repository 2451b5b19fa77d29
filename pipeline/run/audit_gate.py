"""The gate before the export: are the labels good enough, and do the texts look sane?

In:  a run that has its pairs
Out: preference/audit.json, and AuditError (exit code 3) when a check failed; then nothing is
     exported, and all rows are kept

The audit reads what is on disk and calls no model, so repeating it in a resumed run costs nothing.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.audits.findings import AuditFinding, AuditReport
from pipeline.audits.judge_audit import JudgeAudit, audit_judge
from pipeline.audits.label_figures import EVERYTHING, FIGURES
from pipeline.audits.panel import panel_note
from pipeline.audits.text_checks import audit_pairs
from pipeline.errors import AuditError, StoreError
from pipeline.report import write_report
from pipeline.run.context import RunContext
from pipeline.run.plan import judge_folders
from pipeline.store import RunDir, write_json
from pipeline.store.inventory import close_inventory
from pipeline.store.shards import iter_manifests, stage_rows
from pipeline.store.spending import stop_clock
from pipeline.store.stage_names import PAIRS, PROMPTS

AUDIT_FAILED = "audit failed"
"""The status in run.json of a run whose labels failed their audit."""
SELF_PREFERENCE = (
    "the judge of {folder} is the model that wrote the responses; a model may prefer what it would "
    "have written itself, so compare with another judge"
)
NO_CANARIES = (
    "no canary check of {folder} was possible ({why}), so its judge answered no question with a "
    "known answer; in a new run, raise preference.audit.canaries_per_shard or lower min_rows and "
    "min_prompts"
)
UNTESTED = (
    "no shipped canary was judged, so no known answer was tested; give principles the tags of the "
    "canary file, or name a canary file whose tags the constitution uses"
)


@dataclass(frozen=True)
class RunAudit:
    """The results of every check before an export."""

    judges: tuple[JudgeAudit, ...]
    """Empty when the recipe does not audit its labels."""
    collapse: AuditReport | None
    """None when the recipe does not audit its texts."""
    panel: str = ""
    """What the panel is worth; empty for one judge, and where it is not known."""

    @property
    def failed(self) -> list[tuple[str, AuditFinding]]:
        """The failed checks, each after the name of the data it is about; checks of all rows come
        before checks of one principle.
        """
        labels = [(j.folder, f) for j in self.judges for f in j.findings if f.status == "failed"]
        labels.sort(key=lambda entry: bool(entry[1].scope))
        texts = self.collapse.failed if self.collapse else ()
        return [*labels, *(("the chosen texts", finding) for finding in texts)]

    @property
    def notes(self) -> list[str]:
        """Warnings: what a person should know even when every check passes."""
        notes = [SELF_PREFERENCE.format(folder=j.folder) for j in self.judges if j.judges_itself]
        # Scores and follow-ups have no slots, so canaries do not apply to them.
        with_slots = [j for j in self.judges if "off_option" in j.figures[EVERYTHING]]
        for judge in with_slots:
            checks = [f for f in judge.findings if FIGURES[f.name].is_canary and not f.scope]
            if checks and all(f.status == "skipped" for f in checks):
                most = max(checks, key=lambda finding: finding.n)
                notes.append(NO_CANARIES.format(folder=judge.folder, why=most.detail))
        if with_slots and not any("known" in judge.figures[EVERYTHING] for judge in with_slots):
            notes.append(UNTESTED)
        return [*notes, self.panel] if self.panel else notes

    def as_dict(self) -> dict[str, Any]:
        """The contents of preference/audit.json."""
        return {
            "passed": not self.failed,
            "notes": self.notes,
            "judges": [asdict(judge) for judge in self.judges],
            "collapse": self.collapse.as_dict() if self.collapse else None,
        }


def audit_path(run: RunDir) -> Path:
    """Path of a run's audit, preference/audit.json."""
    return run.root / "preference" / "audit.json"


def audit_run(ctx: RunContext) -> RunAudit:
    """Audit the labels of a run even where its recipe does not, and its texts where it does.

    Raises:
        StoreError: there are no labels yet, or a shard is damaged.
    """
    config = ctx.config.preference
    folders = [name for name in judge_folders(ctx) if any(iter_manifests(ctx.run.root, name))]
    if not folders:
        raise StoreError(
            f"run {ctx.run.run_id} has no labels yet; `rlaif resume {ctx.run.run_id}` continues it"
        )
    judges = tuple(
        audit_judge(ctx.run.root, name, config.audit, tie_width=config.pair.tie_width)
        for name in folders
    )
    collapse = None
    if config.collapse is not None:
        prompts = stage_rows(ctx.run.root, PROMPTS)
        pairs = stage_rows(ctx.run.root, PAIRS)
        collapse = audit_pairs(pairs, prompts=list(prompts), config=config.collapse)
    return RunAudit(judges, collapse, panel_note(ctx.run.root, folders))


def require_audit(ctx: RunContext) -> None:
    """Refuse the export when a check of the recipe's audit fails.

    Raises:
        AuditError: a check failed; the audit and a report are written, and all rows are kept.
        StoreError: a shard is damaged.
    """
    config = ctx.config.preference
    if not config.enabled or not (config.audit.enabled or config.collapse):
        return
    if not any(iter_manifests(ctx.run.root, PROMPTS)):
        return  # A night without new prompts has no labels of its own.
    audit = audit_run(ctx)
    if not config.audit.enabled:
        audit = RunAudit((), audit.collapse)
    write_json(audit_path(ctx.run), audit.as_dict())
    for note in audit.notes:
        ctx.progress.note(note)
    if audit.failed:
        stop_clock(ctx.run)
        ctx.run.update_info(status=AUDIT_FAILED)
        write_report(ctx.run)
        close_inventory(ctx.run.root)
        raise AuditError(refusal(ctx.run, audit))


def refusal(run: RunDir, audit: RunAudit) -> str:
    """One line: the first failed check, its measured and needed value, where to see the rest, and
    the first way out that the figures point to.
    """
    subject, first = audit.failed[0]
    others = len(audit.failed) - 1
    return (
        f"the audit of run {run.run_id} failed: {first.title} of {subject} is {first.measured} "
        f"over {first.n}, needed {first.needed}{f'; {others} more failed' if others else ''}. "
        f"Nothing was exported and all rows are kept; `rlaif audit {run.run_id}` shows every check "
        f"({audit_path(run)}). {way_out(audit)}, or change the thresholds in a new recipe"
    )


def way_out(audit: RunAudit) -> str:
    """What to try first, for the first judge whose failed checks point to something."""
    remedies = [remedy for judge in audit.judges for remedy in judge.remedies]
    if not remedies:
        return "Correct the judge"
    first = remedies[0]
    return f"{first.sign.capitalize()}: {first.way_out}; `rlaif judge-tune` tries ways of asking"
