"""A training section of the recipe -> TRL's arguments, on the device that this process has.

`auto` is settled here and nowhere else: bfloat16 and gradient checkpointing on CUDA, float32 on the
CPU, and batches without padding on both (on CUDA in bfloat16 only). Full training keeps float32
weights and computes in bfloat16 under autocast, since a learning rate of 5e-7 is lost in bfloat16
weights; an adapter trains on frozen bfloat16 weights.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config.training import ReferenceSection, TrainingSection
from pipeline.errors import MachineError
from pipeline.training.job import RowCounts
from pipeline.training.worker.joined_rows import ROW_BY_ROW, VARLEN
from pipeline.training.worker.methods import method_of

SHARDED_BY = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""Variables with which accelerate's launcher tells its workers what the config file asks for."""


@dataclass(frozen=True)
class Placement:
    """Where and in which format the computation runs."""

    device: str
    """`cpu` or `cuda`."""
    autocast: bool
    """Compute in bfloat16."""
    weights: torch.dtype
    """Format of the weights in memory."""
    padding_free: bool
    """The rows of a batch are joined."""
    gradient_checkpointing: bool
    compiled: bool
    """Layers are compiled."""
    sharded: bool
    """Weights are spread over processes (FSDP or DeepSpeed), so that none can generate alone."""

    @property
    def compute_dtype(self) -> str:
        """Name of the format that log-probabilities are computed in."""
        return "bfloat16" if self.autocast or self.weights == torch.bfloat16 else "float32"

    @property
    def attention(self) -> str | None:
        """Name of the attention for joined rows; None for the model's own."""
        if not self.padding_free:
            return None
        if self.device == "cpu":
            # Rows of other lengths would be compiled again.
            return None if self.compiled else ROW_BY_ROW
        return VARLEN if self.compute_dtype == "bfloat16" else None


def place(config: TrainingSection) -> Placement:
    """Settle device and formats.

    Raises:
        MachineError: CUDA is asked for and missing.
    """
    cuda = torch.cuda.is_available() and config.device != "cpu"
    if config.device == "cuda" and not cuda:
        raise MachineError(
            "the recipe asks for `device: cuda` and torch finds no GPU here; use `device: auto`, "
            "or run `make setup-cuda` on a machine with one"
        )
    autocast = config.dtype == "bfloat16" or (config.dtype == "auto" and cuda)
    # The kernel came with compute capability 8.0 (A100).
    kernel = cuda and autocast and torch.cuda.get_device_capability() >= (8, 0)
    fast = kernel or not (cuda or config.compile)
    joins = method_of(config).padding_free(config)
    checkpointing = config.gradient_checkpointing
    return Placement(
        device="cuda" if cuda else "cpu",
        autocast=autocast,
        weights=torch.bfloat16 if autocast and cuda and config.lora else torch.float32,
        padding_free=fast if joins == "auto" else bool(joins),
        gradient_checkpointing=cuda if checkpointing == "auto" else bool(checkpointing),
        compiled=config.compile,
        sharded=any(os.environ.get(name) == "true" for name in SHARDED_BY),
    )


def trl_arguments(
    config: TrainingSection, rows: RowCounts, placement: Placement, checkpoints: Path
) -> Any:
    """TRL's argument object for a method; nothing is evaluated, and nothing is sent anywhere but to
    the trackers of `report_to`.
    """
    method = method_of(config)
    _, argument_class = method.classes()
    return argument_class(
        **_common_arguments(config, placement, checkpoints)
        | _shape_arguments(config, placement)
        | method.arguments(config, rows)
    )


def _common_arguments(
    config: TrainingSection, placement: Placement, checkpoints: Path
) -> dict[str, Any]:
    # Without padding there is nothing to save, and on a GPU batches of long rows alone would need
    # the most memory. On the CPU the batches stay those of padded rows, and so do the results.
    groups = config.group_by_length and not (placement.padding_free and placement.device == "cuda")
    folder = checkpoints.absolute().parent
    return {
        "output_dir": str(checkpoints),
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "warmup_steps": config.warmup_share,
        "lr_scheduler_type": config.scheduler,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "seed": config.seed,
        "logging_steps": config.log_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if config.save_steps else "no",
        "save_steps": config.save_steps or 500,
        "save_total_limit": 2,
        "report_to": list(config.report_to) or "none",
        "run_name": f"{folder.parent.parent.name}/{folder.name}",
        "disable_tqdm": True,
        "use_cpu": placement.device == "cpu",
        "bf16": placement.autocast,
        "gradient_checkpointing": placement.gradient_checkpointing,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": placement.device == "cuda",
        "train_sampling_strategy": "group_by_length" if groups else "random",
    }


def _shape_arguments(config: TrainingSection, placement: Placement) -> dict[str, Any]:
    method = method_of(config)
    if method.shape == "prompts":
        return {}
    # Rows that are too long are gone already; a limit here could only cut.
    arguments: dict[str, Any] = {"max_length": None}
    if method.stable and method.shape in ("completion", "best", "pairs"):
        arguments["padding_free"] = placement.padding_free
    if method.shape in ("completion", "best"):
        arguments["dataset_kwargs"] = {"skip_prepare_dataset": True}
    if method.shape == "unpaired":
        arguments["train_sampling_strategy"] = "sequential"
    if isinstance(config, ReferenceSection):
        arguments["precompute_ref_log_probs"] = True
        arguments["precompute_ref_batch_size"] = config.precompute_reference_batch_size
    if not method.stable:
        # The experimental trainers take no None here, and read every column in their collator.
        arguments |= {"max_length": config.max_length, "remove_unused_columns": False}
    return arguments


def adapter_config(config: TrainingSection) -> Any:
    """PEFT's configuration of the adapter, or None when all weights are trained."""
    if config.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.target_modules,
        # With SEQ_CLS, PEFT trains and saves the new head too.
        task_type="SEQ_CLS" if method_of(config).scores else "CAUSAL_LM",
    )
