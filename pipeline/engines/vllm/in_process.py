"""The vLLM engine core inside this process, stepped by one thread.

In:  token ids from any coroutine of one event loop
Out: finished requests, handed back to the loop once for each step, not once for each request

The thread owns the engine: it loads it, adds requests between two steps (so that batching is
continuous), and takes it down. Nothing else touches it.
"""

import asyncio
import contextlib
import functools
import gc
import itertools
import queue
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.engines import VllmConfig
from pipeline.engines.vllm import top_p
from pipeline.engines.vllm.settings import (
    CPU_ENVIRONMENT,
    engine_arguments,
    lora_request,
    opening_error,
    vllm_environment,
)
from pipeline.errors import EngineDeadError, EngineError


@dataclass(slots=True)
class _Request:
    request_id: str
    token_ids: list[int]
    params: Any
    future: "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True)
class _Abort:
    request: _Request


class InProcessBackend:
    """A Backend whose engine core lives in a thread of this process."""

    def __init__(self, config: VllmConfig, folder: Path, dtype: str) -> None:
        self.version = ""
        self.max_context = self.num_blocks = self.block_size = 0
        self._config, self._folder, self._dtype = config, folder, dtype
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[_Request | _Abort | None] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._death: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="vllm-engine", daemon=True)

    async def open(self) -> None:
        """Start the thread and wait until the model is loaded."""
        self._thread.start()
        await self._opened

    async def run(self, request_id: str, token_ids: list[int], params: Any) -> Any:
        """The finished request; see `Backend.run`."""
        if self._death is not None or self._ended.is_set():
            raise EngineDeadError(f"the vLLM engine has ended: {self._death or 'it was closed'}")
        request = _Request(request_id, token_ids, params, self._loop.create_future())
        self._inbox.put(request)
        try:
            return await request.future
        except asyncio.CancelledError:
            self._inbox.put(_Abort(request))
            raise

    async def close(self) -> None:
        """End the thread; pending calls get EngineDeadError."""
        self._inbox.put(None)
        await self._ended.wait()
        self._thread.join()

    def _serve(self) -> None:
        """Life of the thread: load, serve, take down, and always say how it ended."""
        pending: dict[str, _Request] = {}
        engine = None
        try:
            try:
                engine, lora = self._load()
            except BaseException as error:
                self._tell(_fail_opening, self._opened, error)
                return
            self._tell(_resolve, [(self._opened, None)])
            self._step_until_closed(engine, lora, pending)
        except BaseException as error:
            # Every waiting call gets what ended the engine; the runner records the rows.
            self._death = error
        finally:
            try:
                if engine is not None:
                    _take_down(engine)
            finally:  # whatever happens, no call is left waiting
                del engine
                gc.collect()
                self._tell(self._finish, pending)

    def _load(self) -> tuple[Any, Any]:
        # vLLM's imports warn about its own dependencies; none of it is for the user.
        with vllm_environment(CPU_ENVIRONMENT), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            import vllm
            from vllm import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine

            # vLLM replaces this function by one that only warns; others in this process need it.
            set_num_threads = torch.set_num_threads
            set_num_threads(_thread_count())
            top_p.install()
            arguments = engine_arguments(self._config, self._folder, self._dtype, "cpu")
            try:
                engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
            finally:
                torch.set_num_threads = set_num_threads
        cache = engine.vllm_config.cache_config
        self.version = f"vllm {vllm.__version__}"
        self.max_context = engine.model_config.max_model_len
        self.num_blocks, self.block_size = int(cache.num_gpu_blocks or 1), int(cache.block_size)
        lora = lora_request(self._config)
        gc.collect()
        gc.freeze()
        return engine, lora

    def _step_until_closed(self, engine: Any, lora: Any, pending: dict[str, _Request]) -> None:
        while True:
            # Sleep only when there is nothing to do; otherwise take what has come in and step.
            idle = not pending
            while True:
                try:
                    item = self._inbox.get(block=idle)
                except queue.Empty:
                    break
                if item is None:
                    return
                self._take(engine, lora, pending, item)
                idle = False
            if pending:
                self._step(engine, pending)

    def _take(
        self, engine: Any, lora: Any, pending: dict[str, _Request], item: _Request | _Abort
    ) -> None:
        if isinstance(item, _Abort):
            known = [key for key, value in pending.items() if value is item.request]
            for key in known:
                del pending[key]
            engine.abort_request(known)
            return
        # The caller's id may come twice; the finished request is found by a number of our own.
        key = str(next(self._numbers))
        try:
            engine.add_request(
                key,
                {"type": "token", "prompt_token_ids": item.token_ids},
                item.params,
                lora_request=lora,
            )
        except (ValueError, TypeError) as error:
            refused = EngineError(f"vLLM refused request {item.request_id}: {error}")
            self._tell(_fail, [item.future], refused)
            return
        pending[key] = item

    def _step(self, engine: Any, pending: dict[str, _Request]) -> None:
        finished = []
        for output in engine.step():
            request = pending.pop(output.request_id, None) if output.finished else None
            if request is not None:
                finished.append((request.future, output))
        if finished:
            self._tell(_resolve, finished)
        elif not engine.has_unfinished_requests():
            raise RuntimeError(f"vLLM lost {len(pending)} requests")

    def _tell(self, function: Any, *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: no one is waiting
            self._loop.call_soon_threadsafe(function, *args)

    def _finish(self, pending: dict[str, _Request]) -> None:
        """In the loop: fail what still waits, then let `close` return."""
        self._ended.set()
        futures = [request.future for request in pending.values()]
        while not self._inbox.empty():
            item = self._inbox.get_nowait()
            if isinstance(item, _Request):
                futures.append(item.future)
        _fail(
            futures,
            EngineDeadError(
                f"the vLLM engine ended while this call waited: {self._death or 'it was closed'}"
            ),
        )


def _resolve(finished: list[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, output in finished:
        if not future.done():
            future.set_result(output)


def _fail(futures: list["asyncio.Future[Any]"], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


@functools.cache
def _thread_count() -> int:
    """Threads of every engine in this process: as many as torch had at the first one.

    vLLM's attention on the CPU shares its work out by the thread count that it saw first. With
    another count later (somebody called `torch.set_num_threads`) a part is left out, without an
    error: log-probabilities are then wrong by whole nats.
    """
    import torch

    return int(torch.get_num_threads())


def _fail_opening(opened: "asyncio.Future[None]", error: BaseException) -> None:
    named = opening_error(error)
    if named is not error:
        named.__cause__ = error
    if not opened.done():
        opened.set_exception(named)


def _take_down(engine: Any) -> None:
    """End vLLM's executor and process group, and make its memory collectable."""
    gc.unfreeze()
    engine.engine_core.shutdown()


async def open_inproc(config: VllmConfig, folder: Path, dtype: str) -> InProcessBackend:
    """Load the model in a thread of this process."""
    backend = InProcessBackend(config, folder, dtype)
    await backend.open()
    return backend
