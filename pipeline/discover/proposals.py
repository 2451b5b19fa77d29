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
from pipeline.constitution.wording import content_words, jaccard, words
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
LIKE = 0.6
"""Jaccard index of content words from which two rules are one."""
LIGHT = frozenset(("gives", "includes", "offers", "presents", "provides", "shows", "uses"))
"""Verbs that say no more than that the response has the quality."""
_TURNS = re.compile(
    r"\b(?:no|non|not|never|none|nothing|neither|nor|without|too|less|least|few|fewer|little|minimal"
    r"|rarely|seldom|hardly|barely|only|unless|except|instead|rather|than|over|before|unlike"
    r"|(?:against|avoid|cut|declin|discourag|exclud|fail|hid|ignor|lack|limit|miss|omit|oppos|prevent"
    r"|reduc|refrain|refus|reject|remov|skip|withh)\w*)\b|n't\b"
)
"""Words that can turn a rule into its opposite, or that make its word order count."""

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
    """At most `most` rules with how often each was proposed, the most frequent first. A rule joins
    the first one that is like it; that one stands for both.
    """
    groups: list[tuple[str, int]] = []
    for rule in proposed:
        for place, (name, number) in enumerate(groups):
            if alike(name, rule):
                groups[place] = (name, number + 1)
                break
        else:
            groups.append((rule, 1))
    return sorted(groups, key=lambda group: -group[1])[:most]


def alike(one: str, other: str) -> bool:
    """Whether two rules are one: equal words, or the content words of one and a few more.

    A word that is replaced by another one may be replaced by its opposite (`formal` by `informal`),
    and so may a whole rule by a word that turns it (`avoids`): such rules are one only if all of
    their words are equal.
    """
    texts = [words(rule.removeprefix(START)) for rule in (one, other)]
    if texts[0] == texts[1]:
        return True
    if any(_TURNS.search(" ".join(text)) for text in texts):
        return False
    # A rule of function words alone is compared by all of its words.
    first, second = (content_words(" ".join(text)) - LIGHT or set(text) for text in texts)
    return (first <= second or second <= first) and jaccard(first, second) >= LIKE
