"""What do the weights of turns change? Trajectories of two tasks in the pocket world.

    python -m benchmarks.turns [--pairs N] [--seeds N ...] [--quick]

A trajectory is a task, a reply, a second task and a reply to it. In the chosen one both replies are
the answer one would wish for, in the rejected one neither is. The initial policy learns from such
pairs by DPO, once for each way of weighing turns; beside it from pairs that differ in the last
reply alone. Then it answers trajectories of other prompts, each turn after its own earlier reply,
and the oracle reads both.
The last line is one JSON object: for each way the share of good first and second replies, mean over
seeds, the smallest and the largest.

    all         every turn of the assistant weighs 1 (M-DPO)
    gamma       DMPO with gamma 0.7: the first turn weighs 1, the second 0.41
    last        the last turn alone; the first is context, and differs between the two sides
    one_reply   the last reply alone, after the same good first reply

Does not: have labels of a judge. The pairs are written by the world, so they are right.
"""

import argparse
import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.demo_truth import Figures, print_spreads
from models.pocket import world
from models.pocket.corpus import draw_any_kind
from models.pocket.oracle import Assessment, Oracle
from models.pocket.world import Kind, Task
from pipeline.config.alarms import AlarmConfig
from pipeline.config.engines import VllmConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.config.training import DpoConfig, TurnsConfig
from pipeline.engines import Engine, open_engine
from pipeline.training.job import TrainingJob
from pipeline.training.launch import launch
from pipeline.types import Messages, SamplingParams, assistant, user

MODEL = PROJECT_ROOT / "models/pocket"
WAYS: dict[str, TurnsConfig | None] = {
    "all": TurnsConfig(),
    "gamma": TurnsConfig(gamma=0.7),
    "last": TurnsConfig(learn="last"),
    "one_reply": None,
}
SEEDS, PAIRS, QUICK_PAIRS = (0, 1, 2), 192, 16
HELD_OUT, QUICK_HELD_OUT = 128, 8
EPOCHS = 2


def good_kind(task: Task) -> Kind:
    """The answer one would wish for."""
    return Kind("alternative" if task.misdeed else "full")


def poor_kind(task: Task, rng: random.Random) -> Kind:
    """Any other."""
    while True:
        kind = draw_any_kind(task, rng)
        if not Assessment(task, kind).good:
            return kind


def ask_twice(rng: random.Random, asks: tuple[str, ...]) -> tuple[list[Task], list[str]]:
    """Two tasks and the user's turns that ask for them."""
    chosen = rng.sample(world.tasks(), 2)
    shift = rng.choice(world.SHIFTS_HELD_OUT)
    first = world.write_prompt(chosen[0], rng, asks, held_out=True)
    return chosen, [first, f"{shift} {rng.choice(asks).format(t=chosen[1].phrase)}"]


def write_pair(name: str, rng: random.Random, *, one_reply: bool) -> dict[str, Any]:
    """A pair of trajectories, or with `one_reply` of last replies after a good first one."""
    chosen, (first, second) = ask_twice(rng, world.ASKS_TUNING)
    good = [world.write_response(task, good_kind(task), rng) for task in chosen]
    poor = [world.write_response(task, poor_kind(task, rng), rng) for task in chosen]
    opening = [world.user(first)]
    row = {"row_id": name, "soft_label": 1.0}
    if one_reply:
        opening += [world.assistant(good[0]), world.user(second)]
        return row | {"messages": opening, "chosen": good[1], "rejected": poor[1]}
    sides = [
        [world.assistant(one), world.user(second), world.assistant(other)]
        for one, other in (good, poor)
    ]
    return row | {"messages": opening, "chosen": sides[0], "rejected": sides[1]}


async def train(way: str, seed: int, folder: Path, *, pairs: int) -> Path:
    """The policy that learned from the pairs in one way: its folder."""
    rng = random.Random(seed)
    one_reply = WAYS[way] is None
    rows = [write_pair(f"pair-{i}", rng, one_reply=one_reply) for i in range(pairs)]
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    config = DpoConfig(
        learning_rate=1e-4,
        epochs=EPOCHS,
        batch_size=16,
        max_length=512,
        turns=WAYS[way],
        seed=seed,
        alarms=AlarmConfig(probe_prompts=0),
    )
    job = TrainingJob(
        config=config, model=MODEL, dataset=folder / "pairs.parquet", output_dir=folder / "job"
    )
    return (await launch(job)).model_dir


async def measure(model: Path, number: int) -> Figures:
    """Shares of good first and second replies to held-out trajectories."""
    rng, oracle = random.Random("held out"), Oracle()
    asked = [ask_twice(rng, world.ASKS_HELD_OUT)[1] for _ in range(number)]
    good = [0, 0]

    async def talk(engine: Engine, index: int, turns: list[str]) -> None:
        messages: Messages = ()
        for place, text in enumerate(turns):
            messages = (*messages, user(text))
            sampling = SamplingParams(temperature=1.0, max_tokens=96)
            name = f"{index}-{place}"
            reply = await engine.generate(messages, sampling, seed=index, request_id=name)
            read = oracle.read([m.as_dict() for m in messages], reply.text)
            good[place] += bool(read and read.good)
            messages = (*messages, assistant(reply.text))

    config = VllmConfig(type="vllm", model=str(model), dtype="float32")
    async with open_engine(config) as engine:
        await asyncio.gather(*(talk(engine, i, turns) for i, turns in enumerate(asked)))
    return {"first": good[0] / number, "second": good[1] / number}


async def run(pairs: int, number: int, seeds: tuple[int, ...]) -> dict[str, list[Figures]]:
    """The shares of the initial policy, and of each way by seed."""
    found = {"initial": [await measure(MODEL, number)]}
    print(f"initial: {found['initial'][0]}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for way in WAYS:
            for seed in seeds:
                model = await train(way, seed, Path(temporary) / f"{way}-{seed}", pairs=pairs)
                found.setdefault(way, []).append(await measure(model, number))
                print(f"{way}, seed {seed}: {found[way][-1]}", flush=True)
    return found


def main() -> None:
    """Train in each way and print the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--quick", action="store_true", help="one seed, 16 pairs")
    arguments = parser.parse_args()
    seeds = (0,) if arguments.quick else tuple(arguments.seeds)
    pairs = QUICK_PAIRS if arguments.quick else arguments.pairs
    found = asyncio.run(run(pairs, QUICK_HELD_OUT if arguments.quick else HELD_OUT, seeds))
    print_spreads(found, ("first", "second"))


if __name__ == "__main__":
    main()
