"""Engines opened one after another in one process, as a whole run does it."""

import asyncio
import gc
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.engines import VllmConfig
from pipeline.engines import open_engine
from pipeline.engines.base import Identity
from pipeline.engines.vllm.chat import load_renderer
from pipeline.engines.vllm.engine import VllmEngine
from pipeline.engines.vllm.top_p import WIDTH, mask_outside_nucleus
from pipeline.errors import EngineDeadError
from pipeline.types import SamplingParams, user
from tests.engines.reference import Reference
from tests.engines.tiny_model import CHAT_TEMPLATE, build_tiny_model, build_tokenizer

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
@pytest.mark.filterwarnings("ignore")  # vLLM's imports
@pytest.mark.parametrize("heat", [0.01, 0.3, 1.0, 4.0])
async def test_nucleus_equals_the_sort_of_vllm(heat: float) -> None:
    """From flat distributions, whose nucleus has thousands of tokens, to sharp ones."""
    import torch
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(24, 5000, generator=generator) * heat
    logits[:, :40] = -math.inf  # tokens that a request may not use
    p = torch.tensor([0.1, 0.5, 0.9, 0.95, 0.999, 1.0]).repeat(4)
    expected = apply_top_k_top_p_pytorch(logits.clone(), None, p)
    found = mask_outside_nucleus(logits.clone(), p)
    assert torch.equal(found, expected)
    sizes = torch.isfinite(expected).sum(dim=-1)
    assert heat > 1 or sizes.max() > WIDTH


@pytest.mark.slow
async def test_scores_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    """Someone sets torch's threads between two engines, as a training in this process does."""
    import torch

    folder = build_tiny_model(tmp_path / "model")
    expected = Reference(folder).option_logprobs(QUESTION, ["A", "B"])
    config = VllmConfig(type="vllm", model=str(folder), device="cpu", kv_cache_gib=0.25)
    threads = torch.get_num_threads()
    try:
        for count in (threads, threads + 1):
            torch.set_num_threads(count)
            async with open_engine(config) as engine:
                scores = await engine.score(QUESTION, ["A", "B"], request_id="s")
            assert scores.logprobs == pytest.approx(expected, abs=1e-3), count
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("opening", "said", "stop", "text", "thought"),
    [
        # The template has opened the thought, so the reply begins inside of it.
        ("[THINK]", "they ask[/THINK]yes<|end|>", (), "yes", "they ask"),
        ("[THINK]", "they ask[/THINK]yes; no", (";",), "yes", "they ask"),
        # With stop strings vLLM decodes, and drops the special tokens that mark the thought.
        ("", "[THINK]they; ask[/THINK]yes; no", ("; n",), "yes", "they; ask"),
        ("", "yes; no", ("; n",), "as vLLM decoded it", ""),
        ("", "[THINK]they ask[/THINK]yes<|end|>", (), "yes", "they ask"),
    ],
)
async def test_a_thought_is_found_however_it_is_decoded(
    tmp_path: Path, opening: str, said: str, stop: tuple[str, ...], text: str, thought: str
) -> None:
    tokenizer = build_tokenizer(tmp_path)
    tokenizer.add_special_tokens(["[THINK]", "[/THINK]"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "t.jinja").write_text(CHAT_TEMPLATE + opening)
    renderer = load_renderer(tmp_path, chat_template=tmp_path / "t.jinja", template_args={})
    reply = SimpleNamespace(
        token_ids=renderer.encode(said), text="as vLLM decoded it", finish_reason="stop"
    )

    class Backend:
        version, max_context, num_blocks, block_size = "0", 512, 64, 16

        async def run(self, request_id: str, token_ids: list[int], params: Any) -> Any:
            return SimpleNamespace(outputs=[reply], num_cached_tokens=0)

        async def close(self) -> None:
            """Nothing is open."""

    engine = VllmEngine(Backend(), renderer, Identity("m", "f"))
    sampling = SamplingParams(stop=stop)
    generation = await engine.generate((user("q"),), sampling, seed=1, request_id="r")
    assert (generation.text, generation.thought) == (text, thought)
    assert generation.num_thought_tokens == (len(renderer.encode(thought)) or None)
