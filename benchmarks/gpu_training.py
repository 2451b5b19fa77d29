"""How fast our DPO trains on one GPU, beside TRL's defaults, and whether it computes the same loss.

    python -m benchmarks.gpu_training [--parts parity 1b 3b 8b] [--seconds N] [--dry-run]

Llama shapes with random weights: speed does not depend on the weights. Rows have the lengths of
hh-rlhf pairs (`gpu_training_lengths.json`). Nothing is downloaded; torch, transformers,
accelerate, peft, TRL and pydantic are enough. Each part is a process of its own with a time limit
and prints each result when it has it; all together take less than eight minutes.

    tokens_per_s    tokens of the joined rows, padding not counted, per second of training
    mfu             6 N (adapter: 4 N) FLOPs a token and causal attention within each row, over
                    the card's dense bfloat16 peak; N counts the head for every token
    mfu_strict      the head for the tokens of replies alone, which is what every variant computes
    padding         share of the token slots that the model computed and that hold no token
    with_reference  tokens_per_s of one epoch, the pass for the reference's values included

`ours` is the trainer of a recipe: joined rows, cached reference, soft labels, float32 weights
under bfloat16 autocast (adapter: frozen bfloat16 weights), compiled layers. `trl` is TRL with its
defaults: batches of 8, padded, checkpointing, the reference computed in each step.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_meter import Size, one, report
from benchmarks.gpu_models import SHAPES, TINY, llama, mean_tokens, our_trainer, pairs, trl_trainer
from benchmarks.gpu_parity import parity

PACKED = 4096
"""Tokens of a sequence; a batch holds as many pairs as fill a number of them on average."""
SEQUENCES = {"1b": 4, "3b": 2, "8b": 2}
LIMITS: dict[str, float] = {"parity": 60, "1b": 170, "3b": 125, "8b": 120}
"""Seconds of each part; 475 together."""
VARIANTS = {
    "1b": (
        "ours",
        "trl",
        "trl_padding_free",
        "trl_cached_reference",
        "ours_packed_sft",
        "ours_checkpointing",
        "ours_uncompiled",
    ),
    "3b": ("ours", "trl", "trl_cached_reference"),
    "8b": ("ours", "trl"),
}
"""What is measured, in this order. `trl_cached_reference` is TRL with two settings for speed: the
reference computed once, and checkpointing only where ours needs it."""
ADAPTERS = {"8b": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}}


def measure(part: str, names: Sequence[str], size: Size) -> None:
    """Every variant of one shape, ours first; one that fails does not stop the next."""
    import torch

    from pipeline.training.worker.reference import no_hashes

    device = "cuda" if torch.cuda.is_available() else "cpu"
    variants = variants_of(part, size, device)
    for name in names:
        started = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory() as folder, no_hashes():
                result = one(partial(variants[name], Path(folder)), size, name, part in ADAPTERS)
        except Exception as error:
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}"[:400]}
        result["seconds"] = round(time.perf_counter() - started, 1)
        report(part, name, result)
        gc.collect()
        if device == "cuda":
            torch._dynamo.reset()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def variants_of(part: str, size: Size, device: str) -> dict[str, Callable[[Path], Any]]:
    """What builds the trainer of each variant in a folder."""
    import torch
    from peft import LoraConfig

    from pipeline.config.training import DpoConfig, SftConfig

    shape, packed = (TINY, 256) if size.dry else (SHAPES[part], PACKED)
    steps = size.warmup + size.steps
    batch = 4 if size.dry else round(SEQUENCES[part] * PACKED / mean_tokens())
    columns = pairs(batch * steps, shape["vocab_size"], seed=1, scale=0.1 if size.dry else 1)
    roomy = device == "cuda" and torch.cuda.get_device_properties(0).total_memory > 120 * 2**30
    checkpoints = not roomy and part != "1b"
    model = partial(llama, shape, device=device)
    adapter = LoraConfig(**ADAPTERS[part], task_type="CAUSAL_LM") if part in ADAPTERS else None
    common = {
        "batch_size": batch,
        "max_steps": steps,
        "warmup_share": 0.0,
        "gradient_checkpointing": checkpoints,
        "compile": not size.dry,
        "dtype": "bfloat16",
        "max_length": packed,
        "device": device,
    }
    if part in ADAPTERS:
        common["lora"] = {"r": 16, "alpha": 32}

    def ours(folder: Path, **changes: Any) -> Any:
        own = {"padding_free": True, "precompute_reference_batch_size": batch}
        return our_trainer(model, DpoConfig(**common | own | changes), columns, folder)

    def sft(folder: Path) -> Any:
        both = list(zip(columns["prompt_ids"], columns["chosen_ids"], strict=True))
        rows = {
            "input_ids": [prompt + reply for prompt, reply in both],
            "labels": [[-100] * len(prompt) + reply for prompt, reply in both],
        }
        own = {"packing": True, "batch_size": 1 if size.dry else SEQUENCES[part]}
        return our_trainer(model, SftConfig(**common | own), rows, folder)

    def trl(folder: Path, **options: Any) -> Any:
        return trl_trainer(model, columns, folder, adapter, max_steps=steps, **options)

    return {
        "ours": ours,
        "ours_uncompiled": partial(ours, compile=False),
        "ours_checkpointing": partial(ours, gradient_checkpointing=True),
        "ours_packed_sft": sft,
        "trl": trl,
        "trl_padding_free": partial(trl, padding_free=True),
        "trl_cached_reference": partial(
            trl, precompute_ref_log_probs=True, gradient_checkpointing=checkpoints
        ),
    }


def run_part(part: str, options: Sequence[str], limit: float) -> dict[str, Any]:
    """A part in its own process; what it printed before its limit counts."""
    command = [sys.executable, "-m", "benchmarks.gpu_training", "--one", part, *options]
    results: dict[str, Any] = {}
    started = time.perf_counter()
    environment = os.environ | {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        ["timeout", str(limit), *command], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            name, _, rest = line.removeprefix(f"{part} ").partition(" ")
            if line.startswith(f"{part} ") and rest.startswith("{"):
                results[name] = json.loads(rest)
    print(
        f"part {part}: exit {process.returncode} in {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    if process.returncode:
        results["exit"] = process.returncode
    return results


def summary(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All results, and how much faster ours is than TRL's defaults, with the reference pass."""
    ratios = {}
    for part, found in results.items():
        for other in ("trl", "trl_cached_reference"):
            speeds = [found.get(name, {}).get("with_reference") for name in ("ours", other)]
            if all(speeds):
                ratios[f"{part}_over_{other}"] = round(speeds[0] / speeds[1], 2)
    return {**results, "ratios": ratios}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(LIMITS), choices=list(LIMITS))
    parser.add_argument("--seconds", type=float, help="limit of each part instead of its own")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes, on the CPU if need be")
    parser.add_argument("--variants", nargs="+", help="only these of a part")
    parser.add_argument("--one", choices=list(LIMITS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        size = Size(True, 1, 2, 60) if options.dry_run else Size(False, 4, 24, 8)
        if options.one == "parity":
            parity(size)
        else:
            measure(options.one, options.variants or VARIANTS[options.one], size)
        return
    passed_on = ["--dry-run"] * options.dry_run
    if options.variants:
        passed_on += ["--variants", *options.variants]
    limits = dict(LIMITS)
    if options.seconds or options.dry_run:
        limits = dict.fromkeys(LIMITS, options.seconds or 600.0)
    results = {part: run_part(part, passed_on, limits[part]) for part in options.parts}
    print(json.dumps(summary(results)))


if __name__ == "__main__":
    main()
