"""Writes the pocket prompt sets: `python -m models.pocket.prompt_sets`.

Both use ways of asking that are not in the training text; the held-out set's are not in the other
one either.
"""

import json
import random
from pathlib import Path

from models.pocket import world
from models.pocket.oracle import Oracle
from models.pocket.world import Message, Task

FOLDER = Path(__file__).parents[2] / "prompts" / "sets"
SETS = {
    "pocket_train": (world.ASKS_TUNING, 320, 11),
    "pocket_heldout": (world.ASKS_HELD_OUT, 160, 12),
}
"""Name: ways of asking, number of prompts, seed."""


def draw_prompts(asks: tuple[str, ...], count: int, seed: int) -> list[dict[str, object]]:
    """Draw distinct conversations, with every task about equally often."""
    rng, seen = random.Random(seed), set()
    rows: list[dict[str, object]] = []
    order: list[Task] = []
    while len(rows) < count:
        if not order:
            order = rng.sample(world.tasks(), len(world.tasks()))
        messages = world.write_conversation(order.pop(), rng, asks, held_out=True)
        if (key := json.dumps(messages)) not in seen:
            seen.add(key)
            rows.append(_row(messages))
    return rows


def _row(messages: list[Message]) -> dict[str, object]:
    task = Oracle().task(messages)
    assert task is not None, f"the oracle cannot read {messages!r}"
    tags = ["misdeed" if task.misdeed else "harmless"] + ["look_alike"] * task.look_alike
    if len(messages) == 1:
        return {"prompt": messages[0]["content"], "tags": tags}
    return {"messages": messages, "tags": [*tags, "multi_turn"]}


def main() -> None:
    """Write both files."""
    for name, (asks, count, seed) in SETS.items():
        lines = (json.dumps(row) for row in draw_prompts(asks, count, seed))
        (FOLDER / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
