"""What a report is made from, read from a run folder; nothing is asked of a model.

In:  run.json, recipe, constitution, environment, metrics.json, manifests, training/*/
Out: ReportData. Whatever is not there (yet) is empty, so that a stopped run has a report too
"""

from dataclasses import dataclass, field
from typing import Any

from pipeline.config import RunConfig, load_config
from pipeline.constitution import Constitution, load_constitution
from pipeline.errors import ConfigError
from pipeline.evaluation import collect_metrics
from pipeline.evaluation.data_summary import measure_data, stage_counts
from pipeline.store import RunDir, read_json
from pipeline.training.metrics import read_metrics

JOBS = (("sft", "SFT"), ("preference", "Preference"))
DEFAULT_TIE_WIDTH = 0.02


@dataclass(frozen=True)
class TrainingRecord:
    """One training job as it left its folder."""

    name: str
    """`sft` or `preference`."""
    title: str
    rows: list[dict[str, Any]]
    """Lines of metrics.jsonl."""
    result: dict[str, Any]
    """result.json; empty while the job is not finished."""

    @property
    def alarms(self) -> list[str]:
        """Messages of what looked suspicious."""
        return [str(alarm.get("message", "")) for alarm in self.result.get("alarms", [])]


@dataclass(frozen=True)
class ReportData:
    """Everything but the table of pairs."""

    run: RunDir
    info: dict[str, Any]
    environment: dict[str, Any]
    config: RunConfig | None
    recipe_text: str
    constitution: Constitution | None
    constitution_text: str
    metrics: dict[str, Any]
    training: list[TrainingRecord] = field(default_factory=list)
    audit: dict[str, Any] = field(default_factory=dict)
    """preference/audit.json; empty without an audit."""

    @property
    def policies(self) -> dict[str, Any]:
        """Entries of metrics.json by policy, the initial one first."""
        return self.metrics.get("policies") or {}

    @property
    def final_policy(self) -> str | None:
        """The last policy besides the initial one; None when there is none."""
        names = [name for name in self.policies if name != "initial"]
        return names[-1] if names and "initial" in self.policies else None

    @property
    def changes(self) -> dict[str, Any]:
        """Changes of the final policy against the initial one."""
        return (self.metrics.get("changes") or {}).get(self.final_policy or "", {})

    @property
    def has_oracle(self) -> bool:
        """Whether the truth about the policies is known."""
        return any(entry.get("oracle") for entry in self.policies.values())

    def win_rate(self) -> dict[str, Any] | None:
        """The final policy against the initial one; None when they did not meet."""
        for entry in self.metrics.get("win_rates") or []:
            match = (entry["policy"], entry["against"]) == (self.final_policy, "initial")
            if match and entry["win_rate"] is not None:
                return entry
        return None

    def request_of(self, principle_id: str) -> str:
        """What the principle asks of the judge; empty when it is not in the constitution."""
        for principle in self.constitution.principles if self.constitution else ():
            if principle.id == principle_id:
                return principle.comparison_request
        return ""


def read_run(run: RunDir) -> ReportData:
    """Read a run folder, finished or not.

    Raises:
        StoreError: not a run folder, or a shard that its manifest names is damaged.
    """
    run.require()
    config = _load_or_none(load_config, run.recipe)
    return ReportData(
        run=run,
        info=run.info(),
        environment=read_json(run.root / "environment.json") or {},
        config=config,
        recipe_text=_text(run.recipe),
        constitution=_load_or_none(load_constitution, run.constitution),
        constitution_text=_text(run.constitution),
        metrics=_metrics(run, config),
        training=[record for name, title in JOBS if (record := _training(run, name, title))],
        audit=read_audit(run),
    )


def _metrics(run: RunDir, config: RunConfig | None) -> dict[str, Any]:
    """metrics.json; without it, what the shards say. Stage counts are always of now."""
    stored = read_json(run.metrics)
    if isinstance(stored, dict):
        return stored | {"stages": stage_counts(run.root)}
    if config is not None:
        return collect_metrics(run, config)
    data, principles = measure_data(run.root, DEFAULT_TIE_WIDTH)
    return {"stages": stage_counts(run.root), "data": data, "principles": principles}


def read_audit(run: RunDir) -> dict[str, Any]:
    """The stored audit of a run's labels; empty when there is none."""
    found = read_json(run.root / "preference" / "audit.json")
    return found if isinstance(found, dict) else {}


def _training(run: RunDir, name: str, title: str) -> TrainingRecord | None:
    folder = run.training(name)
    rows = read_metrics(folder / "metrics.jsonl")
    result = read_json(folder / "result.json")
    if not rows and not result:
        return None
    return TrainingRecord(name, title, rows, result if isinstance(result, dict) else {})


def _load_or_none(load: Any, path: Any) -> Any:
    try:
        return load(path)
    except ConfigError:
        return None


def _text(path: Any) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
