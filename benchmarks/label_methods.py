"""Every labeling method on the same comparisons, against the known truth of the pocket world.

    python -m benchmarks.label_methods [--quick] [--seeds N]

Two samples of the initial policy for each held-out prompt; each method labels the same pairs, under
the principles that the same draws give. A second judge, the pocket model with noise on its weights,
stands for a weak judge: alone, and in a panel of two. The last line is one JSON object: for each
method the mean over seeds, the smallest and the largest.

    accuracy         labels that agree with the oracle under the label's own principle (score and
                     follow-ups: under what they measure), where it is clear; 0.5 counts as half
    accuracy_overall the same where all attributes of the constitution that differ agree
    single_order     accuracy of the two orders on their own, mean of both
    brier            mean squared distance of the label from the truth
    order_disagreement
                     comparisons in which the two orders prefer different responses
    equal_deviation  mean |label - 0.5| of equally good responses
    tokens           prompt and generated tokens per label; `cached` of them from the prefix cache

Does not: say which method is best on another model. A small model knows what it was trained on.
"""

import argparse
import asyncio
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from benchmarks.demo_truth import spread
from benchmarks.engine_efficiency import Recorder
from models.pocket.oracle import Oracle
from pipeline.config.engines import VllmConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.engines.base import Engine
from pipeline.engines.fingerprint import file_hash
from pipeline.engines.vllm.engine import Backend, open_vllm
from pipeline.evaluation.oracle import clear_preference, oracle_messages
from pipeline.run.context import RunContext, open_context
from pipeline.run.passes import prompt_shards
from pipeline.run.plan import judge_folders, label_folder, label_stages, sample_stages
from pipeline.run.start import start_run
from pipeline.soft_labels import orders_agree, outcome
from pipeline.store import load_manifest, read_rows, require_manifest

MODEL = PROJECT_ROOT / "models" / "pocket" / "labeler"
NUM_PROMPTS, QUICK_PROMPTS, SEEDS = 160, 24, 3
NOISE = 0.6
"""Standard deviation of the weak judge's noise, over that of each weight matrix."""
THOUGHT: dict[str, Any] = {"max_tokens": 96}
SHOTS = {"exemplars": "prompts/exemplars/pocket.yaml"}
RATINGS = [f"{number}." for number in range(1, 11)]
"""How the pocket model was taught to write ratings."""
ALL = "all attributes"


@dataclass(frozen=True)
class Method:
    """One way of labeling."""

    name: str
    preference: dict[str, Any] = field(default_factory=dict)
    judges: tuple[str, ...] = ("pocket",)
    """`pocket`, `weak` or both."""
    measures: str = ""
    """Empty: the label's own principle; else all attributes of the constitution."""


METHODS = (
    Method("plain"),
    Method("plain, weak judge", judges=("weak",)),
    Method("1-shot", {"judge": {**SHOTS, "num_exemplars": 1}}),
    Method("2-shot", {"judge": {**SHOTS, "num_exemplars": 2}}),
    Method("chain of thought", {"judge": {"chain_of_thought": THOUGHT}}),
    Method(
        "chain of thought, no clamp", {"judge": {"chain_of_thought": {**THOUGHT, "clamp": None}}}
    ),
    Method("3 principles", {"judge": {"num_principles": 3}}, measures=ALL),
    Method("panel of two", judges=("pocket", "weak")),
    Method("direct score", {"labeler": "score", "score": {"options": RATINGS}}),
    Method(
        "attribute vector",
        {"labeler": "score", "score": {"options": RATINGS, "principles": "all"}},
        measures=ALL,
    ),
    Method(
        "follow-ups",
        {"labeler": "follow_up", "follow_up": {"follow_ups": "prompts/follow_ups/pocket.yaml"}},
        measures=ALL,
    ),
)


def recipe(method: Method, seed: int, num_prompts: int, weak: Path) -> dict[str, Any]:
    """A run that samples the initial policy and labels."""
    engine = {"type": "vllm", "model": str(MODEL), "device": "cpu"}
    models = {"pocket": engine, "weak": {**engine, "model": str(weak)}}
    judges = [models[name] for name in method.judges]
    return {
        "name": "methods",
        "seed": seed,
        "constitution": "constitutions/balanced.yaml",
        "prompts": {"train": ["prompts/sets/pocket_heldout.jsonl"], "limit": num_prompts},
        "policy": engine,
        "judge": judges[0],
        "panel": judges[1:],
        "supervised": {"enabled": False},
        "evaluation": {"enabled": False},
        "preference": {"sample": {"num_samples": 2, "max_tokens": 128}, **method.preference},
        "execution": {"shard_size": 40, "shards_in_flight": 4},
    }


def damage(source: Path, target: Path, noise_level: float = NOISE) -> None:
    """A copy of a model folder with seeded noise on its weight matrices."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    generator = torch.Generator().manual_seed(0)
    weights = load_file(target / "model.safetensors")
    for name, tensor in sorted(weights.items()):
        if tensor.ndim == 2:
            noise = (
                torch.randn(tensor.shape, generator=generator) * tensor.float().std() * noise_level
            )
            weights[name] = (tensor.float() + noise).to(tensor.dtype)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


@dataclass
class Job:
    """One method on the samples of one seed."""

    method: Method
    seed: int
    ctx: RunContext
    shards: Sequence[int] = ()
    prompt_tokens: int = 0
    """All prompt tokens that the labels needed, as vLLM received them."""
    cached_tokens: int = 0


async def label_all(jobs: Sequence[Job], models: Mapping[str, Path]) -> None:
    """Sample once per seed, then every method; each model is opened once."""
    samples: dict[int, Job] = {}
    for name, folder in models.items():
        async with AsyncExitStack() as stack:
            recorders: list[Recorder] = []

            def record(backend: Backend, recorders: list[Recorder] = recorders) -> Backend:
                recorders.append(Recorder(backend))
                return recorders[0]

            config = VllmConfig(type="vllm", model=str(folder), device="cpu")
            engine = await open_vllm(config, record)
            stack.push_async_callback(engine.close)
            for job in jobs:
                if name == "pocket":
                    await _sample(job, engine, samples)
                if name in job.method.judges:
                    number = job.method.judges.index(name)
                    stages = label_stages(job.ctx, engine, number)
                    first = len(recorders[0].requests)
                    await job.ctx.runner.wavefront(job.shards, stages)
                    requests = recorders[0].requests[first:]
                    job.prompt_tokens += sum(len(request.token_ids) for request in requests)
                    job.cached_tokens += sum(request.cached for request in requests)
                    print(f"{job.method.name}, seed {job.seed}, {name}", flush=True)


async def _sample(job: Job, engine: Engine, samples: dict[int, Job]) -> None:
    first = samples.setdefault(job.seed, job)
    if first is not job:
        for folder in ("prompts", "preference/sample"):
            shutil.copytree(first.ctx.run.root / folder, job.ctx.run.root / folder)
    job.shards = prompt_shards(job.ctx)
    await job.ctx.runner.wavefront(job.shards, sample_stages(job.ctx, engine))


def figures(job: Job) -> dict[str, float | None]:
    """The figures of one method and seed."""
    ctx, oracle = job.ctx, Oracle()
    tags = {p.id: p.tags for p in ctx.constitution.principles}
    everything = sorted({tag for found in tags.values() for tag in found})
    seen: dict[str, list[float]] = {
        name: []
        for name in (
            "accuracy",
            "accuracy_overall",
            "single_order",
            "brier",
            "order_disagreement",
            "equal_deviation",
        )
    }
    unread = num_labels = 0
    for index in job.shards:
        named = ("prompts", "preference/sample", label_folder(ctx))
        prompt_rows, samples, labels = (
            read_rows(ctx.run.root, require_manifest(ctx.run.root, folder, index))
            for folder in named
        )
        prompts = {row.row_id: row for row in prompt_rows}
        texts = {row.row_id: row.response for row in samples}
        num_labels += sum(row.status == "ok" for row in labels)
        for row in labels:
            if row.prob_first is None:
                unread += row.status != "dropped"
                continue
            messages = oracle_messages(prompts[row.prompt_id].messages)
            first, second = (oracle.read(messages, texts[i]) for i in (row.first_id, row.second_id))
            if first is None or second is None:
                continue
            own = [tag for name in row.principle_id.split("+") for tag in tags.get(name, ())]
            names = everything if job.method.measures else own
            _add(
                seen,
                row,
                clear_preference(first, second, names),
                equal=all(first.levels[n] == second.levels[n] for n in names),
            )
            overall = clear_preference(first, second, everything)
            if overall:
                seen["accuracy_overall"].append(_right(row.prob_first, overall))
    return {
        **{name: fmean(values) if values else None for name, values in seen.items()},
        "clear": float(len(seen["accuracy"])),
        "unread": float(unread),
        **_costs(job, num_labels),
    }


def _add(seen: dict[str, list[float]], row: Any, sign: int, *, equal: bool) -> None:
    if equal:
        seen["equal_deviation"].append(abs(row.prob_first - 0.5))
    orders = None
    if row.prob_forward is not None and row.prob_swapped is not None:
        orders = (row.prob_forward, 1.0 - row.prob_swapped)
        seen["order_disagreement"].append(
            float(not orders_agree(row.prob_forward, row.prob_swapped))
        )
    if not sign:
        return
    seen["accuracy"].append(_right(row.prob_first, sign))
    seen["brier"].append((row.prob_first - (sign > 0)) ** 2)
    if orders:
        seen["single_order"].append(fmean(_right(value, sign) for value in orders))


def _right(label: float, sign: int) -> float:
    return outcome(label) if sign > 0 else 1.0 - outcome(label)


def _costs(job: Job, labels: int) -> dict[str, float | None]:
    manifests = (
        load_manifest(job.ctx.run.root, folder, index)
        for index in job.shards
        for folder in judge_folders(job.ctx)
    )
    # What the judge wrote; a score is one token that is never read.
    generated = sum(m.counts.generated_tokens for m in manifests if m)
    if not labels:
        return {"tokens": None, "generated": None, "cached": None}
    return {
        "tokens": (job.prompt_tokens + generated) / labels,
        "generated": generated / labels,
        "cached": job.cached_tokens / max(1, job.prompt_tokens),
    }


COLUMNS = (
    "accuracy",
    "accuracy_overall",
    "single_order",
    "brier",
    "order_disagreement",
    "equal_deviation",
)
COSTS = ("tokens", "generated", "cached", "unread")


def print_table(found: Mapping[str, Sequence[Mapping[str, float | None]]]) -> None:
    """One line per method: means over seeds."""
    print(f"{'':<28}" + "".join(f"{name:>19}" for name in (*COLUMNS, *COSTS)))
    for method, runs in found.items():
        cells = []
        for name in (*COLUMNS, *COSTS):
            entry = spread([run[name] for run in runs])
            digits = 1 if name in ("tokens", "generated", "unread") else 3
            cells.append(f"{entry['mean']:>19.{digits}f}" if entry else f"{'-':>19}")
        print(f"{method:<28}" + "".join(cells))


def main() -> None:
    """Label, compare, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="24 prompts, one seed")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", nargs="*", help="names of methods")
    arguments = parser.parse_args()
    seeds = range(1 if arguments.quick else arguments.seeds)
    num_prompts = QUICK_PROMPTS if arguments.quick else NUM_PROMPTS
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        damage(MODEL, folder / "weak")
        jobs: list[Job] = []
        for method in METHODS:
            if arguments.only and method.name not in arguments.only:
                continue
            for seed in seeds:
                place = folder / f"{len(jobs)}"
                place.mkdir()
                path = place / "recipe.yaml"
                path.write_text(yaml.safe_dump(recipe(method, seed, num_prompts, folder / "weak")))
                run = start_run(path, run_id="run", runs_root_folder=place / "runs")
                jobs.append(Job(method, seed, open_context(run)))
        asyncio.run(label_all(jobs, {"pocket": MODEL, "weak": folder / "weak"}))
        found: dict[str, list[dict[str, float | None]]] = {}
        for job in jobs:
            found.setdefault(job.method.name, []).append(figures(job))
    print_table(found)
    keys = (*COLUMNS, *COSTS)
    print(
        json.dumps(
            {
                "weights": file_hash(MODEL / "model.safetensors")[:12],
                "prompts": num_prompts,
                "seeds": len(seeds),
                "methods": {
                    method: {key: spread([run[key] for run in runs]) for key in keys}
                    for method, runs in found.items()
                },
            }
        )
    )


if __name__ == "__main__":
    main()
