"""Do transformers and our engine write the same greedy texts? `python -m models.smollm2.check`.

Held-out prompts of prompts/sets/general_heldout.jsonl go to both in float32 and through the
folder's own chat template. The token ids of the prompts must be equal, and the first 32 tokens of
the replies are compared id by id. Where two replies part, the gap counts: how much more probable
transformers finds its own token than the engine's, in nats. Sums in another order may decide a tie
of a hundredth of a nat, and nothing larger. The last line is one JSON object; exit code 1 when
prompts differ or replies part over more than a tie.

Does not: judge the texts, or compare after the first token that differs.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.smollm2.build import WEIGHTS
from pipeline.config.engines import VllmConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.data.prompts import read_prompts
from pipeline.engines.vllm.engine import Backend, open_vllm
from pipeline.types import Messages, SamplingParams

PROMPTS = PROJECT_ROOT / "prompts/sets/general_heldout.jsonl"
NUM_PROMPTS, NUM_TOKENS = 24, 32
NEAR_TIE = 0.01
"""Nats."""
Call = tuple[list[int], list[int]]
"""Token ids of a prompt, and of its reply."""


@dataclass
class Recorder:
    """A backend that keeps the token ids of each call."""

    inner: Backend
    calls: dict[str, Call] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def run(self, request_id: str, token_ids: list[int], params: Any) -> Any:
        """Pass on, and keep the ids."""
        output = await self.inner.run(request_id, token_ids, params)
        self.calls[request_id] = (token_ids, list(output.outputs[0].token_ids))
        return output


async def engine_calls(model: Path, prompts: Sequence[Messages]) -> list[Call]:
    """What the engine was sent, and what it wrote."""
    recorders: list[Recorder] = []

    def record(backend: Backend) -> Backend:
        recorders.append(Recorder(backend))
        return recorders[0]

    engine = await open_vllm(VllmConfig(type="vllm", model=str(model), dtype="float32"), record)
    greedy = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS)
    try:
        await asyncio.gather(
            *(
                engine.generate(messages, greedy, seed=0, request_id=str(number))
                for number, messages in enumerate(prompts)
            )
        )
    finally:
        await engine.close()
    return [recorders[0].calls[str(number)] for number in range(len(prompts))]


def compare(
    ours: Call, theirs: Call, gap_at: Callable[[list[int], int], float]
) -> tuple[str, float]:
    """What became of one prompt, and the gap in nats where the replies part.

    Args:
        gap_at: log-probability of the most probable token after these ids, minus that of a token.

    Returns:
        `same`, `near tie`, `parted` or `other prompt`; the gap is 0 where nothing parts.
    """
    (prompt, reply), (their_prompt, their_reply) = ours, theirs
    if prompt != their_prompt:
        return "other prompt", 0.0
    for at, (token, their_token) in enumerate(zip(reply, their_reply, strict=False)):
        if token != their_token:
            gap = gap_at([*prompt, *reply[:at]], token)
            return ("near tie" if gap <= NEAR_TIE else "parted"), gap
    # Both end with the end-of-turn token or at the limit, so one cannot be the other's beginning.
    return ("same" if len(reply) == len(their_reply) else "parted"), 0.0


def check(model: Path, num_prompts: int) -> dict[str, Any]:
    """Ask both and count."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = read_prompts([PROMPTS], limit=num_prompts)
    prompts = [row.messages for row in rows]
    ours = asyncio.run(engine_calls(model, prompts))
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def reply_of(messages: Messages) -> Call:
        ids = tokenizer.apply_chat_template(
            [m.as_dict() for m in messages],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            written = network.generate(**ids, do_sample=False, max_new_tokens=NUM_TOKENS)
        length = ids["input_ids"].shape[1]
        return written[0, :length].tolist(), written[0, length:].tolist()

    def gap_at(ids: list[int], token: int) -> float:
        with torch.no_grad():
            logits = network(torch.tensor([ids])).logits[0, -1]
        return float(logits.max() - logits[token])

    results = [
        compare(call, reply_of(messages), gap_at)
        for call, messages in zip(ours, prompts, strict=True)
    ]
    counts = Counter(result for result, _ in results)
    return {
        "prompts": len(prompts),
        "tokens": sum(len(reply) for _, reply in ours),
        **{name: counts[name] for name in ("same", "near tie", "parted", "other prompt")},
        "largest_gap": round(max(gap for _, gap in results), 5),
    }


def main() -> int:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=WEIGHTS)
    parser.add_argument("--prompts", type=int, default=NUM_PROMPTS)
    options = parser.parse_args()
    result = check(options.model, options.prompts)
    print(json.dumps(result))
    return int(bool(result["parted"] or result["other prompt"]))


if __name__ == "__main__":
    sys.exit(main())
