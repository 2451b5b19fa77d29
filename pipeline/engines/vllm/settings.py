"""From the recipe to vLLM's own arguments and environment, shared by both backends."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.engines import RewardEngineConfig, VllmConfig
from pipeline.engines.checks import model_settings
from pipeline.errors import ConfigError, MachineError, PipelineError

GIB = 1024**3
_PACKAGE = Path(__file__).parents[2]
CPU_BLOCK_SIZE = 32  # the CPU attention kernel wants multiples of 32; smaller is finer reuse
CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # vLLM compiles one small function (the rank of a token) even in eager mode: seconds at the
    # first score, and a C++ compiler, for nothing that is used here.
    "TORCHDYNAMO_DISABLE": "1",
}
CPU_BATCHED_TOKENS = 4096
"""Tokens in one step on the CPU, at least one whole prompt."""
CPU_CONTEXT = 8192
"""Most tokens of context on the CPU if the recipe does not say."""
_QUIET = {
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # By default OpenMP threads spin while they wait. On few cores shared with anything else (the
    # event loop, a server, another job) that made generation two to four times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


@contextmanager
def vllm_environment(extra: dict[str, str]) -> Iterator[None]:
    """VLLM's environment variables while it is imported and opened; afterwards as before.

    vLLM also writes variables of its own (LD_PRELOAD, LOCAL_WORLD_SIZE) that must not reach the
    training subprocess.
    """
    before = dict(os.environ)
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    os.environ.update({**{k: v for k, v in _QUIET.items() if k not in before}, **extra})
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def opening_error(error: BaseException) -> BaseException:
    """One line for what vLLM, or a library below it, says of a model that cannot be opened.

    They raise whatever they meet: a ValueError for settings, a KeyError for a weight of another
    name, an AssertionError for one of another size, a RuntimeError for memory. What our own code
    raises stays as it is.
    """
    place, frame = "", error.__traceback__
    while frame is not None:
        place, frame = frame.tb_frame.f_code.co_filename, frame.tb_next
    is_ours = place.startswith(str(_PACKAGE)) and not isinstance(error, ValueError | OSError)
    if isinstance(error, PipelineError) or not isinstance(error, Exception) or is_ours:
        return error
    said = " ".join(str(error).split())[:400]
    name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    line = f"{name}{said}".removesuffix(": ")
    return ConfigError(f"vLLM cannot open this model with these settings: {line}")


def engine_arguments(config: VllmConfig, folder: Path, dtype: str, device: str) -> dict[str, Any]:
    """Keyword arguments of `EngineArgs` and `AsyncEngineArgs`."""
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": dtype,
        "max_num_seqs": config.max_num_seqs,
        "tensor_parallel_size": config.tensor_parallel_size,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "trust_remote_code": False,
        "use_tqdm_on_load": False,
        "seed": 0,
    }
    if isinstance(config, RewardEngineConfig):
        arguments["runner"] = "pooling"
    if config.max_context is not None:
        arguments["max_model_len"] = config.max_context
    if device == "cpu":
        context = config.max_context or min(_model_context(folder), CPU_CONTEXT)
        arguments |= {
            "enforce_eager": True,
            "block_size": CPU_BLOCK_SIZE,
            "max_model_len": context,
            # vLLM 0.32 dies on the CPU when the prompt of a seeded request is split between two
            # steps ("CPU Generator does not use offset"), so prompts are never split.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(CPU_BATCHED_TOKENS, context),
        }
        gib = config.kv_cache_gib if config.kv_cache_gib is not None else default_cpu_cache_gib()
        arguments["kv_cache_memory_bytes"] = int(gib * GIB)
    else:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        if config.kv_cache_gib is not None:
            arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gib * GIB)
    if config.adapter is not None:
        rank = json.loads((config.adapter / "adapter_config.json").read_text("utf-8"))["r"]
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _lora_rank(rank)}
    return arguments


def default_cpu_cache_gib() -> float:
    """GiB for keys and values on the CPU: a quarter of the free memory, 2 at most.

    Raises:
        MachineError: less than half a GiB is free.
    """
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_AVPHYS_PAGES")
    free_gib = page * pages / GIB
    if free_gib < 0.5:
        raise MachineError(
            f"only {free_gib:.1f} GiB of memory is free and the engine needs at least 0.5; "
            "close other programs"
        )
    return min(2.0, free_gib / 4)


def lora_request(config: VllmConfig) -> Any:
    """The adapter as vLLM takes it, or None."""
    if config.adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, str(config.adapter.resolve()))


def _model_context(folder: Path) -> int:
    """Most tokens that the model's positions reach, as its configuration says."""
    return int(model_settings(folder).get("max_position_embeddings") or CPU_CONTEXT)


def _lora_rank(rank: int) -> int:
    """The smallest rank that vLLM has kernels for."""
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)
