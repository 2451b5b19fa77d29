"""The data chain of a run on a scripted model: what the benchmarks of the runner measure.

    python -m benchmarks.scripted_chain FOLDER        makes or resumes the run in FOLDER

The recipe compares each revision with its initial response, so that one pass holds all stages:
sample, critique, revise, judge, pair, and both data sets after them.
"""

import asyncio
import itertools
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.factories import recipe_factory
from pipeline.engines.scripted import ScriptedEngine, count_words
from pipeline.ids import canonical_json, uniform
from pipeline.run.context import open_context
from pipeline.run.phases import (
    preference_chain,
    preference_dataset,
    supervised_chain,
    supervised_dataset,
)
from pipeline.run.start import find_run, runs_root, start_run
from pipeline.store import RunDir, RunLock
from pipeline.types import Messages

STAGES = (
    "supervised/sample",
    "supervised/critique-1",
    "supervised/revise-1",
    "preference/judge",
    "preference/pair",
)
ENGINE_ARGS = ("latency_s", "max_concurrency", "meter", "num_words")
PROJECT = Path(__file__).parents[1]
HOLD_AFTER = "SCRIPTED_HOLD_AFTER"
"""Environment variable: stand still after so many calls, for whoever wants to kill the process
there."""
REQUESTS = ("politeness", "honesty", "care")


@recipe_factory
def make_engine(
    latency_s: float = 0.0,
    max_concurrency: int | None = None,
    meter: str | None = None,
    num_words: int = 0,
) -> ScriptedEngine:
    """A model that answers at once, or after the same time for every call.

    Args:
        meter: file to which every answered call adds a line with its tokens, as a bill would.
        num_words: words of a reply, drawn from the README as often as it uses them; 0 for a few
            words that are always alike.
    """
    vocabulary = (PROJECT / "README.md").read_text(encoding="utf-8").split() if num_words else []
    calls, hold_after = itertools.count(1), float(os.environ.get(HOLD_AFTER, "inf"))
    stream = os.open(meter, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if meter else None

    def charge(num_tokens: int) -> None:
        if stream is not None:
            os.write(stream, f"{num_tokens}\n".encode())
        if next(calls) >= hold_after:
            time.sleep(3600)

    def reply(messages: Messages, seed: int) -> str:
        # As long as a real reply, without quoting the request: that would be no revision.
        text = f"answer {seed}" + " in other words" * (1 + seed % 3)
        if vocabulary:
            text = " ".join(random.Random(seed).choices(vocabulary, k=num_words))
        charge(count_words(messages) + len(text.split()))
        return text

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        text = messages[-1].content
        charge(count_words(messages))
        return [-0.2 - 2 * uniform(option, text) for option in options]

    return ScriptedEngine(
        reply, scores, latency_s=latency_s, max_concurrency=max_concurrency, keep_calls=False
    )


def start_scripted(
    folder: Path, num_prompts: int, *, in_store: bool = False, **settings: Any
) -> RunDir:
    """A new run of `num_prompts` prompts; settings go to `execution` and `args`.

    Args:
        folder: where its recipe and, unless `in_store`, the run itself are.
        in_store: make the run in RLAIF_OUTPUTS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w") as stream:
        for number in range(num_prompts):
            text = f"How would you explain number {number} to a friend who has never heard of it?"
            stream.write(canonical_json({"prompt": text}) + "\n")
    principles = [
        {
            "id": name,
            "critique_request": f"What is wrong with the response as to {name}?",
            "revision_request": f"Rewrite the response with more {name}.",
            "comparison_request": f"Which response shows more {name}?",
        }
        for name in REQUESTS
    ]
    constitution = folder / "constitution.yaml"
    constitution.write_text(yaml.safe_dump({"name": "benchmark", "principles": principles}))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "name": "benchmark",
                "constitution": str(constitution),
                "prompts": {"train": [str(folder / "train.jsonl")]},
                "policy": {
                    "type": "scripted",
                    "script": "benchmarks.scripted_chain:make_engine",
                    "args": {name: settings.pop(name) for name in ENGINE_ARGS if name in settings},
                },
                "preference": {"comparisons": "revision_vs_initial"},
                "evaluation": {"enabled": False},
                "execution": settings,
            }
        )
    )
    runs = None if in_store else folder / "runs"
    return start_run(recipe, run_id="run", runs_root_folder=runs)


async def make_data(run: RunDir) -> dict[str, Any]:
    """Take a run, new or stopped, through all its data stages."""
    with RunLock(run.root):
        ctx = open_context(run)
        await supervised_chain(ctx)
        sft = supervised_dataset(ctx)
        await preference_chain(ctx)
        return {"sft": sft, "preference": preference_dataset(ctx)}


if __name__ == "__main__":
    print("ready", flush=True)
    runs_root()  # makes a store known, if the run is in one
    asyncio.run(make_data(find_run(sys.argv[1])))
