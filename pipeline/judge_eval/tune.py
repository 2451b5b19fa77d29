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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.config.overrides import override
from pipeline.config.paths import resolve_path
from pipeline.config.recipe import read_recipe
from pipeline.errors import ConfigError, DataError, TemplateError, UserError
from pipeline.judge_eval.figures import JudgeFigures, judge_figures
from pipeline.judge_eval.fit import in_fit_half
from pipeline.judge_eval.items import Verdict, read_verdicts
from pipeline.judge_eval.request import Request, require_judged
from pipeline.judge_eval.run import Evaluation, prepare_evaluation, run_evaluation
from pipeline.labeling.labelers import labeler_of
from pipeline.report.numbers import MISSING, interval_of, percent, share_of
from pipeline.run.context import open_context
from pipeline.run.plan import judge_folders, label_folder
from pipeline.stages.runner import Progress
from pipeline.stats import Estimate
from pipeline.store.shards import stage_manifests, stage_rows

MIN_PAIRS = 10
"""Least number of pairs in each half."""
_JUDGE = "preference.judge."
PREFIX = (f"{_JUDGE}reply_prefix='Response ('",)
EXEMPLARS = f"{_JUDGE}exemplars="
SHOTS = (f"{EXEMPLARS}prompts/exemplars/general.yaml", f"{_JUDGE}num_exemplars=2")
REASONS = (f"{_JUDGE}chain_of_thought={{max_tokens: 128}}",)
CAI = (f"{_JUDGE}reply_prefix=' ('", "templates.judge=prompts/judge_cai.jinja")
DIGITS = (f"{_JUDGE}options=['1', '2']", "templates.judge=prompts/judge_digits.jinja")
WAYS: dict[str, tuple[str, ...]] = {
    "as in the recipe": (),
    "prefix": PREFIX,
    "published template": CAI,
    "digits, prefix": (*DIGITS, *PREFIX),
    "2 exemplars": SHOTS,
    "2 exemplars, prefix": (*SHOTS, *PREFIX),
    "chain of thought": REASONS,
    "chain of thought, prefix": (*REASONS, *PREFIX),
}
"""What each way changes in a recipe, as `--set` takes it. The cheaper ones first; of two that are
right equally often, the first is taken."""


@dataclass(frozen=True)
class Tried:
    """One way with what it reached and cost."""

    name: str
    changes: Sequence[str]
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
    config, recipe = read_recipe(resolve_path(request.recipe))
    check_recipe(request, config)
    tried = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, way) in enumerate(WAYS.items()):
            path, changes = Path(folder) / f"{number}.yaml", changes_of(way, config)
            path.write_text(override(recipe, changes, "the recipe"), encoding="utf-8")
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
            tried.append(measure(name, changes, evaluation))
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
        if evaluation.is_new:
            shutil.rmtree(evaluation.run.root)
        raise DataError(
            f"judge-tune needs {MIN_PAIRS} pairs in each half, and the halves have {halves[0]} and "
            f"{halves[1]}; give more labeled pairs"
        )


def changes_of(way: Sequence[str], config: RunConfig) -> list[str]:
    """What a way changes in a recipe; exemplars of its own are kept."""
    own = config.preference.judge.exemplars
    return [each for each in way if not (own and each.startswith(EXEMPLARS))]


def measure(name: str, changes: Sequence[str], evaluation: Evaluation) -> Tried:
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
        changes,
        figures(True),
        figures(False),
        calls=float(calls * len(judge_folders(ctx))),
        tokens=sum(c.prompt_tokens + c.generated_tokens for c in counts)
        / max(1, len(evaluation.items)),
    )


def tune_rows(tried: Sequence[Tried]) -> list[tuple[str, ...]]:
    """The table for people: its head, then a row for each way."""
    rows = [
        {
            "way of asking": each.name,
            "right (chooses)": share_of(each.chosen_on.accuracy_all),
            "right (measures)": share_of(measured.accuracy_all),
            "95 % interval": _interval(measured.accuracy_all),
            "unparsed": percent(measured.rows.unparsed_share),
            "orders disagree": share_of(measured.position.order_disagreement),
            "calls": f"{each.calls:g}",
            "tokens": f"{each.tokens:,.0f}",
        }
        for each in tried
        for measured in [each.measured_on]
    ]
    return [tuple(rows[0]), *(tuple(row.values()) for row in rows)]


def _interval(estimate: Estimate | None) -> str:
    return f"{interval_of(estimate)}, n {estimate.n}" if estimate else MISSING


def verdict(best: Tried) -> list[str]:
    """What to put into the recipe, and whether that is worth anything."""
    lines = [
        f"Right most often on the half that chooses: {best.name}. Each unread verdict counts as "
        "wrong; calls and tokens are those of a pair."
    ]
    if best.changes:
        lines.append("\n  ".join(["In the recipe, or with --set:", *best.changes]))
    if not best.beats_chance:
        lines.append(
            "On the other half it is not told from chance, so none of these ways of asking makes "
            "this judge fit: let programs decide what they can (`check:` of a principle), or name "
            "a stronger judge."
        )
    return lines
