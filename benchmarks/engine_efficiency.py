"""What the pipeline costs on top of vLLM, and how much of what could be reused is reused.

    python -m benchmarks.engine_efficiency [--quick] [--model FOLDER]

The chain sample, critique, revise, judge runs over 1,000 prompts of the pocket world with one
engine (policy = judge), Parquet shards and all. The very same final requests are then given to
vLLM alone in one batch. Model loading is excluded on both sides; the two take turns, and the best
of each counts, because other programs can only slow a run down.

    efficiency       generated tokens per second of the chain over those of vLLM alone
    cache_hit_share  cached prompt tokens over those that could be cached: the full blocks of the
                     longest prefix that a request shares with an earlier one of the chain

The engine runs where `device: auto` puts it: CUDA where there is a GPU, else the CPU.
"""

import argparse
import asyncio
import copy
import itertools
import json
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from models.pocket.prompt_sets import draw_prompts
from models.pocket.world import ASKS_TUNING
from pipeline.config.engines import VllmConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.engines import check_engine
from pipeline.engines.checks import device_for, dtype_for
from pipeline.engines.fingerprint import file_hash
from pipeline.engines.vllm.engine import Backend, open_vllm
from pipeline.engines.vllm.settings import CPU_ENVIRONMENT, engine_arguments, vllm_environment
from pipeline.run.context import open_context
from pipeline.run.passes import prompt_shards
from pipeline.run.plan import label_stages, supervised_stages
from pipeline.run.start import start_run
from pipeline.types import SamplingParams, user

NUM_PROMPTS, QUICK_PROMPTS = 1_000, 96
REPEATS = 3


@dataclass
class Request:
    """One request as vLLM saw it."""

    token_ids: list[int]
    params: Any
    cached: int = 0
    reply: list[int] = field(default_factory=list)


@dataclass
class Recorder:
    """A backend that writes down every request between engine and vLLM; the sums come later."""

    inner: Backend
    requests: list[Request] = field(default_factory=list)
    events: list[tuple[Request, bool]] = field(default_factory=list)
    """Each request when it was asked (False) and when it was answered (True)."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def run(self, request_id: str, token_ids: list[int], params: Any) -> Any:
        """Pass on, and note what was asked, answered and cached."""
        request = Request(token_ids, params)
        self.requests.append(request)
        self.events.append((request, False))
        output = await self.inner.run(request_id, token_ids, params)
        request.cached = output.num_cached_tokens or 0
        request.reply = list(output.outputs[0].token_ids)
        self.events.append((request, True))
        return output

    def reusable_tokens(self) -> int:
        """Prompt tokens that an earlier request could have left in the cache."""
        known: set[int] = set()
        total = 0
        for request, answered in self.events:
            if answered:
                # The last token of a reply is never computed, so it cannot be in the cache.
                known.update(self._blocks([*request.token_ids, *request.reply[:-1]]))
                continue
            # The last prompt token is always computed, for the logits after it.
            shared = itertools.takewhile(known.__contains__, self._blocks(request.token_ids[:-1]))
            total += sum(1 for _ in shared) * self.inner.block_size
            known.update(self._blocks(request.token_ids))
        return total

    def _blocks(self, token_ids: list[int]) -> list[int]:
        size, chain, found = self.inner.block_size, 0, []
        for end in range(size, len(token_ids) + 1, size):
            chain = hash((chain, *token_ids[end - size : end]))
            found.append(chain)
        return found


def write_recipe(folder: Path, model: Path, num_prompts: int) -> Path:
    """The chain of the revision shortcut, on prompts that the pocket model was not trained on."""
    rows = draw_prompts(ASKS_TUNING, num_prompts, seed=21)
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    draw = {"max_tokens": 128}
    recipe = {
        "name": "efficiency",
        "constitution": "constitutions/balanced.yaml",
        "prompts": {"train": [str(folder / "prompts.jsonl")]},
        "policy": {"type": "vllm", "model": str(model)},
        "supervised": {"sample": draw, "revise": {"rounds": 1, "critique": draw, "revision": draw}},
        "preference": {"comparisons": "revision_vs_initial"},
        "evaluation": {"enabled": False},
        # Enough shards that while some wait for their last reply, others keep the batch full.
        "execution": {"shard_size": 32, "shards_in_flight": 16},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    return path


async def run_chain(recipe: Path, runs: Path) -> tuple[float, Recorder]:
    """Seconds of the chain without loading, and every request."""
    ctx = open_context(start_run(recipe, runs_root_folder=runs))
    config = ctx.policy_engine()
    assert isinstance(config, VllmConfig)
    recorders: list[Recorder] = []

    def record(backend: Backend) -> Backend:
        recorders.append(Recorder(backend))
        return recorders[0]

    engine = await open_vllm(config, record)
    try:
        stages = [*supervised_stages(ctx, engine), *label_stages(ctx, engine)]
        # The first step of an engine is slow; vLLM alone is warmed up too.
        await engine.generate(
            (user("hello"),), SamplingParams(max_tokens=2), seed=1, request_id="w"
        )
        recorders[0].requests.clear()
        recorders[0].events.clear()
        started = time.perf_counter()
        await ctx.runner.wavefront(prompt_shards(ctx), stages)
        seconds = time.perf_counter() - started
    finally:
        await engine.close()
    return seconds, recorders[0]


def run_alone(config: VllmConfig, requests: list[Request]) -> tuple[float, int]:
    """Seconds and generated tokens of vLLM's own batch interface on the same requests."""
    device = device_for(config)
    environment = CPU_ENVIRONMENT if device == "cpu" else {}
    with vllm_environment(environment), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vllm import LLM
        from vllm import SamplingParams as VllmSampling

        llm = LLM(**engine_arguments(config, Path(config.model), dtype_for(config), device))
        params = [copy.copy(request.params) for request in requests]
        for one in params:
            one.detokenize = True  # whoever uses vLLM alone wants the texts
        prompts: Any = [{"prompt_token_ids": request.token_ids} for request in requests]
        llm.generate(prompts[:1], VllmSampling(max_tokens=2), use_tqdm=False)
        started = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        llm.llm_engine.engine_core.shutdown()
    return seconds, sum(len(output.outputs[0].token_ids) for output in outputs)


def measure(model: Path, num_prompts: int, repeats: int) -> dict[str, Any]:
    """Chain and vLLM alone in turns; all figures."""
    config = VllmConfig(type="vllm", model=str(model))
    check_engine(config)
    chain_speeds, alone_speeds, shares = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_recipe(Path(folder), model, num_prompts)
        for number in range(repeats):
            seconds, recorder = asyncio.run(run_chain(recipe, Path(folder) / str(number)))
            requests = recorder.requests
            generated = sum(len(request.reply) for request in requests)
            chain_speeds.append(generated / seconds)
            possible = recorder.reusable_tokens()
            asked = sum(len(request.token_ids) for request in requests)
            shares.append(sum(request.cached for request in requests) / max(1, possible))
            print(
                f"chain {number + 1}: {len(requests)} requests, {generated} tokens in "
                f"{seconds:.1f} s, {chain_speeds[-1]:.0f} tok/s, reused {shares[-1]:.3f} of "
                f"{possible} reusable tokens of {asked}",
                flush=True,
            )
            seconds, generated = run_alone(config, requests)
            alone_speeds.append(generated / seconds)
            print(
                f"alone {number + 1}: {generated} tokens in {seconds:.1f} s, "
                f"{alone_speeds[-1]:.0f} tok/s",
                flush=True,
            )
    return {
        "efficiency": round(max(chain_speeds) / max(alone_speeds), 3),
        "cache_hit_share": round(min(shares), 3),
        "chain_tokens_per_s": round(max(chain_speeds)),
        "alone_tokens_per_s": round(max(alone_speeds)),
        "num_prompts": num_prompts,
        "repeats": repeats,
        "weights": file_hash(next(model.glob("*.safetensors")))[:12],
    }


def main() -> None:
    """Print a table and, on the last line, one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="96 prompts, once")
    parser.add_argument("--repeats", type=int, help="turns of each side")
    parser.add_argument("--model", type=Path, default=PROJECT_ROOT / "models" / "pocket")
    args = parser.parse_args()
    repeats = args.repeats or (1 if args.quick else REPEATS)
    figures = measure(args.model, QUICK_PROMPTS if args.quick else NUM_PROMPTS, repeats)
    for key, value in figures.items():
        print(f"{key:20} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
