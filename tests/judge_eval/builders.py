"""Labelled files and recipes for the tests of judges."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.soft_labels import sigmoid
from tests.run.builders import write_recipe

ENGINE = "tests.judge_eval.judges:make_engine"


def write_pairs(
    path: Path, count: int = 40, *, per_prompt: int = 1, tags: Sequence[str] = ()
) -> Path:
    """Pairs whose texts end in their worth, the better one 1.5 nats ahead; lengths are mixed."""
    lines = []
    for number in range(count):
        # Every third of the better ones is the longer one.
        longer, shorter = f"a long answer {number}", f"short {number}"
        better, worse = (longer, shorter) if number % 3 == 0 else (shorter, longer)
        lines.append(
            {
                "prompt": f"question {number // per_prompt}?",
                "chosen": f"{better} 2.0",
                "rejected": f"{worse} 0.5",
                "tags": [tags[number % len(tags)]] if tags else [],
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_noisy_pairs(path: Path, count: int, *, per_prompt: int = 2, seed: int = 3) -> Path:
    """Pairs whose label is drawn with the probability that the difference of worths says."""
    rng, lines = random.Random(seed), []
    for number in range(count):
        one, two = round(rng.uniform(-2, 2), 3), round(rng.uniform(-2, 2), 3)
        texts = [f"reply x{number} {one}", f"reply y{number} {two}"]
        if rng.random() > sigmoid(one - two):
            texts.reverse()
        lines.append(
            {
                "prompt": f"question {number // per_prompt}?",
                "chosen": texts[0],
                "rejected": texts[1],
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_judge_recipe(folder: Path, judge: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A recipe whose judge is a scripted one; `judge` are the engine's arguments."""
    engine = {"type": "scripted", "script": ENGINE, "args": judge or {}}
    execution = {"shard_size": 64, "shards_in_flight": 4}
    return write_recipe(folder, **{"judge": engine, "execution": execution, **changes})


def change_recipe(path: Path, **preference: Any) -> Path:
    """A copy of a recipe with other settings of `preference.judge`."""
    value = yaml.safe_load(path.read_text())
    value.setdefault("preference", {})["judge"] = preference
    changed = path.with_name(f"changed-{path.name}")
    changed.write_text(yaml.safe_dump(value))
    return changed
