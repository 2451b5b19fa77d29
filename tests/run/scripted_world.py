"""A scripted model for whole runs: replies that show which request they answer."""

from collections.abc import Sequence

from pipeline.config.factories import recipe_factory
from pipeline.config.paths import PROJECT_ROOT
from pipeline.engines import ScriptedEngine
from pipeline.labeling.follow_up_sets import load_follow_ups
from pipeline.types import Messages

PLEASED = {
    sentence
    for category in load_follow_ups(PROJECT_ROOT / "prompts/follow_ups/helpfulness.yaml").categories
    for sentence in category.positive
}


@recipe_factory
def make_engine(
    prefers: str = "polite", fail_on: str = "", wordy: bool = False, name: str = "scripted"
) -> ScriptedEngine:
    """A policy that is polite in every second sample, and a judge that prefers what it is told."""

    def reply(messages: Messages, seed: int) -> str:
        last = messages[-1].content
        if "rewrite" in last.lower():
            return f"revised and polite: {messages[-4].content[:40]}"
        if "critique" in last.lower():
            return "The response is rude."
        manner = "polite" if seed % 2 else "rude"
        return f"a {manner} reply {seed}" + (" indeed" if wordy and seed % 2 else "")

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        # With chain of thought, the sample stands before the rationale and the last request.
        text = next(m.content for m in reversed(messages) if "[[[" in m.content)
        if len(options) > 2:
            # A rating: 8 of 10 for what it likes, else 3.
            shown = text.split("[[[")[1].split("]]]")[0]
            return [
                -0.2 if number == (8 if prefers in shown else 3) else -5.0
                for number in range(1, len(options) + 1)
            ]
        _, slot_a, slot_b = (part.split("]]]")[0] for part in text.split("[[["))
        points = (prefers in slot_a) - (prefers in slot_b)
        # Slot A is liked a little too much, as real judges do.
        return [-0.3 if points > 0 or (points == 0) else -1.5, -0.3 if points < 0 else -1.4]

    def score_replies(messages: Messages) -> tuple[float, int]:
        *_, response, follow_up = messages
        pleased, num_tokens = follow_up.content in PLEASED, len(follow_up.content.split())
        return -(1.0 if pleased == (prefers in response.content) else 2.0) * num_tokens, num_tokens

    def rewards(messages: Messages) -> float:
        return 1.5 if prefers in messages[-1].content else -0.5

    return ScriptedEngine(reply, scores, score_replies=score_replies, rewards=rewards, name=name)
