"""Steps of a trainer, timed: tokens a second, FLOP utilization, padding, memory."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989.4e12,
    "H200": 989.4e12,
    "A100": 312e12,
    "L40S": 362e12,
}
"""Dense bfloat16 FLOP/s by datasheet, by a part of the card's name; the first that matches."""


@dataclass(frozen=True)
class Size:
    """How much of everything a run takes."""

    dry: bool
    warmup: int
    """Steps that are not counted: compilation, and the allocator's first blocks."""
    steps: int
    seconds: float
    """Measured steps end after this time, if not after `steps`."""


@dataclass
class Meter:
    """Real tokens, slots, reply tokens and squares of row lengths of each batch, in order."""

    batches: list[tuple[int, int, int, int]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def collate(self, collator: Callable[..., Any], joins: bool) -> Callable[..., Any]:
        """The collator, counted."""

        def count(examples: Any) -> Any:
            batch = collator(examples)
            if "attention_mask" in batch:
                lengths = batch["attention_mask"].sum(dim=1)
                replies = int(batch["completion_mask"].sum())
            else:
                lengths, replies = (
                    batch["cu_seq_lens_q"].diff(),
                    int((batch["labels"] != -100).sum()),
                )
            tokens = int(lengths.sum())
            slots = tokens if joins else batch["input_ids"].numel()
            self.batches.append((tokens, slots, replies, int(lengths.long().square().sum())))
            return batch

        return count

    def measured(self, warmup: int) -> tuple[float, list[int]]:
        """Seconds of the steps after the warm-up, and the sums over their batches."""
        last = len(self.times)
        sums = [sum(column) for column in zip(*self.batches[warmup:last], strict=True)]
        return self.times[last - 1] - self.times[warmup - 1], sums


def time_reference(trainer_class: type, seconds: list[tuple[float, int]]) -> Callable[[], None]:
    """Note seconds and tokens of each batch of the reference pass; returns what ends that."""
    import torch

    original = trainer_class.compute_ref_log_probs  # type: ignore[attr-defined]

    def timed(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        started, tokens = time.perf_counter(), int(inputs["attention_mask"].sum())
        values = original(self, model, inputs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started, tokens))
        return values

    trainer_class.compute_ref_log_probs = timed  # type: ignore[attr-defined]

    def end() -> None:
        trainer_class.compute_ref_log_probs = original  # type: ignore[attr-defined]

    return end


def train(trainer: Any, size: Size, joins: bool) -> Meter:
    """Warm up, then measure steps until there are enough or the time is over."""
    import torch
    from transformers import PrinterCallback, TrainerCallback

    meter = Meter()
    trainer.data_collator = meter.collate(trainer.data_collator, joins)

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            meter.times.append(time.perf_counter())
            measured = meter.times[-1] - meter.times[min(size.warmup, len(meter.times)) - 1]
            control.should_training_stop |= measured > size.seconds

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    trainer.train()
    return meter


def figures(trainer: Any, meter: Meter, size: Size, adapter: bool) -> dict[str, Any]:
    """What a finished measurement says."""
    import torch

    seconds, (tokens, slots, replies, squares) = meter.measured(size.warmup)
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = model.config
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name) - head
    if not config.tie_word_embeddings:
        body -= head  # looking up an embedding multiplies nothing
    per_parameter = 4 if adapter else 6
    attention = flops_of_attention(squares, config.hidden_size, config.num_hidden_layers)
    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else "CPU"
    peak = next((flops for part, flops in PEAKS.items() if part in name), None)

    def share(head_tokens: int) -> float | None:
        flops = per_parameter * (body * tokens + head * head_tokens) + attention
        return round(flops / seconds / peak, 4) if peak else None

    steps = len(meter.times) - size.warmup
    return {
        "tokens_per_s": round(tokens / seconds),
        "mfu": share(tokens),
        "mfu_strict": share(replies),
        "padding": round(1 - tokens / slots, 4),
        "reply_share": round(replies / tokens, 4),
        "tokens_per_step": round(tokens / steps),
        "step_ms": round(1000 * seconds / steps, 1),
        "steps": steps,
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if cuda else None,
        "first_loss": round(
            next(row["loss"] for row in trainer.state.log_history if "loss" in row), 6
        ),
    }


def flops_of_attention(squares: int, width: int, layers: int) -> int:
    """Forward and backward of causal attention: a row of n tokens needs n^2 / 2 scores, each 4
    `width` operations forward (scores and sums) and twice that backward: 6 width n^2 a layer.
    """
    return 6 * width * layers * squares


def one(build: Callable[[], Any], size: Size, name: str, adapter: bool) -> dict[str, Any]:
    """Build a trainer, see what it says about padding, and measure it."""
    from trl import DPOTrainer

    said = Warnings()
    passes: list[tuple[float, int]] = []
    end = time_reference(DPOTrainer, passes)
    try:
        trainer = build()
    finally:
        end()
    if name == "trl_padding_free" and not trainer.padding_free:
        return {"ignored": said.about("padding_free"), "same_as": "trl"}
    joins = name.startswith("ours") and name != "ours_padded"
    meter = train(trainer, size, joins=joins)
    result = figures(trainer, meter, size, adapter)
    if len(passes) > size.warmup:
        rate = median(tokens / seconds for seconds, tokens in passes[size.warmup :])
        speed = result["tokens_per_s"]
        result |= {
            "reference_tokens_per_s": round(rate),
            "with_reference": round(1 / (1 / speed + 1 / rate)),
        }
    elif not passes:
        result["with_reference"] = result["tokens_per_s"]
    return result


class Warnings(logging.Handler):
    """What TRL's logger says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger("trl").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.lines.append(record.getMessage())

    def about(self, word: str) -> str:
        """The first message with this word."""
        return next((line for line in self.lines if word in line), "")[:120]


def report(part: str, name: str, result: dict[str, Any]) -> None:
    """One line, at once."""
    print(f"{part} {name} {json.dumps(result)}", flush=True)
