"""Put labeled pairs to a recipe's judge, and measure its answers.

In:  a recipe, label sources
Out: outputs/judge-eval/<name>/ with the rows, metrics.json, report.html and report.md; a
     calibration file if one is asked for

The folder is that of a run: copies of recipe, constitution and templates, shards with manifests.
Repeating the command continues an evaluation that was stopped, and pays for nothing twice.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config import load_config
from pipeline.config.paths import resolve_path
from pipeline.constitution import Principle, load_constitution
from pipeline.data.prompts import write_prompt_shards
from pipeline.engines.base import Engine
from pipeline.errors import RunStoppedError, StoreError, UserError
from pipeline.ids import content_hash
from pipeline.judge_eval.checked import checked_comparisons
from pipeline.judge_eval.figures import baselines, judge_figures
from pipeline.judge_eval.fit import Fitted, check_halves, fit_and_measure
from pipeline.judge_eval.items import (
    FIRSTS,
    SECONDS,
    Item,
    Verdict,
    known_labels,
    make_items,
    prompt_rows,
    read_verdicts,
    response_rows,
    usable_rows,
    without_undecided,
)
from pipeline.judge_eval.metrics import EvaluationMetrics, JudgeMetrics, source_facts
from pipeline.judge_eval.report.page import write_judge_report
from pipeline.judge_eval.request import Request, check_request, identity_of, require_judged
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.from_scores import CompareScoresStage
from pipeline.labeling.judge_stage import JudgeStage
from pipeline.labeling.known_labels import KnownLabels
from pipeline.labeling.labelers import labeler_of
from pipeline.labeling.pool import PoolStage
from pipeline.labeling.score import ScoreStage
from pipeline.records import ResponseRow
from pipeline.run.context import RunContext, open_context
from pipeline.run.passes import run_pass
from pipeline.run.plan import conflicts, judge_folders, label_folder
from pipeline.run.start import ask_endpoints, check_recipe, runs_root, start_run, work_in
from pipeline.sources.importing import import_source
from pipeline.sources.rows import Imported
from pipeline.stages.base import Stage
from pipeline.stages.runner import Progress
from pipeline.store import RunDir, ShardCounts, read_rows, require_manifest, write_json, write_shard
from pipeline.store.files import write_text
from pipeline.store.shards import iter_manifests
from pipeline.store.stage_names import POOLED


@dataclass(frozen=True)
class AskedJudge:
    """One judge, or the pool of all labels, with what it said."""

    name: str
    """`judge`, `judge 2`, ..., or `pooled`."""
    model: str
    verdicts: Sequence[Verdict]
    fingerprint: str = ""
    method_hash: str = ""
    calibration_hash: str = ""
    identity_hash: str = ""
    scale: float | None = None
    """Of a labeler with scores: the difference that means a log-odds of 1 nat."""

    def metrics(self, *, draws: int, seed: int) -> JudgeMetrics:
        """Who it is, and its figures."""
        return JudgeMetrics(
            name=self.name,
            model=self.model,
            figures=judge_figures(self.verdicts, draws=draws, seed=seed),
            fingerprint=self.fingerprint,
            method_hash=self.method_hash,
            calibration_hash=self.calibration_hash,
        )


@dataclass(frozen=True)
class Evaluation:
    """A folder that is ready, with the pairs that it is about."""

    request: Request
    run: RunDir
    items: Sequence[Item]
    sources: Sequence[Imported]
    seed: int
    is_new: bool
    principles: Mapping[str, tuple[Principle, ...]] = field(default_factory=dict)
    """By row id of a pair: the principles to ask under; for others they are drawn."""


def prepare_evaluation(request: Request) -> Evaluation:
    """Check everything that a person could have got wrong, then make or find the folder.

    Raises:
        UserError: the first thing to correct; nothing is written then.
    """
    config = load_config(request.recipe)
    seed = config.seed if request.seed is None else request.seed
    check_request(request, config)
    known = checked_comparisons(request.checked) if request.checked else None
    imports = (
        [known.imported]
        if known
        else [import_source(source, seed=seed) for source in request.sources]
    )
    identity = identity_of(request, config, imports, seed)
    under: dict[str, tuple[Principle, ...]] = {}
    if known is not None:
        under = {name: (principle,) for name, principle in known.principles.items()}
    elif labeler_of(config.preference).principles(config.preference) != "none":
        require_judged(request.recipe, config)
        constitution = load_constitution(resolve_path(config.constitution))
        imports, under = without_undecided(imports, constitution)
    items = make_items(usable_rows(imports), seed=seed, limit=request.limit)
    if request.calibrate is not None:
        check_halves([item.row.prompt_id for item in items], seed)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", imports[0].record.name)
    name = request.name or f"{config.name}-{stem}-{identity[:8]}"
    root = runs_root().parent / "judge-eval"
    is_new = not (root / name).exists()
    if is_new:
        checked = check_recipe(request.recipe, offline=True)
        ask_endpoints(checked.config, judges_only=True)
        run = start_run(checked, run_id=name, runs_root_folder=root)
    else:
        run = RunDir(root / name)
    if run.require().info().get("evaluation", identity) != identity:
        raise StoreError(
            f"evaluation '{name}' was made with another recipe, label file, limit or seed; choose "
            "another --name, or leave it out"
        )
    run.update_info(evaluation=identity, sources=[source_facts(each.record) for each in imports])
    return Evaluation(request, run, items, imports, seed, is_new, under)


async def run_evaluation(
    evaluation: Evaluation, progress: Progress | None = None
) -> EvaluationMetrics:
    """Ask, measure, write the report and the calibration; returns the metrics.

    Raises:
        UserError: the judge cannot be used like this; a folder without any answer is removed.
        RunStoppedError: too many calls failed; the answers are kept.
    """
    run = evaluation.run
    with work_in(run):
        try:
            return await _evaluate(evaluation, progress)
        except RunStoppedError as error:
            again = str(error).replace("then `rlaif resume`", "then give the same command again")
            raise RunStoppedError(again) from None
        except UserError:
            if evaluation.is_new and not list((run.root / "preference").rglob("shard-*.json")):
                shutil.rmtree(run.root, ignore_errors=True)
            raise


async def _evaluate(evaluation: Evaluation, progress: Progress | None) -> EvaluationMetrics:
    ctx = open_context(evaluation.run, progress)
    ctx = replace(ctx, config=ctx.config.model_copy(update={"seed": evaluation.seed}))
    draws, seed = ctx.config.evaluation.bootstrap_draws, evaluation.seed
    preference = ctx.config.preference
    judges = await _ask(ctx, _labeled_shards(ctx, evaluation), evaluation)
    fitted, refusal = _fit(evaluation, judges[0], draws)
    scale, temperature = judges[0].scale, fitted.calibration.temperature if fitted else None
    metrics = EvaluationMetrics(
        name=evaluation.run.run_id,
        recipe=ctx.config.name,
        constitution=ctx.constitution.name,
        seed=seed,
        limit=evaluation.request.limit,
        sources=[source.record for source in evaluation.sources],
        num_rows=len(evaluation.items),
        num_prompts=len({item.row.prompt_id for item in evaluation.items}),
        num_principles=labeler_of(preference).labels_per_comparison(preference),
        baselines=baselines(judges[-1].verdicts),
        judges=[judge.metrics(draws=draws, seed=seed) for judge in judges],
        calibration=fitted,
        # There a temperature is a factor of the scale.
        scale=scale * temperature if scale is not None and temperature is not None else None,
    )
    write_json(evaluation.run.root / "metrics.json", metrics.as_json())
    write_judge_report(evaluation.run.root, metrics)
    evaluation.run.end("finished")
    if path := evaluation.request.known_labels:
        known = KnownLabels(
            judges=tuple(judge.identity_hash for judge in judges if judge.identity_hash),
            measured_on=_files(evaluation),
            labels=known_labels(judges[-1].verdicts),
        )
        write_text(path, known.model_dump_json(indent=1) + "\n")
    if refusal is not None:
        raise refusal
    if fitted is not None and evaluation.request.calibrate is not None:
        write_text(
            evaluation.request.calibrate, fitted.calibration.model_dump_json(indent=2) + "\n"
        )
    return metrics


def _fit(
    evaluation: Evaluation, judge: AskedJudge, draws: int
) -> tuple[Fitted | None, UserError | None]:
    """The calibration, or why there is none, which is raised after the report is written."""
    if evaluation.request.calibrate is None:
        return None, None
    try:
        return fit_and_measure(
            judge.verdicts,
            evaluation.request.kind,
            draws=draws,
            seed=evaluation.seed,
            judge_fingerprint=judge.fingerprint,
            method_hash=judge.method_hash,
            fitted_on=_files(evaluation),
        ), None
    except UserError as error:
        return None, error


def _files(evaluation: Evaluation) -> str:
    return "; ".join(f"{s.record.path} sha256 {s.record.sha256}" for s in evaluation.sources)


async def _ask(ctx: RunContext, shards: Sequence[int], evaluation: Evaluation) -> list[AskedJudge]:
    """The judges, and the pool where there are several labels of a pair."""
    items, principles = evaluation.items, evaluation.principles
    under = {
        side: principles[item.row.row_id]
        for item in items
        if item.row.row_id in principles
        for side in item.key
    }
    judges: list[AskedJudge] = []
    folders = judge_folders(ctx)
    for number, (folder, config) in enumerate(zip(folders, ctx.label_engines(), strict=True)):
        opened: list[Stage] = []
        plan = partial(_label_stages, number=number, opened=opened, under=under)
        await run_pass(ctx, config, shards, [plan])
        engine = require_manifest(ctx.run.root, opened[0].folder, shards[0]).engine
        judges.append(
            AskedJudge(
                name="judge" if number == 0 else f"judge {number + 1}",
                model=Path(engine["name"]).name,
                verdicts=_verdicts(ctx, shards, folder, items),
                fingerprint=engine["fingerprint"],
                **_method(opened[-1]),
            )
        )
    has_orders = labeler_of(ctx.config.preference).has_orders
    if label_folder(ctx) == POOLED or (has_orders and any(len(p) > 1 for p in under.values())):
        pool = PoolStage(folders, ctx.run.run_id, conflicts=conflicts(ctx))
        await ctx.runner.wavefront(shards, [pool])
        models = " + ".join(dict.fromkeys(judge.model for judge in judges))
        judges.append(AskedJudge("pooled", models, _verdicts(ctx, shards, POOLED, items)))
    return judges


def _label_stages(
    ctx: RunContext,
    engine: Engine,
    number: int,
    opened: list[Stage],
    under: Mapping[str, tuple[Principle, ...]],
) -> list[Stage]:
    """The stages of the recipe's labeler; the last one makes the labels."""
    # Known labels hold for the labels of a run, not for those that are measured here.
    files = replace(ctx.labeling.files, known_labels=None)
    compared = Compared("evaluation", samples=FIRSTS, initials=SECONDS)
    labeler = labeler_of(ctx.config.preference)
    stages = labeler.stages(replace(ctx.labeling, files=files), engine, compared, number)
    opened += [
        replace(stage, judged_only=True, under=under)
        if isinstance(stage, JudgeStage | ScoreStage)
        else stage
        for stage in stages
    ]
    return opened


def _method(stage: Stage) -> dict[str, Any]:
    """Who labels, and how, as an `AskedJudge` takes it."""
    if isinstance(stage, CompareScoresStage):
        identity = stage.identity_hash
        return {"method_hash": identity, "identity_hash": identity, "scale": stage.scale}
    assert isinstance(stage, JudgeStage)
    judge = stage.judge
    return {
        "method_hash": judge.method_hash,
        "identity_hash": judge.identity_hash,
        "calibration_hash": judge.calibration.hash if judge.calibration else "",
    }


def _verdicts(
    ctx: RunContext, shards: Sequence[int], folder: str, items: Sequence[Item]
) -> list[Verdict]:
    root = ctx.run.root
    manifests = (require_manifest(root, folder, index) for index in shards)
    return read_verdicts(items, (row for each in manifests for row in read_rows(root, each)))


def _labeled_shards(ctx: RunContext, evaluation: Evaluation) -> Sequence[int]:
    """Prompts and both responses of each pair as shards; equal rows give equal files, so that
    writing them again changes nothing.
    """
    root, run_id, items = ctx.run.root, ctx.run.run_id, evaluation.items
    key = content_hash([evaluation.run.info()["evaluation"], ctx.config.execution.shard_size])
    shards = write_prompt_shards(
        root, "prompts", prompt_rows(items, run_id), ctx.config.execution.shard_size, key
    )
    for manifest in iter_manifests(root, "prompts"):
        ids = [row.row_id for row in read_rows(root, manifest)]
        for folder, rows in zip((FIRSTS, SECONDS), response_rows(items, ids, run_id), strict=True):
            write_shard(
                root,
                folder,
                manifest.shard_index,
                rows,
                ResponseRow,
                key=key,
                counts=ShardCounts(expected=len(rows)),
                inputs={manifest.path: manifest.sha256},
            )
    return shards
