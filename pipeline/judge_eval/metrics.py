"""What `rlaif judge-eval` measured: metrics.json, which report, page and terminal show."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.judge_eval.figures import Baselines, JudgeFigures
from pipeline.judge_eval.fit import Fitted
from pipeline.sources.rows import SourceRecord


@dataclass(frozen=True)
class JudgeMetrics:
    """One judge, or the pool of all labels."""

    name: str
    """`judge`, `judge 2`, ..., or `pooled`."""
    model: str
    figures: JudgeFigures
    fingerprint: str = ""
    method_hash: str = ""
    calibration_hash: str = ""

    @property
    def title(self) -> str:
        """`judge: model`."""
        return f"{self.name}: {self.model}"

    @property
    def num_unlabeled(self) -> int:
        """Rows without a label."""
        accuracy = self.figures.accuracy
        return self.figures.rows.expected - (accuracy.n if accuracy else 0)


@dataclass(frozen=True)
class EvaluationMetrics:
    """An evaluation and its figures."""

    name: str
    recipe: str
    constitution: str
    seed: int
    limit: int | None
    sources: Sequence[SourceRecord]
    num_rows: int
    """Labeled pairs."""
    num_prompts: int
    num_principles: int
    """Labels of a comparison by each judge."""
    baselines: Baselines
    judges: Sequence[JudgeMetrics]
    """The pool last, where there is one."""
    calibration: Fitted | None
    scale: float | None = None
    """Of a labeler with scores: the scale that the calibration corrects, corrected."""

    def as_json(self) -> dict[str, Any]:
        """metrics.json."""
        values = dict(vars(self))
        scale, fitted = values.pop("scale"), self.calibration
        calibration = fitted and fitted.as_dict() | ({} if scale is None else {"scale": scale})
        return values | {
            "sources": [source_facts(record) for record in self.sources],
            "baselines": asdict(self.baselines),
            "judges": [_flat(judge) for judge in self.judges],
            "calibration": calibration,
        }


def source_facts(record: SourceRecord) -> dict[str, Any]:
    """What was read and what was left out of one source."""
    facts = asdict(record)
    del facts["label_accuracy"]
    return facts | {"file": facts.pop("path")}


def _flat(judge: JudgeMetrics) -> dict[str, Any]:
    values = asdict(judge)
    return values | dict(values.pop("figures"))
