"""How fast our DPO trains on this machine's CPU, beside TRL's defaults, on the same pairs.

    python -m benchmarks.dpo_throughput [--turns N] [--quick]

A Llama of the shape of SmolLM2-135M with random weights and a LoRA adapter of rank 16, in float32;
speed does not depend on the weights. The pairs have half the lengths of hh-rlhf's
(`gpu_training_lengths.json`), eight to a step. The variants take turns, each in a process of its
own, and each figure is the median over the turns.

    ours          the trainer of a recipe: joined rows, cached reference, soft labels
    ours_padded   the same with `padding_free: false`
    trl           TRL's DPOTrainer with its defaults: padded rows, the reference in each step

`tokens_per_s` counts the tokens of rows, not padding; `with_reference` adds the pass for the
reference's values, once per pair. The last line is one JSON object with the ratios to TRL.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gpu_meter import Size, one
from benchmarks.gpu_models import TINY, llama, our_trainer, pairs, trl_trainer

SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
BATCH = 8
"""Pairs of a step."""
SCALE = 0.5
"""Of the lengths, so that a turn takes minutes."""
VARIANTS = ("ours", "ours_padded", "trl")


def measure(name: str, *, quick: bool) -> dict[str, Any]:
    """One variant, in this process."""
    from peft import LoraConfig

    from pipeline.config.training import DpoConfig
    from pipeline.config.training import LoraConfig as LoraSection
    from pipeline.training.worker.reference import no_hashes

    shape = TINY if quick else SMOLLM2
    size = Size(dry=quick, warmup=1, steps=3, seconds=600)
    steps = size.warmup + size.steps
    columns = pairs(BATCH * steps, shape["vocab_size"], seed=1, scale=0.1 if quick else SCALE)
    model = partial(llama, shape, device="cpu")
    with tempfile.TemporaryDirectory() as folder, no_hashes():
        if name == "trl":
            adapter = LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            build = partial(
                trl_trainer, model, columns, Path(folder), adapter, max_steps=steps, bf16=False
            )
        else:
            config = DpoConfig(
                batch_size=BATCH,
                max_steps=steps,
                warmup_share=0,
                device="cpu",
                lora=LoraSection(r=16, alpha=32),
                padding_free="auto" if name == "ours" else False,
                precompute_reference_batch_size=BATCH,
            )
            build = partial(our_trainer, model, config, columns, Path(folder))
        return one(build, size, name, adapter=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, one turn")
    parser.add_argument("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, quick=options.quick)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    for turn in range(1 if options.quick else options.turns):
        for name in VARIANTS[turn % 3 :] + VARIANTS[: turn % 3]:
            command = [sys.executable, "-m", "benchmarks.dpo_throughput", "--only", name]
            command += ["--quick"] if options.quick else []
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, json.dumps(found[name][-1]), flush=True)
    keys = ("tokens_per_s", "with_reference", "step_ms", "padding")
    medians = {
        n: {key: median(each[key] for each in runs) for key in keys} for n, runs in found.items()
    }
    speeds = {name: each["with_reference"] for name, each in medians.items()}
    ratios = {name: round(speed / speeds["trl"], 2) for name, speed in speeds.items()}
    print(json.dumps({**medians, "ratio_to_trl": ratios}))


if __name__ == "__main__":
    main()
