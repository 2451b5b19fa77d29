"""A world of two hidden rules, and a scripted judge that can vote on rules and propose them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.factories import recipe_factory
from pipeline.engines import ScriptedEngine
from pipeline.errors import EngineError
from pipeline.types import Messages
from tests.stages.builders import log_sigmoid, slots

PLEASE = "Select the response that says please"
SHORTER = "Select the response that is shorter"


def write_world(path: Path, count: int = 80, *, inverted: bool = False) -> Path:
    """In half of the pairs the chosen response says please, in the others it is shorter."""
    path.write_text("".join(json.dumps(line) + "\n" for line in _lines(count, inverted)))
    return path


def write_dataset(path: Path, *, inverted: bool = False) -> Path:
    """The world as a data set, whose row ids do not depend on its texts, and a list that names
    it; returns the path of the list.
    """
    rows = [
        {
            "row_id": f"row {number}",
            "messages": [{"role": "user", "content": line["prompt"]}],
            "chosen": line["chosen"],
            "rejected": line["rejected"],
            "soft_label": 0.9,
        }
        for number, line in enumerate(_lines(80, inverted))
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    listed = path.with_suffix(".yaml")
    sources = [{"type": "dataset", "name": "d", "path": str(path)}]
    listed.write_text(json.dumps({"sources": sources}))
    return listed


def _lines(count: int, inverted: bool) -> list[dict[str, str]]:
    lines = []
    for i in range(count):
        chosen, rejected = (
            (f"please take {i}", f"simply take {i}")
            if i % 2
            else (f"take {i}", f"take {i} or leave")
        )
        if inverted:
            chosen, rejected = rejected, chosen
        lines.append({"prompt": f"question {i}?", "chosen": chosen, "rejected": rejected})
    return lines


def likes(rule: str, text: str) -> float:
    """How far a text holds a rule; equal for both texts where the rule says nothing."""
    if re.search("please|polite", rule):
        return float("please" in text)
    return -float(len(text.split())) if "shorter" in rule else 0.0


@recipe_factory
def make_engine(
    proposes: bool = True, fails: bool = False, unread: str = "no rule"
) -> ScriptedEngine:
    """Votes by the rule in the request; proposes what the preferred response is like, and a rule
    that fits nothing. To requests that contain `unread` it replies with neither option.
    """

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        if fails:
            raise EngineError("the model is gone")
        a, b = slots(messages)
        text = messages[-1].content
        if unread in text:
            return [log_sigmoid(-9.0)] * 2
        margin = 3 * (likes(text.splitlines()[-1], a) - likes(text.splitlines()[-1], b))
        return [log_sigmoid(margin), log_sigmoid(-margin)]

    def reply(messages: Messages) -> str:
        text = messages[-1].content
        if not proposes:
            return "I would rather not say."
        a, b = re.findall(r"Response \([AB]\): \w+\[\[\[(.*?)\]\]\]", text)
        best, worst = (a, b) if "Response (A) was preferred" in text else (b, a)
        rules = [r for r in (PLEASE, SHORTER) if likes(r, best) > likes(r, worst)]
        return "\n".join(
            f"{n}. {rule}." for n, rule in enumerate([*rules, f"{PLEASE[:24]} is blue"], 1)
        )

    return ScriptedEngine(reply, scores)
