"""The thread around an in-process engine, with a fake engine in vLLM's place."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.engines import VllmConfig
from pipeline.engines.vllm import in_process as vllm_inproc
from pipeline.engines.vllm import settings
from pipeline.engines.vllm.in_process import InProcessBackend
from pipeline.errors import ConfigError, EngineDeadError, EngineError


class FakeEngine:
    """Finishes each request at the second step; fails where told."""

    def __init__(self, step_error: Exception | None = None) -> None:
        self.running: dict[str, int] = {}
        self.aborted: list[str] = []
        self.step_error = step_error

    def add_request(self, key: str, prompt: dict[str, Any], params: Any, lora_request: Any) -> None:
        if params == "refuse":
            raise ValueError("bad parameters")
        self.running[key] = 0 if params != "never" else -(10**9)

    def abort_request(self, keys: list[str]) -> None:
        self.aborted += keys
        for key in keys:
            self.running.pop(key, None)

    def has_unfinished_requests(self) -> bool:
        return bool(self.running)

    def step(self) -> list[Any]:
        if self.step_error is not None and len(self.running) >= 3:
            raise self.step_error
        self.running = {key: count + 1 for key, count in self.running.items()}
        done = [key for key, count in self.running.items() if count >= 2]
        for key in done:
            del self.running[key]
        return [SimpleNamespace(request_id=key, finished=True) for key in done]


async def backend_with(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[Any], Any]
) -> InProcessBackend:
    monkeypatch.setattr(InProcessBackend, "_load", load)
    monkeypatch.setattr(vllm_inproc, "_take_down", lambda engine: None)
    backend = InProcessBackend(VllmConfig(type="vllm", model="m"), Path("m"), "float32")
    await backend.open()
    return backend


async def test_same_request_id_twice_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = await backend_with(monkeypatch, lambda self: (FakeEngine(), None))
    first, second = await asyncio.gather(*(backend.run("same", [1], None) for _ in range(2)))
    assert first.request_id != second.request_id
    await backend.close()


async def test_refused_request_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = await backend_with(monkeypatch, lambda self: (FakeEngine(), None))
    results: Any = await asyncio.gather(
        backend.run("good", [1], None), backend.run("bad", [1], "refuse"), return_exceptions=True
    )
    assert results[0].finished
    assert isinstance(results[1], EngineError) and "refused request bad" in str(results[1])
    await backend.close()


async def test_dead_engine_fails_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(step_error=RuntimeError("out of memory"))
    backend = await backend_with(monkeypatch, lambda self: (engine, None))
    calls = await asyncio.gather(
        *(backend.run(str(n), [1], "never") for n in range(3)), return_exceptions=True
    )
    assert all(isinstance(c, EngineDeadError) and "out of memory" in str(c) for c in calls)
    with pytest.raises(EngineDeadError, match="has ended: out of memory"):
        await backend.run("later", [1], None)
    await backend.close()


async def test_canceled_call_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    backend = await backend_with(monkeypatch, lambda self: (engine, None))
    call = asyncio.create_task(backend.run("r", [1], "never"))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await backend.run("next", [1], None)
    assert engine.aborted == ["0"]
    await backend.close()


async def test_unusable_model_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Any) -> Any:
        raise ValueError("head size 7\nis not supported")

    with pytest.raises(
        ConfigError, match=r"cannot open this model .*: head size 7 is not supported"
    ):
        await backend_with(monkeypatch, load)


async def test_what_a_library_raises_of_a_model_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A weight of another name is a KeyError in vLLM; a KeyError of our own code is a bug."""
    weights: dict[str, tuple[Any, Any]] = {}
    with pytest.raises(ConfigError, match=r"cannot open this model .*: KeyError: 'layers\.9'"):
        await backend_with(monkeypatch, lambda self: weights["layers.9"])
    monkeypatch.setattr(settings, "_PACKAGE", Path(__file__).parent)
    with pytest.raises(KeyError, match=r"layers\.9"):
        await backend_with(monkeypatch, lambda self: weights["layers.9"])
