"""Engines opened one after another in one process, as a whole run does it."""

import asyncio
import gc
import os
from pathlib import Path

import pytest

from pipeline.config.engines import VllmConfig
from pipeline.engines import open_engine
from pipeline.errors import EngineDeadError
from pipeline.types import SamplingParams, user
from tests.engines.reference import Reference
from tests.engines.tiny_model import build_tiny_model

QUESTION = (user("Which is better?"),)


def memory_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
async def test_engines_open_one_after_another(tmp_path: Path) -> None:
    """Another model's weights answer the second time, and memory does not pile up."""
    import torch._inductor.runtime.cache_dir_utils as compiler_cache

    compiler_cache.cache_dir()  # sets a variable of its own, once per process
    environment = dict(os.environ)
    answers, memory, threads = [], [], []
    for seed in (0, 1, 0):
        folder = build_tiny_model(tmp_path / str(seed), seed=seed)
        config = VllmConfig(type="vllm", model=str(folder), device="cpu", kv_cache_gib=0.5)
        async with open_engine(config) as engine:
            scores = await engine.score(QUESTION, ["A", "B"], request_id="s")
            waiting = asyncio.create_task(
                engine.generate(QUESTION, SamplingParams(max_tokens=400), seed=1, request_id="g")
            )
            await asyncio.sleep(0.05)
        with pytest.raises(EngineDeadError, match=r"ended|closed"):
            await waiting
        with pytest.raises(EngineDeadError, match="closed"):
            await engine.score(QUESTION, ["A", "B"], request_id="s")
        answers.append((engine.fingerprint, scores.logprobs))
        memory.append(memory_mib())
        threads.append(len(os.listdir("/proc/self/task")))
    assert answers[0] == answers[2] != answers[1]
    assert memory[2] < memory[0] + 256, memory  # the cache alone is 512 MiB
    assert threads[2] <= threads[1], threads
    assert dict(os.environ) == environment


@pytest.mark.slow
async def test_adapter_is_applied_exactly(tmp_path: Path) -> None:
    """The scores are those of the model with the adapter's weights merged in."""
    from peft import LoraConfig, get_peft_model

    folder = build_tiny_model(tmp_path / "model")
    reference = Reference(folder)
    plain = reference.option_logprobs(QUESTION, ["A", "B"])
    adapted = get_peft_model(
        reference.model,
        LoraConfig(
            r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False
        ),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    reference.model = adapted.merge_and_unload().eval()
    expected = reference.option_logprobs(QUESTION, ["A", "B"])
    config = VllmConfig(
        type="vllm",
        model=str(folder),
        adapter=tmp_path / "adapter",
        device="cpu",
        kv_cache_gib=0.25,
    )
    async with open_engine(config) as engine:
        scores = await engine.score(QUESTION, ["A", "B"], request_id="s")
    assert scores.logprobs == pytest.approx(expected, abs=1e-3)
    assert scores.logprobs != pytest.approx(plain, abs=1e-2)


@pytest.mark.slow
async def test_scores_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    """Someone sets torch's threads between two engines, as a training in this process does."""
    import torch

    folder = build_tiny_model(tmp_path / "model")
    expected = Reference(folder).option_logprobs(QUESTION, ["A", "B"])
    config = VllmConfig(type="vllm", model=str(folder), device="cpu", kv_cache_gib=0.25)
    threads = torch.get_num_threads()
    try:
        for count in (threads, max(1, threads - 1), threads + 1):
            torch.set_num_threads(count)
            async with open_engine(config) as engine:
                scores = await engine.score(QUESTION, ["A", "B"], request_id="s")
            assert scores.logprobs == pytest.approx(expected, abs=1e-3), count
    finally:
        torch.set_num_threads(threads)
