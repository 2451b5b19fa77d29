"""The recipe of the pocket model: `python -m models.pocket.build --out FOLDER`.

`--recipe models/pocket/labeler/recipe.yaml --from-stage 5 --start-from models/pocket` makes the
labeler from the pocket model, by its fifth stage alone.

Learns the tokenizer, then trains the network on a CPU, stage after stage as recipe.yaml says, and
writes the model folder: config, weights (bfloat16 safetensors), tokenizer, chat template, and
build.json with seconds, losses and hash. Everything is seeded; only the order of floating-point
sums differs between machines.
"""

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, PreTrainedTokenizerFast

from models.pocket.encoding import NUM_AUX, Batch, stream_batches
from models.pocket.mixture import write_corpus
from models.pocket.muon import Muon
from models.pocket.network import Network
from models.pocket.objective import batch_loss
from models.pocket.tokenizer import END, PAD, train_tokenizer

RECIPE = Path(__file__).parent / "recipe.yaml"
NUM_PROCESSES = 2
TOKENIZER_EXAMPLES, TOKENIZER_SEED, VOCAB_SIZE = 20_000, 0, 2048


@dataclass(frozen=True)
class Stage:
    """One run over a mix of examples, from the weights of the stage before (rounded to
    bfloat16).
    """

    seed: int
    shares: tuple[float, ...]
    """Share of each family in the number of examples, in the order of mixture.WRITERS."""
    content_weight: float
    """Weight of a task's words in responses that are given."""
    matrix_lr: float
    other_lr: float
    warmup_steps: int
    schedule: list[tuple[int, float]]
    """(step, progress in [0, 1]) points, joined by lines; the last step ends the stage."""
    wide: bool = False
    """Whether prompts take more ways of asking (world.MORE_ASKS)."""
    batch_tokens: int = 3_000
    """Tokens a step and process."""
    dtype: str = "auto"
    """Numbers of the matrix products; `auto`: bfloat16 where the CPU has instructions for it, else
    float32, which took half of the time there."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The numbers on this machine."""
        if self.dtype != "auto":
            return getattr(torch, self.dtype)
        # No public name in torch 2.13.
        has_bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if has_bfloat16 else torch.float32

    def progress(self, step: int) -> float:
        """Progress after `step` steps."""
        for (start, low), (end, high) in zip(
            [(0, 0.0), *self.schedule], self.schedule, strict=False
        ):
            if step <= end:
                return low + (high - low) * (step - start) / (end - start)
        return self.schedule[-1][1]

    def rate(self, step: int) -> float:
        """Share of the peak learning rate: linear warm-up, level until 40 %, then down to 2 % in a
        line.
        """
        progress = self.progress(step)
        warmup = min(1.0, (step + 1) / self.warmup_steps)
        return warmup * (1.0 if progress < 0.4 else 0.02 + 0.98 * (1 - progress) / 0.6)


def llama_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The architecture, in the words of transformers."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        attention_bias=False,
        mlp_bias=False,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )


def optimizers(network: Network, stage: Stage) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, Adam for all else."""
    in_layers = [
        (name.startswith("layers.") and w.dim() == 2, w) for name, w in network.named_parameters()
    ]
    return [
        Muon([w for matrix, w in in_layers if matrix], lr=stage.matrix_lr),
        torch.optim.Adam(
            [w for matrix, w in in_layers if not matrix], lr=stage.other_lr, betas=(0.9, 0.98)
        ),
    ]


class Log:
    """Averages of the losses over 50 steps, printed by the first process."""

    def __init__(self, rank: int) -> None:
        self.rank, self.start, self.tokens = rank, time.monotonic(), 0
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, list[float]] = {}

    def add(self, step: int, last: bool, batch: Batch, losses: dict[str, torch.Tensor]) -> None:
        """Take one step's losses; every 50 steps, and at the end, make a row of their means."""
        self.tokens += int((batch.ids != 0).sum()) * NUM_PROCESSES
        for name, value in losses.items():
            if not value.isnan():
                self._sums.setdefault(name, []).append(value.item())
        if step % 50 == 0 or last:
            minutes = round((time.monotonic() - self.start) / 60, 2)
            means = {name: round(fmean(values), 4) for name, values in self._sums.items()}
            self.rows.append({"step": step, "minutes": minutes, "tokens": self.tokens} | means)
            self._sums = {}
            if self.rank == 0:
                print(json.dumps(self.rows[-1]), flush=True)


def train(
    network: Network, tokenizer: PreTrainedTokenizerFast, stage: Stage, out: Path, rank: int
) -> Log:
    """Run one stage in step with the other processes, each of which draws its own share of the
    corpus.
    """
    steppers, log = optimizers(network, stage), Log(rank)
    groups = [(group, group["lr"]) for stepper in steppers for group in stepper.param_groups]
    batches = stream_batches(
        tokenizer,
        stage.batch_tokens,
        stage.seed + 1 + rank,
        NUM_PROCESSES,
        stage.shares,
        stage.content_weight,
        stage.wide,
    )
    num_steps = stage.schedule[-1][0]
    for step in range(num_steps):
        for group, peak in groups:
            group["lr"] = peak * stage.rate(step)
        batch = next(batches)
        losses = batch_loss(network, batch, stage.torch_dtype)
        losses["total"].backward()
        average_gradients(network)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        log.add(step + 1, step + 1 == num_steps, batch, losses)
        if rank == 0 and (step + 1) % 150 == 0:
            save_weights(network, out)
    return log


def average_gradients(network: Network) -> None:
    """Average the gradients over the processes."""
    weights = list(network.parameters())
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([part.reshape(-1) for part in parts])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for weight, part in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)


def save_weights(network: Network, out: Path) -> None:
    """Write the weights aside, then rename, so that a reader never sees half a file."""
    save_file(network.exported(), out / "model.part", metadata={"format": "pt"})
    (out / "model.part").chmod(0o644)
    (out / "model.part").rename(out / "model.safetensors")


def load_weights(network: Network, folder: Path, sharpened: float = 1.0) -> None:
    """Take over the weights of a model folder, which were sharpened by this; the auxiliary head
    stays as it is.
    """
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].float() / sharpened
    network.load_state_dict(
        {name.removeprefix("model."): w.float() for name, w in weights.items()}, strict=False
    )


def make_tokenizer(out: Path, start_from: str | None) -> PreTrainedTokenizerFast:
    """Learn the tokenizer from the corpus, or take that of the folder to continue from."""
    if start_from:
        return PreTrainedTokenizerFast.from_pretrained(start_from)
    examples = write_corpus(TOKENIZER_EXAMPLES, TOKENIZER_SEED)
    return train_tokenizer([m["content"] for e in examples for m in e.messages], VOCAB_SIZE)


def sharpen(out: Path, factor: float) -> None:
    """Multiply the final norm, hence all logits, by a factor: temperature 1 of the result is 1 /
    factor before.

    It takes away the far tail of each choice, which a model this small cannot learn to zero in
    minutes.
    """
    weights = load_file(out / "model.safetensors")
    weights["model.norm.weight"] = (weights["model.norm.weight"].float() * factor).to(
        torch.bfloat16
    )
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)


def build(rank: int, stages: list[Stage], factor: float, out: Path, start_from: str | None) -> None:
    """Run the stages in one of the processes; the first process writes the model folder."""
    # One thread a process: threads of one process would wait for each other at every operation.
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{out.resolve()}/rendezvous",
        rank=rank,
        world_size=NUM_PROCESSES,
    )
    start, logs, before = time.monotonic(), [], read_report(start_from)
    tokenizer = make_tokenizer(out, start_from)
    config = llama_config(tokenizer)
    for index, stage in enumerate(stages):
        torch.manual_seed(stage.seed)
        network = Network(config, NUM_AUX)
        if index > 0:
            load_weights(network, out)
        elif start_from:
            load_weights(network, Path(start_from), sharpened=factor)
        logs.append(train(network, tokenizer, stage, out, rank))
        if rank == 0:
            save_weights(network, out)
        torch.distributed.barrier()
    if rank == 0:
        sharpen(out, factor)
        tokenizer.save_pretrained(out)
        config.save_pretrained(out)
        write_report(out, before, stages, [log.rows for log in logs], time.monotonic() - start)
    torch.distributed.destroy_process_group()


def read_report(folder: str | None) -> dict[str, Any]:
    """The build.json of the folder to continue from, or an empty one."""
    if folder and (path := Path(folder) / "build.json").exists():
        report: dict[str, Any] = json.loads(path.read_text())
        return report
    return {"seconds": 0, "stages": [], "logs": []}


def write_report(
    out: Path,
    before: dict[str, Any],
    stages: list[Stage],
    logs: list[list[dict[str, Any]]],
    seconds: float,
) -> None:
    """Write build.json: all stages so far, how long they took, how the losses fell, and the hash of
    the weights.
    """
    report = {
        "sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "seconds": before["seconds"] + round(seconds),
        "stages": before["stages"] + [asdict(stage) for stage in stages],
        "logs": before["logs"] + logs,
    }
    (out / "build.json").write_text(json.dumps(report) + "\n")


def main() -> None:
    """Read the recipe and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="YAML file with the stages")
    parser.add_argument("--start-from", help="finished model folder to continue from")
    parser.add_argument(
        "--from-stage", type=int, default=1, help="first stage to run, counted from 1"
    )
    options = parser.parse_args()
    if options.from_stage > 1 and not options.start_from:
        parser.error(
            f"--from-stage is {options.from_stage}, which continues from weights; "
            "name them by --start-from"
        )
    recipe = yaml.safe_load(options.recipe.read_text())
    stages = [Stage(**stage) for stage in recipe["stages"][options.from_stage - 1 :]]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(
        build,
        args=(stages, recipe["sharpen"], options.out, options.start_from),
        nprocs=NUM_PROCESSES,
    )
    (options.out / "rendezvous").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
