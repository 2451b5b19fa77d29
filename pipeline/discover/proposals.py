"""Candidate principles: asked of a model pair by pair, or read from a file, and merged by wording.

In:  labeled pairs and an engine, or a text file with one principle a line
Out: rules that begin with "Select the response that", the most frequent first

Does not: understand a rule. Two wordings of one thought may stay two; `votes.select` keeps the one
that explains more. One thought and its opposite must not become one.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.yaml_file import read_text
from pipeline.constitution.wording import words
from pipeline.engines.base import Engine
from pipeline.errors import ConfigError
from pipeline.ids import derive_seed
from pipeline.prompting.neutralize import draw_fence, neutralize, shorten
from pipeline.sources.rows import LabeledRow
from pipeline.types import Messages, SamplingParams, user

START = "Select the response that"
MAX_CHARACTERS = 6_000
MAX_RULE = 200
"""Characters of a rule; a longer one is an essay."""
SMALL = frozenset(["a", "an", "and", "are", "is", "it", "its", "the"])
"""Words that change nothing in a rule. Every other one may turn it around, and so may their order.
"""

_RULE = re.compile(rf"^\W*(?:\d+\W+)?{START}\s+(.{{3,{MAX_RULE}}})$", re.IGNORECASE | re.MULTILINE)


def question(row: LabeledRow, number: int, seed: int) -> Messages:
    """What the model reads about one pair; the preferred response is A or B by seed."""
    first_is_chosen = derive_seed("discover slot", seed, row.row_id) % 2 == 0
    slots = (row.chosen, row.rejected) if first_is_chosen else (row.rejected, row.chosen)
    texts = [*(message.content for message in row.messages), *slots]
    fence = draw_fence(texts, row.row_id, seed)
    talk, a, b = (
        neutralize(shorten(text, MAX_CHARACTERS))
        for text in ("\n\n".join(f"{m.role}: {m.content}" for m in row.messages), *slots)
    )
    return (
        user(
            f"A conversation:\n{fence}[[[{talk}]]]{fence}\n\n"
            f"Response (A): {fence}[[[{a}]]]{fence}\n\nResponse (B): {fence}[[[{b}]]]{fence}\n\n"
            f"Response ({'A' if first_is_chosen else 'B'}) was preferred. Why could that be? Write "
            f"{number} short rules, one a line, each beginning with '{START}'. Say what the "
            "preferred response is like and the other is not, in general words that fit other "
            "conversations too."
        ),
    )


async def propose(engine: Engine, row: LabeledRow, number: int, seed: int) -> list[str]:
    """Rules for one pair; empty where the reply has none. Raises EngineError as the engine does."""
    generation = await engine.generate(
        question(row, number, seed),
        SamplingParams(temperature=0.7, max_tokens=60 * number),
        seed=derive_seed("discover", seed, row.row_id),
        request_id=f"discover:{row.row_id}",
    )
    return rules(generation.text)[:number]


def rules(text: str) -> list[str]:
    """The rules in a reply, each as one sentence without its number and full stop."""
    return [f"{START} {match.strip().rstrip('.')}" for match in _RULE.findall(text)]


def read_rules(path: Path) -> list[str]:
    """Rules of a file, one a line; lines with # are comments.

    Raises:
        ConfigError: it cannot be read, or holds no line.
    """
    lines = [
        line.strip().rstrip(".") for line in read_text(path, f"principles {path}").splitlines()
    ]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"{path} holds no principle; write one a line")
    return found


def merge(proposed: Sequence[str], most: int) -> list[tuple[str, int]]:
    """At most `most` rules with how often each was proposed, the most frequent first. Rules that
    differ in small words alone are one; the first one stands for all.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for rule in proposed:
        wording = tuple(w for w in words(rule.removeprefix(START)) if w not in SMALL)
        groups.setdefault(wording, []).append(rule)
    merged = [(rules[0], len(rules)) for rules in groups.values()]
    return sorted(merged, key=lambda group: -group[1])[:most]
