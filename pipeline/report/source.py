"""What a report is made from, read from a run folder; no model is asked.

In:  run.json, recipe, constitution, environment, metrics.json, audit.json, manifests, training/*/
Out: ReportData. A part that is missing is empty, so that a stopped run has a report too
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.audits.findings import AuditReport
from pipeline.audits.judge_audit import JudgeAudit
from pipeline.config import RunConfig, load_config
from pipeline.config.labeling import PairConfig
from pipeline.constitution import Constitution, load_constitution
from pipeline.errors import ConfigError
from pipeline.evaluation import Metrics, collect_metrics
from pipeline.evaluation.data_summary import measure_data, stage_metrics
from pipeline.evaluation.results import WinRate
from pipeline.stats import Estimate
from pipeline.store import RunDir, read_json
from pipeline.training.job import TrainingResult
from pipeline.training.metrics import MetricsRow, read_metrics

JOBS = {"sft": "SFT", "preference": "Preference"}
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


class Audit(BaseModel):
    """preference/audit.json: what the gate before the export found; empty without an audit."""

    notes: list[str] = []
    """What a person should know although no check failed."""
    judges: list[JudgeAudit] = []
    collapse: AuditReport | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """One training job as it left its folder."""

    title: str
    """`SFT` or `Preference`."""
    rows: list[MetricsRow]
    """Lines of metrics.jsonl."""
    result: TrainingResult | None
    """None while the job is not finished."""


@dataclass(frozen=True)
class ReportData:
    """Everything but the table of pairs."""

    run: RunDir
    info: dict[str, Any]
    """run.json."""
    environment: dict[str, Any]
    """environment.json."""
    config: RunConfig | None
    recipe_text: str
    constitution: Constitution | None
    constitution_text: str
    metrics: Metrics
    training: list[TrainingRecord]
    audit: Audit
    notes: list[str] = field(default_factory=list)
    """Files that this version cannot read, one line each."""

    @property
    def final_policy(self) -> str | None:
        """The last policy after the initial one; None when there is none."""
        names = [name for name in self.metrics.policies if name != "initial"]
        return names[-1] if names and "initial" in self.metrics.policies else None

    @property
    def changes(self) -> dict[str, Estimate | None]:
        """Changes of the final policy against the initial one, by measure."""
        return self.metrics.changes.get(self.final_policy or "", {})

    @property
    def has_oracle(self) -> bool:
        """Whether the truth about the policies is known."""
        return any(policy.oracle for policy in self.metrics.policies.values())

    def win_rate(self, policy: str | None = None) -> WinRate | None:
        """A policy, the final one by default, against the initial one; None without a match."""
        for entry in self.metrics.win_rates:
            match = (entry.policy, entry.against) == (policy or self.final_policy, "initial")
            if match and entry.win_rate is not None:
                return entry
        return None

    def request_of(self, principle_id: str) -> str:
        """What the principle asks of the judge; empty when it is not in the constitution."""
        principles = self.constitution.principles if self.constitution else ()
        return next((p.comparison_request for p in principles if p.id == principle_id), "")


def read_run(run: RunDir) -> ReportData:
    """Read a run folder, finished or not.

    Raises:
        StoreError: not a run folder, or a shard that its manifest names is damaged.
    """
    run.require()
    notes: list[str] = []
    config = _load_or_none(load_config, run.recipe)
    metrics = _validated(run.metrics, Metrics, notes, "; the figures below come from the rows")
    if metrics is None or metrics.data is None:
        # There are no labels, or the file has lost what it said of them.
        measured = _measured(run, config)
        metrics = measured if metrics is None or measured.data else metrics
    training = []
    for name, title in JOBS.items():
        folder = run.training(name)
        rows = read_metrics(folder / "metrics.jsonl")
        result = _validated(folder / "result.json", TrainingResult, notes)
        if rows or result:
            training.append(TrainingRecord(title, rows, result))
    return ReportData(
        run=run,
        info=run.info(),
        environment=read_json(run.root / "environment.json") or {},
        config=config,
        recipe_text=_text(run.recipe),
        constitution=_load_or_none(load_constitution, run.constitution),
        constitution_text=_text(run.constitution),
        # What the stages did is always of now: a run may have gone further since the file was made.
        metrics=metrics.model_copy(update={"stages": stage_metrics(run.root)}),
        training=training,
        audit=read_audit(run, notes),
        notes=notes,
    )


def later_environments(environment: dict[str, Any]) -> list[dict[str, Any]]:
    """The environments of environment.json after the first, in which the run was resumed."""
    later = environment.get("later")
    return [each for each in later if isinstance(each, dict)] if isinstance(later, list) else []


def read_audit(run: RunDir, notes: list[str] | None = None) -> Audit:
    """The stored audit of a run's labels and texts; empty when there is none.

    Args:
        notes: gets a line when the file cannot be read.
    """
    path = run.root / "preference" / "audit.json"
    audit = _validated(path, Audit, notes, f"; `rlaif audit {run.run_id}` makes it again")
    return audit or Audit()


def _measured(run: RunDir, config: RunConfig | None) -> Metrics:
    """What the shards say, without an oracle."""
    if config is not None:
        return collect_metrics(run, config)
    data, principles = measure_data(run.root, PairConfig())
    return Metrics(data=data, principles=principles)


def _validated(
    path: Path, model: type[Model], notes: list[str] | None, remedy: str = ""
) -> Model | None:
    """The file's contents; None where there is no file, or, with a note, where they do not fit."""
    stored = read_json(path)
    if stored is None:
        return None
    try:
        return model.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if notes is not None:
            notes.append(
                f"{path.name} of another version was left out ({where}: {first['msg']}){remedy}"
            )
        return None


def _load_or_none(load: Callable[[Path], T], path: Path) -> T | None:
    try:
        return load(path)
    except ConfigError:
        return None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
