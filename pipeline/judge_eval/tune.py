"""Ways of asking a judge, tried on the same labeled pairs: `rlaif judge-tune`.

In:  a recipe and labeled pairs, whose contexts are split into two halves by a seeded hash
Out: what each way reaches and costs, and the settings of the best one

The best way is chosen on one half and measured on the other, since the best of many looks better
than it is. Each way is an evaluation as of `rlaif judge-eval`, in a folder of its own, so that a
stopped comparison continues and a second one asks nothing again.

Does not: combine the ways further, or tell two ways apart whose intervals overlap.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import RunConfig, load_config
from pipeline.config.paths import resolve_path
from pipeline.errors import ConfigError, DataError, TemplateError, UserError
from pipeline.judge_eval.figures import JudgeFigures, judge_figures
from pipeline.judge_eval.fit import in_fit_half
from pipeline.judge_eval.items import Verdict, read_verdicts
from pipeline.judge_eval.request import Request, require_judged
from pipeline.judge_eval.run import Evaluation, prepare_evaluation, run_evaluation
from pipeline.labeling.labelers import labeler_of
from pipeline.report.numbers import MISSING, percent, percent_range
from pipeline.run.context import open_context
from pipeline.run.plan import judge_folders, label_folder
from pipeline.stages.runner import Progress
from pipeline.stats import Estimate
from pipeline.store.shards import stage_manifests, stage_rows

MIN_PAIRS = 10
"""Least number of pairs in each half."""
PREFIX: dict[str, Any] = {"reply_prefix": "Response ("}
SHOTS: dict[str, Any] = {"exemplars": "prompts/exemplars/general.yaml", "num_exemplars": 2}
REASONS: dict[str, Any] = {"chain_of_thought": {"max_tokens": 128}}
DIGITS: dict[str, Any] = {"options": ["1", "2"]}


@dataclass(frozen=True)
class Way:
    """One way of asking: what it changes in a recipe."""

    judge: Mapping[str, Any]
    """Settings below `preference.judge`."""
    template: str | None = None
    """Another `templates.judge`."""

    @property
    def changes(self) -> dict[str, Any]:
        """The changed sections of the recipe."""
        templates = {"templates": {"judge": self.template}} if self.template else {}
        return {**templates, **({"preference": {"judge": self.judge}} if self.judge else {})}


WAYS = {
    "as in the recipe": Way({}),
    "prefix": Way(PREFIX),
    "published template": Way({"reply_prefix": " ("}, "prompts/judge_cai.jinja"),
    "digits, prefix": Way({**DIGITS, **PREFIX}, "prompts/judge_digits.jinja"),
    "2 exemplars": Way(SHOTS),
    "2 exemplars, prefix": Way({**SHOTS, **PREFIX}),
    "chain of thought": Way(REASONS),
    "chain of thought, prefix": Way({**REASONS, **PREFIX}),
}
"""The cheaper ones first; of two that are right equally often, the first is taken."""


@dataclass(frozen=True)
class Tried:
    """One way with what it reached and cost."""

    name: str
    way: Way
    chosen_on: JudgeFigures
    """On the half by which the way is chosen."""
    measured_on: JudgeFigures
    """On the other half."""
    calls: float
    """Model calls a pair."""
    tokens: float
    """Prompt and generated tokens a pair."""

    @property
    def reached(self) -> float:
        """Right labels of all rows, on the half by which the way is chosen; unread ones are
        wrong.
        """
        return self.chosen_on.accuracy_all.share if self.chosen_on.accuracy_all else 0.0

    @property
    def beats_chance(self) -> bool:
        """Whether the other half's interval lies above one half."""
        accuracy = self.measured_on.accuracy_all
        return accuracy is not None and accuracy.low > 0.5


def best_of(tried: Sequence[Tried]) -> Tried:
    """The way that is right most often on the half that chooses; the first of several."""
    return max(tried, key=lambda each: each.reached)


async def try_ways(
    request: Request, progress: Progress | None, say: Callable[[str], None]
) -> list[Tried]:
    """Ask every way about the same pairs; a way that does not fit the recipe is left out.

    Raises:
        ConfigError: the recipe's own judge cannot be tuned.
        DataError: the pairs are too few.
    """
    config = load_config(resolve_path(request.recipe))
    check_recipe(request, config)
    tried = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, way) in enumerate(WAYS.items()):
            path = Path(folder) / f"{number}.yaml"
            path.write_text(changed_recipe(config, way), encoding="utf-8")
            try:
                evaluation = prepare_evaluation(replace(request, recipe=path))
            except UserError as error:
                # A person knows the recipe of which this is a changed copy.
                copy = rf"{re.escape(str(path))}(, line \d+)?"
                problem = re.sub(copy, lambda _: str(request.recipe), str(error))
                if not number or not isinstance(error, ConfigError | TemplateError):
                    raise type(error)(problem) from error
                say(f"{name}: left out ({problem})")
                continue
            if not number:
                check_size(evaluation)
            say(f"{name}: {evaluation.run.run_id}")
            await run_evaluation(evaluation, progress)
            tried.append(measure(name, way, evaluation))
    return tried


def check_recipe(request: Request, config: RunConfig) -> None:
    """Raises ConfigError when no way of asking can change the labels, or some belong to one way."""
    path = request.recipe
    if not labeler_of(config.preference).has_orders:
        raise ConfigError(
            f"preference.labeler of {path} is '{config.preference.labeler}', which has one way of "
            "asking; name a recipe with labeler 'judge', or use `rlaif judge-eval`"
        )
    if request.checked is None:
        require_judged(path, config)
    if config.preference.judge.calibration or config.preference.pair.known_labels:
        raise ConfigError(
            f"{path} has a calibration or known labels, which belong to one way of asking; remove "
            "`judge.calibration`, `pair.max_error` and `pair.known_labels`"
        )


def check_size(evaluation: Evaluation) -> None:
    """Raises DataError when a half has too few pairs; called before any label is paid for."""
    chooses = [in_fit_half(item.row.prompt_id, evaluation.seed) for item in evaluation.items]
    halves = (sum(chooses), len(chooses) - sum(chooses))
    if min(halves) < MIN_PAIRS:
        shutil.rmtree(evaluation.run.root)
        raise DataError(
            f"judge-tune needs {MIN_PAIRS} pairs in each half, and the halves have {halves[0]} and "
            f"{halves[1]}; give more labeled pairs"
        )


def changed_recipe(config: RunConfig, way: Way) -> str:
    """The recipe with one way of asking, as YAML; exemplars of its own are kept."""
    changes = way.changes
    if (own := config.preference.judge.exemplars) and "exemplars" in way.judge:
        changes["preference"]["judge"] = {**way.judge, "exemplars": str(own)}
    values = config.model_dump(mode="json", exclude_unset=True)
    return yaml.safe_dump(merged(values, changes), sort_keys=False)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values with some replaced, section by section."""
    result = dict(values)
    for key, value in changes.items():
        before = result.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        result[key] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result


def measure(name: str, way: Way, evaluation: Evaluation) -> Tried:
    """The figures of a finished evaluation on both halves, and its costs."""
    ctx = open_context(evaluation.run)
    root, seed = evaluation.run.root, evaluation.seed
    verdicts = read_verdicts(evaluation.items, stage_rows(root, label_folder(ctx)))

    def figures(chooses: bool) -> JudgeFigures:
        half: list[Verdict] = [v for v in verdicts if in_fit_half(v.prompt_id, seed) == chooses]
        return judge_figures(half, draws=ctx.config.evaluation.bootstrap_draws, seed=seed)

    judge = ctx.config.preference.judge
    calls = (2 + 2 * bool(judge.chain_of_thought)) * judge.num_principles
    counts = [m.counts for f in judge_folders(ctx) for m in stage_manifests(root, f)]
    return Tried(
        name,
        way,
        figures(True),
        figures(False),
        calls=float(calls * len(judge_folders(ctx))),
        tokens=sum(c.prompt_tokens + c.generated_tokens for c in counts)
        / max(1, len(evaluation.items)),
    )


def tune_rows(tried: Sequence[Tried]) -> list[tuple[str, ...]]:
    """The table for people: its head, then a row for each way."""
    head = (
        "way of asking",
        "right (chooses)",
        "right (measures)",
        "95 % interval",
        "unparsed",
        "orders disagree",
        "calls",
        "tokens",
    )
    return [head, *(_row(each) for each in tried)]


def _row(tried: Tried) -> tuple[str, ...]:
    measured = tried.measured_on
    return (
        tried.name,
        _percent(tried.chosen_on.accuracy_all),
        _percent(measured.accuracy_all),
        spelled_interval(measured.accuracy_all),
        percent(measured.rows.unparsed_share),
        _percent(measured.position.order_disagreement),
        f"{tried.calls:g}",
        f"{tried.tokens:,.0f}",
    )


def _percent(estimate: Estimate | None) -> str:
    return percent(estimate.share) if estimate else MISSING


def spelled_interval(estimate: Estimate | None) -> str:
    """`42 to 68 %, n 30`, or a dash."""
    if estimate is None:
        return MISSING
    return f"{percent_range(estimate.low, estimate.high)}, n {estimate.n}"


def verdict(best: Tried) -> list[str]:
    """What to put into the recipe, and whether that is worth anything."""
    lines = [
        f"Right most often on the half that chooses: {best.name}. Each unread verdict counts as "
        "wrong; calls and tokens are those of a pair."
    ]
    if best.way.changes:
        changes = yaml.safe_dump(best.way.changes, sort_keys=False, default_flow_style=None)
        lines.append(f"In the recipe:\n{changes.rstrip()}")
    if not best.beats_chance:
        lines.append(
            "On the other half it is not told from chance, so none of these ways of asking makes "
            "this judge fit: let programs decide what they can (`check:` of a principle), or name "
            "a stronger judge."
        )
    return lines
