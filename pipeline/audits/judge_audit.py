"""The audit of a run's labels: every judge's rows from disk, held against the thresholds.

In:  shards of preference/judge*, preference/canary*, and of the responses that were compared
Out: LabelAudit, one entry per judge

One shard is in memory at a time. Nothing is asked of a model and nothing is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.audits.findings import AuditFinding
from pipeline.audits.label_figures import EVERYTHING, LabelFigures, check_labels
from pipeline.audits.label_observations import raw_label
from pipeline.config.audits import LabelAuditConfig
from pipeline.errors import StoreError
from pipeline.ids import derive_seed
from pipeline.store import Manifest
from pipeline.store.shards import read_table, stage_manifests

DRAWS = 2000
TEXT_COLUMNS = {"response": "response", "revision": "revision"}
"""Column of the text by row kind."""
LABEL_COLUMNS = (
    "prompt_id",
    "status",
    "first_id",
    "second_id",
    "principle_id",
    "soft_label",
    "prob_forward",
    "prob_swapped",
    "row_id",
    "method",
    "option_logprobs",
)
CANARY_COLUMNS = (*LABEL_COLUMNS, "canary", "canary_id", "expected")


@dataclass(frozen=True)
class JudgeAudit:
    """What one judge's labels are worth."""

    folder: str
    """Where its labels are, such as `preference/judge-2`."""
    judge: str
    """Name of the model."""
    fingerprint: str
    figures: dict[str, dict[str, dict[str, float]]]
    """Share, interval, n and clusters by scope (a principle's id, or empty for all rows) and figure."""
    findings: tuple[AuditFinding, ...]
    judges_itself: bool
    """True when the compared texts were written by the judge's own model."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def canary_folder(judgments: str) -> str:
    """`preference/judge-2` has its canaries in `preference/canary-2`."""
    return judgments.replace("/judge", "/canary")


def audit_judge(
    root: Path, folder: str, config: LabelAuditConfig, *, tie_width: float
) -> JudgeAudit:
    """Measure and check one judge's labels.

    Raises:
        StoreError: a shard that its manifest names cannot be read.
    """
    figures = LabelFigures(tie_width)
    manifests = stage_manifests(root, folder)
    canaries = stage_manifests(root, canary_folder(folder))
    twins = _twins(root, canaries)
    before: dict[str, float] = {}
    authors: set[str] = set()
    for manifest in manifests:
        words = {}
        for texts in _compared(root, manifest):
            authors.add(texts.engine.get("fingerprint", ""))
            words |= _words(root, texts)
        for rows in _by_prompt(_rows(root, manifest, LABEL_COLUMNS)):
            figures.add_prompt(rows, words)
            before |= {row["row_id"]: raw_label(row) for row in rows if row["row_id"] in twins}
    for manifest in canaries:
        figures.add_canaries(_rows(root, manifest, CANARY_COLUMNS), before)
    engine = manifests[0].engine
    scopes = (EVERYTHING, *figures.principles)
    seed = derive_seed("label audit", folder)
    estimates = {scope: figures.estimates(scope, draws=DRAWS, seed=seed) for scope in scopes}
    checked = scopes if config.per_principle else scopes[:1]
    return JudgeAudit(
        folder=folder,
        judge=engine.get("name", ""),
        fingerprint=engine.get("fingerprint", ""),
        figures={
            scope: {name: value.as_dict() for name, value in found.items()}
            for scope, found in estimates.items()
        },
        findings=tuple(
            f for scope in checked for f in check_labels(estimates[scope], config, scope)
        ),
        judges_itself=engine.get("fingerprint", "") in authors,
    )


def _twins(root: Path, canaries: Sequence[Manifest]) -> set[str]:
    """Ids of the judgments that were asked again the other way round."""
    return {
        row["canary_id"]
        for manifest in canaries
        for row in _rows(root, manifest, ("canary", "canary_id"))
        if row["canary"] == "swapped"
    }


def _compared(root: Path, judgments: Manifest) -> list[Manifest]:
    """The shards of the texts that a shard of labels is about."""
    found = []
    for path in judgments.inputs:
        source = (root / path).with_suffix(".json")
        try:
            found.append(Manifest.from_json(source.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise _damaged(root, path, error) from error
    return [manifest for manifest in found if manifest.row_kind in TEXT_COLUMNS]


def _words(root: Path, texts: Manifest) -> dict[str, int]:
    column = TEXT_COLUMNS[texts.row_kind]
    rows = _rows(root, texts, ("row_id", column))
    return {row["row_id"]: len((row[column] or "").split()) for row in rows}


def _rows(root: Path, manifest: Manifest, columns: Sequence[str]) -> list[dict[str, Any]]:
    try:
        return read_table(root, manifest).select(list(columns)).to_pylist()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _damaged(root, manifest.path, error) from error


def _damaged(root: Path, path: str, error: Exception) -> StoreError:
    return StoreError(
        f"{root / path} cannot be read ({str(error).splitlines()[0]}); `rlaif resume {root.name}` "
        "makes it again"
    )


def _by_prompt(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row)
    yield from groups.values()
