"""Trained weights -> a folder that vLLM and transformers load, complete or not at all.

The tokenizer's files are copied byte by byte from the model that training started from, so that
both render and encode messages alike; weights are written as safetensors in the source's number
format. After the last step nothing is left to do but to write the weights: the configurations were
proved and the tokenizer's files were copied before the first one.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.config.training import DpaConfig
from pipeline.engines.fingerprint import TOKENIZER_FILES, file_hashes
from pipeline.errors import TrainingError
from pipeline.store.disk import FULL
from pipeline.store.files import write_json
from pipeline.training.job import TrainingJob

DISK_FULL_WORDS = ("No space left on device", "PytorchStreamWriter failed", "inline_container.cc")
"""What safetensors and torch.save say when the disk is full; neither raises OSError."""


def save_model(trainer: Any, job: TrainingJob, source_dtype: torch.dtype) -> bool:
    """Write `job.model_dir`; returns True when it holds an adapter instead of a whole model.

    On several GPUs every process must call this: sharded weights are gathered from all.
    """
    accelerator = trainer.accelerator
    model = accelerator.unwrap_model(trainer.model)
    lora = job.config.lora
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    is_adapter = lora is not None and (not lora.merge or sharded)
    if lora is not None and not is_adapter:
        model = model.merge_and_unload()
    # Sharded weights are whole only in a gathered copy.
    state = accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if accelerator.is_main_process:
        aside = _aside(job)
        try:
            _write(model, state, aside, None if is_adapter else source_dtype)
            if isinstance(job.config, DpaConfig):
                write_json(aside / "directions.json", {"attributes": job.config.attributes})
        except BaseException as error:
            shutil.rmtree(aside, ignore_errors=True)
            if not isinstance(error, Exception) or is_disk_full(error):
                raise
            path = _keep_weights(model, state, job, is_adapter)
            raise TrainingError(
                f"the trained model cannot be saved ({str(error).splitlines()[0]}); its weights "
                f"are in {path}"
            ) from error
        shutil.rmtree(job.model_dir, ignore_errors=True)
        os.replace(aside, job.model_dir)
    accelerator.wait_for_everyone()
    return is_adapter


def stage_tokenizer(job: TrainingJob) -> None:
    """Tokenizer and chat template of the starting model, unchanged, where the weights will be."""
    if os.environ.get("RANK", "0") != "0":
        return
    folder = _aside(job)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in file_hashes(job.model, TOKENIZER_FILES):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(job.model / name, folder / name)
    if job.chat_template is not None:
        shutil.copyfile(job.chat_template, folder / "chat_template.jinja")


def _keep_weights(
    model: Any, state: dict[str, torch.Tensor] | None, job: TrainingJob, is_adapter: bool
) -> Path:
    """Write what was trained and nothing else, which no configuration can prevent."""
    parameters = state or {
        name: parameter.detach().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or not is_adapter
    }
    path = job.output_dir / "weights.safetensors"
    save_file(parameters, path)
    return path


def _aside(job: TrainingJob) -> Path:
    return job.output_dir / "model.tmp"


def _write(
    model: Any, state: dict[str, torch.Tensor] | None, folder: Path, dtype: torch.dtype | None
) -> None:
    if dtype is None:
        model.save_pretrained(folder, state_dict=state)
    elif state is None:
        model.to(dtype).save_pretrained(folder)
    else:
        model.config.dtype = dtype
        # Gathered and cast, tied weights are no longer one tensor, and would be written twice.
        tied = model.all_tied_weights_keys
        cast = {name: _cast(value, dtype) for name, value in state.items() if name not in tied}
        model.save_pretrained(folder, state_dict=cast)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def is_disk_full(error: BaseException | None) -> bool:
    """True when an error, or what caused it, is a full disk, whichever library raised it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(words in str(error) for words in DISK_FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
