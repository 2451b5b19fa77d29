"""The audit of a run's labels: every judge's rows from disk, held against the thresholds.

In:  shards of preference/judge*, preference/canary*, and of the responses that were compared
Out: JudgeAudit, one per judge

One shard is in memory at a time. No model is asked and nothing is written.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.audits.findings import AuditFinding
from pipeline.audits.label_figures import EVERYTHING, Figure, LabelFigures, check_labels, raw_label
from pipeline.audits.remedies import Remedy, remedies
from pipeline.config.audits import LabelAuditConfig
from pipeline.ids import derive_seed
from pipeline.store import Manifest
from pipeline.store.shards import iter_manifests, read_table, require_manifest
from pipeline.store.stage_names import CANARY, split_folder, stage_folder

DRAWS = 2000
"""Bootstrap samples of a mean."""
TEXT_COLUMNS = {"response": "response", "revision": "revision"}
"""Column of the text by row kind."""


@dataclass(frozen=True)
class JudgeAudit:
    """What one judge's labels are worth."""

    folder: str
    """Where its labels are, such as `preference/judge-2`."""
    judge: str
    """Name of the model."""
    fingerprint: str
    figures: dict[str, dict[str, Figure]]
    """By scope (a principle's id, or empty for all rows) and name of the figure."""
    findings: tuple[AuditFinding, ...]
    judges_itself: bool
    """True when the compared texts were written by the judge's own model."""

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """The ways out that its failed checks point to, in the order in which to try them."""
        return remedies(self.findings)


def canary_folder(judgments: str) -> str:
    """`preference/judge-2` has its canaries in `preference/canary-2`."""
    phase, _, part = split_folder(judgments)
    return stage_folder(phase, CANARY, part)


def audit_judge(
    root: Path, folder: str, config: LabelAuditConfig, *, tie_width: float
) -> JudgeAudit:
    """Measure and check one judge's labels.

    Raises:
        StoreError: a shard that its manifest names cannot be read.
    """
    figures = LabelFigures(tie_width)
    asked_again = {
        row["canary_id"]
        for manifest in iter_manifests(root, canary_folder(folder))
        for row in _rows(root, manifest)
        if row["canary"] == "swapped"
    }
    before: dict[str, float] = {}
    authors: set[str] = set()
    engine: dict[str, str] | None = None
    for manifest in iter_manifests(root, folder):
        engine = manifest.engine if engine is None else engine
        words: dict[str, int] = {}
        for texts in _compared(root, manifest):
            authors.add(texts.engine.get("fingerprint", ""))
            column = TEXT_COLUMNS[texts.row_kind]
            words |= {r["row_id"]: len((r[column] or "").split()) for r in _rows(root, texts)}
        rows = _rows(root, manifest)
        figures.add_labels(rows, words)
        before |= {row["row_id"]: raw_label(row) for row in rows if row["row_id"] in asked_again}
    for manifest in iter_manifests(root, canary_folder(folder)):
        figures.add_canaries(_rows(root, manifest), before)
    engine = engine or {}
    scopes = (EVERYTHING, *figures.principles)
    seed = derive_seed("label audit", folder)
    estimates = {scope: figures.estimates(scope, draws=DRAWS, seed=seed) for scope in scopes}
    checked = scopes if config.per_principle else scopes[:1]
    return JudgeAudit(
        folder=folder,
        judge=engine.get("name", ""),
        fingerprint=engine.get("fingerprint", ""),
        figures=estimates,
        findings=tuple(
            f for scope in checked for f in check_labels(estimates[scope], config, scope)
        ),
        judges_itself=engine.get("fingerprint", "") in authors,
    )


def _compared(root: Path, judgments: Manifest) -> list[Manifest]:
    """The shards of the texts that a shard of labels is about."""
    folders = [path.rpartition("/")[0] for path in judgments.inputs]
    manifests = [require_manifest(root, folder, judgments.shard_index) for folder in folders]
    return [manifest for manifest in manifests if manifest.row_kind in TEXT_COLUMNS]


def _rows(root: Path, manifest: Manifest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(root, manifest).to_pylist()
    return rows
