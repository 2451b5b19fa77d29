"""For each shipped constitution with checks: a text that holds all of them, and per principle one
that breaks its check and no other. And a policy that writes these texts.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.factories import recipe_factory
from pipeline.config.paths import resolve_path
from pipeline.constitution import load_constitution
from pipeline.engines import ScriptedEngine
from pipeline.types import Messages

_CODE = "```python\ndef double(x):\n    return 2 * x\n```\nIt takes any number."
_YOU = "You can apply by phone. Call us before Friday."
_HELP = "That sounds tiring. Please restart the router. Does the light turn green?"
_PIECE = (
    "The piano went down the stairs on two men's backs, humming. Nora counted the steps for them, "
    "nineteen, and on the ninth a single note fell out and rolled under the radiator. Nobody "
    "picked it up. In winter, when the pipes are hot, it still rings."
)
LONG = "More of it follows here. "

TEXTS: dict[str, tuple[str, dict[str, str]]] = {
    "house_style": (
        "The blanket is woven in Yorkshire. It comes in three colours.",
        {
            "house-length": LONG * 30,
            "house-calm": "The blanket is here!",
            "house-emoji": "The blanket is here \U0001f600.",
            "house-british": "It comes in three colors.",
            "house-hype": "A game-changing blanket.",
            "house-blocks": "# The blanket\nIt is woven in Yorkshire.",
        },
    ),
    "code_style": (
        _CODE,
        {
            "code-parses": "```python\ndef double(x:\n```",
            "code-short": _CODE + " " + LONG * 60,
            "code-bare-except": "```python\ntry:\n    f()\nexcept:\n    pass\n```",
            "code-star-import": "```python\nfrom math import *\n```",
            "code-eval": "```python\nx = eval(y)\n```",
            "code-no-chatter": "Great question! " + _CODE,
        },
    ),
    "plain_language": (
        _YOU,
        {
            "plain-grade": (
                "You constitute participating organizations administering "
                "disproportionate responsibilities."
            ),
            "plain-words": "You may call prior to Friday.",
            "plain-you": "Call us before Friday.",
            "plain-length": _YOU + " " + LONG * 40,
            "plain-calm": "You can call us!",
        },
    ),
    "support_tone": (
        _HELP,
        {
            "support-length": _HELP + " " + LONG * 30,
            "support-no-blame": "You should have called. " + _HELP,
            "support-question": "Please restart the router.",
            "support-prose": "- Restart the router.\n- Does it work?",
            "support-robot": "Dear user, " + _HELP,
        },
    ),
    "creative_brief": (
        _PIECE,
        {
            "brief-length": "The piano hummed.",
            "brief-no-lists": "- A piano\n- " + _PIECE,
            "brief-no-titles": "## Nineteen steps\n\n" + _PIECE,
            "brief-fresh": "Once upon a time a piano was sold. " + _PIECE,
            "brief-no-frame": "Here is a story. " + _PIECE,
        },
    ),
}
"""By name of the constitution."""


@recipe_factory
def make_engine(name: str) -> ScriptedEngine:
    """A policy that writes one of the texts by seed, and the one that holds all as a revision; a
    judge without opinion.
    """
    path = Path(f"constitutions/{name}.yaml")
    principles = load_constitution(resolve_path(path)).principles
    revisions = {principle.revision_request for principle in principles}
    critiques = {principle.critique_request for principle in principles}
    holds, breaks = TEXTS[name]
    drawn = [holds, *breaks.values()]

    def reply(messages: Messages, seed: int) -> str:
        request = messages[-1].content.strip()
        if request in critiques:
            return "It could be better."
        return holds if request in revisions else drawn[seed % len(drawn)]

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        return [-0.7, -0.7]

    return ScriptedEngine(reply, scores, keep_calls=False)
