"""Scripted judges with known faults, for recipes: `tests.judge_eval.judges:make_engine`."""

import math
from collections.abc import Sequence

from pipeline.config.factories import recipe_factory
from pipeline.engines import ScriptedEngine
from pipeline.engines.options import option_nodes, sum_along
from pipeline.types import Messages
from tests.stages.builders import log_sigmoid, slots

TOKENS = {" (A)": (1, 2, 4), " (B)": (1, 3, 4)}
"""Both options begin with ` (` and end with `)`."""


def quality(text: str) -> float:
    """The number at the end of a text: its true worth in nats."""
    return float(text.split()[-1])


@recipe_factory
def make_engine(
    behavior: str = "honest",
    bias: float = 0.0,
    sharpness: float = 1.0,
    name: str = "scripted",
    fail_on: str = "",
) -> ScriptedEngine:
    """A judge: `honest`, `always_a`, `longer`, `prose`, `mixed` or `shared_token`."""

    def logit(a: str, b: str) -> float:
        if behavior == "always_a":
            return 50.0
        if behavior == "longer":
            return 3.0 if len(a.split()) > len(b.split()) else -3.0
        return sharpness * (quality(a) - quality(b)) + bias

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        # After a rationale, the sample is the last turn that shows slots.
        a, b = slots(messages)
        value = logit(a, b)
        if behavior == "prose" or (behavior == "mixed" and "prose" in messages[-1].content):
            # The judge begins a sentence: next to nothing for either letter.
            return [math.log(1e-4), math.log(3e-4)]
        if behavior == "shared_token":
            return list(_by_tokens(value, options))
        return [log_sigmoid(value), log_sigmoid(-value)]

    def rewards(messages: Messages) -> float:
        return sharpness * quality(messages[-1].content) + bias

    return ScriptedEngine(lambda messages: "a rationale", scores, rewards=rewards, name=name)


@recipe_factory
def make_policy() -> ScriptedEngine:
    """A policy whose replies end in their worth, from -2 to 2 nats by seed."""
    return ScriptedEngine(lambda messages, seed: f"reply {seed} {(seed % 401) / 100 - 2}")


def _by_tokens(value: float, options: Sequence[str]) -> tuple[float, ...]:
    """A model whose first token is ` (` whatever it thinks; the letter comes second."""
    ids = [TOKENS[option] for option in options]
    known = {(): {1: -0.1}, (1,): {2: log_sigmoid(value), 3: log_sigmoid(-value)}}
    values = {
        start: known.get(start, dict.fromkeys(following, -0.2))
        for start, following in option_nodes(ids).items()
    }
    return sum_along(ids, values)
