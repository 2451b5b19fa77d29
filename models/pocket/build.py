"""The recipe of the pocket model: `python -m models.pocket.build --out models/pocket`.

Draws the corpus, learns the tokenizer, trains the network on a CPU, and writes the model folder: config,
weights (bfloat16 safetensors), tokenizer, chat template and build.json with seeds, seconds and losses.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, PreTrainedTokenizerFast

from models.pocket.corpus import write_corpus
from models.pocket.encoding import NUM_AUX, stream_batches
from models.pocket.network import Network
from models.pocket.objective import batch_loss
from models.pocket.tokenizer import END, PAD, train_tokenizer


@dataclass(frozen=True)
class BuildConfig:
    """All that determines the weights, apart from the order of floating-point sums."""

    seed: int = 0
    num_examples: int = 80_000
    tokenizer_examples: int = 20_000
    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 512
    num_layers: int = 5
    num_heads: int = 8
    num_processes: int = 2
    batch_tokens: int = 3_000
    """Tokens a step and process."""
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    warmup_steps: int = 60
    max_minutes: float = 60.0
    """A limit for slow machines: the learning rate follows whichever of data and time runs out first."""


def llama_config(config: BuildConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The architecture, in the words of transformers."""
    return LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads, max_position_embeddings=1024, rms_norm_eps=1e-5,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD), attention_bias=False, mlp_bias=False,
    )


def optimizers(network: Network, config: BuildConfig) -> list[torch.optim.Optimizer]:
    """Muon (orthogonalized momentum) for the matrices of the layers, Adam for all else."""
    matrices = [w for name, w in network.named_parameters() if name.startswith("layers.") and w.dim() == 2]
    others = [w for name, w in network.named_parameters() if not (name.startswith("layers.") and w.dim() == 2)]
    return [
        torch.optim.Muon(matrices, lr=config.matrix_lr, weight_decay=0.01, momentum=0.95, ns_steps=4),
        torch.optim.Adam(others, lr=config.other_lr, betas=(0.9, 0.98)),
    ]


def rate_factor(progress: float, step: int, warmup_steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, level until 40 %, then linear to 2 %."""
    warmup = min(1.0, (step + 1) / warmup_steps)
    return warmup * (1.0 if progress < 0.4 else 0.02 + 0.98 * (1 - progress) / 0.6)


def train(network: Network, tokenizer: PreTrainedTokenizerFast, config: BuildConfig, out: Path, rank: int) -> list[dict[str, float]]:
    """One pass over the corpus, in step with the other processes; returns the log (means over 50 steps).

    Each process draws its own share of the corpus; gradients are averaged once per step.
    """
    steppers = optimizers(network, config)
    groups = [(group, group["lr"]) for stepper in steppers for group in stepper.param_groups]
    batches = stream_batches(tokenizer, config.batch_tokens, config.seed + 1 + rank, config.num_processes)
    start, last_save, progress, step, num_seen, num_tokens = time.monotonic(), time.monotonic(), 0.0, 0, 0, 0
    log: list[dict[str, float]] = []
    sums: dict[str, list[float]] = {}
    while progress < 1:
        batch = next(batches)
        num_seen, num_tokens = num_seen + len(batch.ids), num_tokens + int((batch.ids != 0).sum())
        factor = rate_factor(progress, step, config.warmup_steps)
        for group, peak in groups:
            group["lr"] = peak * factor
        losses = batch_loss(network, batch)
        losses["total"].backward()
        minutes = (time.monotonic() - start) / 60
        own_progress = max(num_seen * config.num_processes / config.num_examples, minutes / config.max_minutes)
        progress = average_gradients(network, own_progress)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        step += 1
        for name, value in losses.items():
            sums.setdefault(name, []).append(value.item())
        if rank == 0 and (step % 50 == 0 or progress >= 1):
            row = {
                "step": step, "progress": round(progress, 4), "minutes": round(minutes, 2), "rate": round(factor, 3),
                "tokens": num_tokens * config.num_processes,
            }
            row |= {name: round(fmean(v for v in vs if v == v), 4) for name, vs in sums.items()}
            log, sums = [*log, row], {}
            print(json.dumps(row), flush=True)
        if rank == 0 and time.monotonic() - last_save > 180:
            save_weights(network, out)
            last_save = time.monotonic()
    return log


def average_gradients(network: Network, value: float) -> float:
    """Average the gradients, and one number, over the processes; returns the averaged number."""
    weights = [w for w in network.parameters()]
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([*(part.reshape(-1) for part in parts), torch.tensor([value])])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for weight, part in zip(weights, flat[:-1].split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)
    return float(flat[-1])


def save_weights(network: Network, out: Path) -> None:
    """Write the weights aside, then rename, so that a reader never sees half a file."""
    save_file(network.exported(), out / "model.part", metadata={"format": "pt"})
    (out / "model.part").rename(out / "model.safetensors")


def build(rank: int, config: BuildConfig, out: Path) -> None:
    """Run the whole recipe in one of the processes; the first one writes the model folder."""
    # One thread a process: threads of one process would wait for each other at every operation.
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out.resolve()}/rendezvous", rank=rank, world_size=config.num_processes
    )
    start = time.monotonic()
    texts = [m["content"] for e in write_corpus(config.tokenizer_examples, config.seed) for m in e.messages]
    tokenizer = train_tokenizer(texts, config.vocab_size)
    architecture = llama_config(config, tokenizer)
    architecture.architectures, architecture.dtype = ["LlamaForCausalLM"], "bfloat16"
    if rank == 0:
        tokenizer.save_pretrained(out)
        architecture.save_pretrained(out)
    torch.manual_seed(config.seed)
    network = Network(architecture, NUM_AUX)
    log = train(network, tokenizer, config, out, rank)
    if rank == 0:
        save_weights(network, out)
        report = {
            "config": asdict(config), "parameters": sum(w.numel() for w in network.exported().values()),
            "seconds": round(time.monotonic() - start, 1), "final": log[-1], "log": log[::2],
        }
        (out / "build.json").write_text(json.dumps(report, indent=1) + "\n")
    torch.distributed.destroy_process_group()


def main() -> None:
    """Parse the command line; each field of BuildConfig is an option."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    for item in fields(BuildConfig):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), default=item.default)
    values = vars(parser.parse_args())
    out = values.pop("out")
    out.mkdir(parents=True, exist_ok=True)
    config = BuildConfig(**values)
    torch.multiprocessing.spawn(build, args=(config, out), nprocs=config.num_processes)
    (out / "rendezvous").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
