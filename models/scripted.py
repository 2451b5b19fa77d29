"""A scripted policy and judge for the smoke recipe: no model, the same replies on every machine.

    policy: {type: scripted, script: "models.scripted:make_engine",
             args: {constitution: constitutions/balanced.yaml}}

Every second sample is rude, every revision is polite, and the judge prefers the polite response
with a slight liking for slot A, as real judges have. It knows the shipped canaries by heart.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.audits.canary_set import load_canaries
from pipeline.config.factories import recipe_factory
from pipeline.config.paths import resolve_path
from pipeline.constitution import load_constitution
from pipeline.engines import ScriptedEngine
from pipeline.types import Messages

POLITE = "Gladly"
RUDE = "Figure it out yourself"


@recipe_factory
def make_engine(
    constitution: str, latency_s: float = 0.0, canaries: str = "prompts/canaries/general.yaml"
) -> ScriptedEngine:
    """An engine that knows the requests of one constitution, and by them what it is asked for.

    Raises:
        ConfigError: the constitution or the canaries cannot be read.
    """
    liked = (POLITE, *(c.better for c in load_canaries(resolve_path(Path(canaries))).canaries))
    principles = load_constitution(resolve_path(Path(constitution))).principles
    critiques = {p.critique_request for p in principles}
    revisions = {p.revision_request for p in principles}

    def reply(messages: Messages, seed: int) -> str:
        request = messages[-1].content.strip()
        if request in critiques:
            rude = messages[-2].content.startswith(RUDE)
            return "The response is rude and helps nobody." if rude else "Nothing to criticize."
        if request in revisions:
            return f"{POLITE}: here is a careful answer, as asked."
        opening = POLITE if seed % 2 else RUDE
        return f"{opening}: reply {seed % 1000} to '{request[:40]}'."

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        _, slot_a, slot_b = messages[-1].content.split("[[[")
        points = slot_a.startswith(liked) - slot_b.startswith(liked)
        return {1: [-0.1, -2.5], 0: [-0.6, -0.8], -1: [-2.0, -0.2]}[points]

    return ScriptedEngine(
        reply, scores, name=f"scripted {constitution}", latency_s=latency_s, keep_calls=False
    )
