"""The end of a run: policies on held-out prompts, then metrics and the report.

In:  a run whose training is done
Out: evaluation/metrics.json, report.html, report.md; `status: finished` in run.json
"""

from pathlib import Path

from pipeline.evaluation import Metrics, collect_metrics, load_oracle
from pipeline.report import write_report
from pipeline.run.context import RunContext
from pipeline.run.phases import (
    LineCall,
    heldout_shards,
    preference_chain,
    preference_dataset,
    run_pass,
    sl_cai_model,
    supervised_chain,
    supervised_dataset,
    train_preference,
    train_supervised,
    tuned_model,
)
from pipeline.run.plan import evaluation_judge, evaluation_sample
from pipeline.stages.runner import StepCall
from pipeline.store import write_json


def policies(ctx: RunContext) -> dict[str, Path | None]:
    """The policies that exist, first to last, with their folders (None: the recipe's own model)."""
    named = {"initial": None, "sl_cai": sl_cai_model(ctx), "tuned": tuned_model(ctx)}
    return {name: path for name, path in named.items() if name == "initial" or path is not None}


def matches(names: list[str]) -> list[tuple[str, str]]:
    """Which policies meet: each later one against each earlier one."""
    return [(later, earlier) for i, later in enumerate(names) for earlier in names[:i]]


async def evaluate(ctx: RunContext, call: StepCall | None = None) -> Metrics:
    """Sample every policy on the held-out prompts, judge them in pairs, write the metrics."""
    found = policies(ctx)
    if ctx.config.evaluation.enabled and ctx.config.prompts.heldout:
        shards = heldout_shards(ctx)
        for name, path in found.items():
            shards = await run_pass(
                ctx,
                ctx.policy_engine(path),
                shards,
                [lambda c, engine, n=name: [evaluation_sample(c, engine, n)]],
                call,
            )
        pairs = matches(list(found))
        await run_pass(
            ctx,
            ctx.judge_engines()[0],
            shards,
            [lambda c, engine: [evaluation_judge(c, engine, *pair) for pair in pairs]],
            call,
        )
    oracle = ctx.config.evaluation.oracle
    metrics = collect_metrics(ctx.run, ctx.config, load_oracle(oracle) if oracle else None)
    write_json(ctx.run.metrics, metrics.model_dump(mode="json"))
    return metrics


def finish(ctx: RunContext) -> Path:
    """Write the report and mark the run as finished; returns the report's path."""
    report = write_report(ctx.run)
    ctx.run.update_info(status="finished")
    return report


async def run_all(
    ctx: RunContext, call: StepCall | None = None, on_line: LineCall | None = None
) -> Path:
    """All phases in order, without an orchestrator."""
    await supervised_chain(ctx, call)
    supervised_dataset(ctx)
    await train_supervised(ctx, on_line)
    await preference_chain(ctx, call)
    preference_dataset(ctx)
    await train_preference(ctx, on_line)
    await evaluate(ctx, call)
    return finish(ctx)
