"""Run a prepared trainer: check its first batch and first loss, resume from a checkpoint, record
every step, and stop before a broken loss reaches a checkpoint that counts.
"""

import math
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.distributed.tensor import DTensor
from transformers import PrinterCallback, TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from pipeline.errors import ConfigError, TrainingError
from pipeline.training.metrics import MetricsLog

COMPLETE = "complete"
"""Name of the mark in a checkpoint folder that was written to its end."""


class Optimized(NamedTuple):
    """What the optimization took."""

    resumed_from_step: int
    seconds: float


class Recorder(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """Metrics to disk, a stop when the loss breaks, and a mark on complete checkpoints."""

    def __init__(self, log: MetricsLog, check_first: Callable[[float], None]) -> None:
        self.log = log
        self.check_first = check_first
        self.started = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        """Write one line of metrics.

        Raises:
            TrainingError: the loss is infinite or not a number, or the first one is wrong.
        """
        if "loss" not in logs or not state.is_world_process_zero:
            return
        if not math.isfinite(logs["loss"]):
            raise _broken(f"the loss is {logs['loss']}", args, state)
        if state.global_step == 1:
            self.check_first(logs["loss"])
        seconds = time.perf_counter() - self.started
        self.log.add(state.global_step, state.max_steps, logs, seconds)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint: it is called after everything in it has been written.

        Raises:
            TrainingError: weights are infinite or not numbers; the checkpoint gets no mark.
        """
        self.on_train_end(args, state, control, **kwargs)
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the weights: what the last step made of them is in no loss.

        Raises:
            TrainingError: they are infinite or not numbers.
        """
        if not all(map(_is_finite, kwargs["model"].parameters())):
            raise _broken("weights are infinite or not numbers", args, state)


class Tracker:
    """A tracker's callback that cannot take the training down: what it fails at is said once."""

    def __init__(self, inner: Any, name: str) -> None:
        self.inner = inner
        self.name = name
        self.works = True

    def __getattr__(self, event: str) -> Any:
        """The callback's method, guarded.

        Raises:
            ConfigError: when it is called, the tracker cannot begin.
        """
        method = getattr(self.inner, event)
        return partial(self._call, event, method) if event.startswith("on_") else method

    def _call(self, event: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs) if self.works else None
        except Exception as error:
            reason = re.sub(r"\s+", " ", str(error))[:300] or type(error).__name__
            if event == "on_train_begin":
                raise ConfigError(
                    f"report_to names '{self.name}', which cannot begin ({reason}); correct its "
                    "settings, or leave it out: metrics.jsonl has every figure"
                ) from error
            self.works = False
            print(f"note: {self.name} gets nothing more ({reason})", flush=True)
            return None


def guard_trackers(trainer: Any) -> None:
    """Put each tracker of a trainer behind a `Tracker`."""
    names = trainer.args.report_to
    kinds = dict(zip(get_reporting_integration_callbacks(names), names, strict=True))
    callbacks = trainer.callback_handler.callbacks
    callbacks[:] = [Tracker(c, kinds[type(c)]) if type(c) in kinds else c for c in callbacks]


def optimize(
    trainer: Any,
    checkpoints: Path,
    log: MetricsLog,
    check_first: Callable[[float], None] = lambda loss: None,
) -> Optimized:
    """Train, from the last complete checkpoint if there is one.

    Args:
        check_first: gets the loss of the first step, and raises when it is wrong.
    """
    last = last_checkpoint(checkpoints)
    step = _step(last) if last else 0
    if trainer.accelerator.is_main_process:
        for path in checkpoints.glob("checkpoint-*"):
            if not (path / COMPLETE).exists():
                shutil.rmtree(path, ignore_errors=True)
        log.resume(step)
    trainer.remove_callback(PrinterCallback)
    guard_trackers(trainer)
    trainer.add_callback(Recorder(log, check_first))
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    return Optimized(step, time.perf_counter() - started)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=_step, default=None)


def check_first_batch(trainer: Any, end_ids: frozenset[int]) -> None:
    """Look at what the loss will see: the last trained token of each reply ends the turn.

    The rows were checked already; this catches a trainer or a collator that cuts them.

    Raises:
        ConfigError: it does not, so the model would never learn to stop.
    """
    rows = [trainer.train_dataset[i] for i in range(min(4, len(trainer.train_dataset)))]
    for row in _labels(trainer.data_collator(rows)).tolist():
        trained = [token for token in row if token != -100]
        if not trained or trained[-1] not in end_ids:
            raise ConfigError(
                f"the first batch trains a reply that ends with token {trained[-1:]} instead of "
                f"an end of turn {sorted(end_ids)}; check the chat template and max_length"
            )


def _labels(batch: dict[str, Any]) -> torch.Tensor:
    if "labels" in batch:
        return batch["labels"]
    if "chosen_labels" in batch:
        return batch["chosen_labels"]
    return batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)


def _is_finite(weights: torch.Tensor) -> bool:
    own = weights.to_local() if isinstance(weights, DTensor) else weights
    return bool(own.isfinite().all())


def _broken(problem: str, args: Any, state: Any) -> TrainingError:
    last = last_checkpoint(Path(args.output_dir))
    kept = f"; the last good checkpoint is {last}" if last else ""
    return TrainingError(
        f"{problem} at step {state.global_step}; lower learning_rate "
        f"({args.learning_rate:g}) or max_grad_norm ({args.max_grad_norm:g}){kept}"
    )


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
