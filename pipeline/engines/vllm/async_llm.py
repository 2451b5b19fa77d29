"""vLLM with its core in processes of its own: the default on CUDA.

In:  token ids from any coroutine of one event loop
Out: finished requests

Does not: run on the CPU by default, where the processes take each other's time (`vllm_inproc`).
"""

import itertools
from pathlib import Path
from typing import Any

from pipeline.config.engines import VllmConfig
from pipeline.engines.vllm.settings import (
    engine_arguments,
    lora_request,
    opening_error,
    vllm_environment,
)
from pipeline.errors import EngineDeadError, EngineError


class AsyncBackend:
    """A Backend over vLLM's `AsyncLLM`."""

    def __init__(self, engine: Any, lora: Any, version: str) -> None:
        from vllm import PoolingParams
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError
        from vllm.v1.engine.exceptions import EngineGenerateError

        cache = engine.vllm_config.cache_config
        self.version = version
        self.max_context = int(engine.model_config.max_model_len)
        self.num_blocks, self.block_size = int(cache.num_gpu_blocks or 1), int(cache.block_size)
        self._engine, self._lora = engine, lora
        self._dead_error, self._generate_error = VllmDeadError, EngineGenerateError
        self._pooling = PoolingParams
        self._numbers = itertools.count()

    async def run(self, request_id: str, token_ids: list[int], params: Any) -> Any:
        """The finished request; see `Backend.run`."""
        last = None
        ask = self._engine.encode if isinstance(params, self._pooling) else self._engine.generate
        try:
            async for output in ask(
                {"type": "token", "prompt_token_ids": token_ids},
                params,
                # The caller's id may come twice; a number of our own keeps vLLM's ids apart.
                str(next(self._numbers)),
                lora_request=self._lora,
            ):
                last = output
        except self._dead_error as error:
            raise EngineDeadError(f"the vLLM engine has ended: {error}") from error
        except (self._generate_error, ValueError) as error:
            raise EngineError(f"vLLM refused request {request_id}: {error}") from error
        if last is None or not last.finished:
            raise EngineError(f"vLLM gave no finished reply to request {request_id}")
        return last

    async def close(self) -> None:
        """End vLLM's processes."""
        self._engine.shutdown()


async def open_async(
    config: VllmConfig, folder: Path, dtype: str, device: str = "cuda"
) -> AsyncBackend:
    """Start vLLM's processes and load the model.

    Raises:
        ConfigError: vLLM refuses the model or the settings.
    """
    extra = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    with vllm_environment(extra):
        import vllm
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(**engine_arguments(config, folder, dtype, device))
        try:
            engine = AsyncLLM.from_engine_args(arguments)
        except Exception as error:
            named = opening_error(error)
            if named is error:
                raise
            raise named from error
    return AsyncBackend(engine, lora_request(config), f"vllm {vllm.__version__}")
