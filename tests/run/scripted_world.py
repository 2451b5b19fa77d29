"""A scripted model for whole runs: replies that show which request they answer."""

from collections.abc import Sequence

from pipeline.engines import ScriptedEngine
from pipeline.types import Messages


def make_engine(prefers: str = "polite", fail_on: str = "") -> ScriptedEngine:
    """A policy that is polite in every second sample, and a judge that prefers what it is told."""

    def reply(messages: Messages, seed: int) -> str:
        last = messages[-1].content
        if "rewrite" in last.lower():
            return f"revised and polite: {messages[-4].content[:40]}"
        if "critique" in last.lower():
            return "The response is rude."
        manner = "polite" if seed % 2 else "rude"
        return f"a {manner} reply {seed}"

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        text = messages[-1].content
        slot_a, slot_b = text.split("(A) [[[")[1].split("]]]")[0], text.split("(B) [[[")[1]
        points = (prefers in slot_a) - (prefers in slot_b)
        # Slot A is liked a little too much, as real judges do.
        return [-0.3 if points > 0 or (points == 0) else -1.5, -0.3 if points < 0 else -1.4]

    return ScriptedEngine(reply, scores)
