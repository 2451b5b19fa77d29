"""Training conversations for the labeling methods, in the message formats of the pipeline.

few-shot   one or two solved comparisons as earlier turns, then the sample -> "A" or "B" reasoned
a comparison -> a rationale; then the question again -> "A" or "B" score      one response and a
principle -> a rating from "1." (worst) to "10." (best) follow-up  conversation, response (not
learned) -> what the user says next

Ratings end with a dot because "1" begins "10": whole replies could not be told apart by their
probabilities.
"""

import random

from models.pocket import principles, world
from models.pocket.corpus import (
    Example,
    Mark,
    draw_any_kind,
    draw_relation,
    find_contents,
    level_of,
    render,
    write_comparison,
)
from models.pocket.follow_ups import write_follow_up
from models.pocket.oracle import ATTRIBUTES
from models.pocket.rationales import ENDING, REQUEST, write_rationale
from models.pocket.world import assistant, user

RATINGS = tuple(f"{number}." for number in range(1, 11))
"""All replies to a request for a rating, worst first."""
RATING_WEIGHT = 4.0


def write_few_shot(rng: random.Random, *, wide: bool = False) -> Example:
    """One or two solved comparisons, clear cases under mostly other principles, and one to judge.

    Letters are drawn, not alternated: the verdicts of the exemplars are learned too, and none must
    follow from another.
    """
    attribute = rng.choice(ATTRIBUTES)
    example = Example([], [])
    for _ in range(rng.choice((1, 2))):
        others = [name for name in ATTRIBUTES if name != attribute]
        shown = rng.choice(others) if rng.random() < 0.8 else attribute
        _add_comparison(example, shown, "clear", rng, wide)
    _add_comparison(example, attribute, draw_relation(rng), rng, wide)
    return example


def _add_comparison(
    example: Example, attribute: str, relation: str, rng: random.Random, wide: bool
) -> None:
    turn = len(example.messages)
    item = write_comparison(attribute, relation, rng, message=turn, wide=wide)
    example.messages += [user(item.content), assistant(item.verdict)]
    example.learned.append(turn + 1)
    example.verdicts[turn + 1] = item.prob_a
    example.marks += item.marks
    example.contents += item.contents


def write_reasoned(rng: random.Random, *, wide: bool = False) -> Example:
    """A comparison, its rationale and its verdict."""
    attribute = rng.choice(ATTRIBUTES)
    item = write_comparison(attribute, draw_relation(rng), rng, wide=wide)
    turns = [
        user(f"{item.content}\n{REQUEST}"),
        assistant(write_rationale(attribute, item.levels, rng)),
        user(ENDING),
        assistant(item.verdict),
    ]
    return Example(turns, [1, 3], {3: item.prob_a}, marks=item.marks, contents=item.contents)


def write_score(rng: random.Random, *, wide: bool = False) -> Example:
    """A response of any kind and its rating under a principle."""
    attribute = rng.choice(ATTRIBUTES)
    task = rng.choice(world.tasks())
    kind = draw_any_kind(task, rng)
    conversation = world.write_conversation(task, rng, wide=wide)
    response = world.write_response(task, kind, rng)
    request = principles.write_request("comparison", attribute, rng)
    content = render(
        "score",
        options=("1", "10"),
        conversation=conversation,
        response=response,
        principle={"comparison_request": request, "rationale": ""},
    )
    start = content.index("[[[")
    end = content.index("]]]", start) + 3
    level = level_of(kind, attribute)
    marks = [Mark(0, end, kind), Mark(0, len(content), kind, attribute, level)]
    contents = find_contents(task, 0, content, start, end)
    return Example(
        [user(content), assistant(draw_rating(level, rng))],
        [1],
        marks=marks,
        contents=contents,
        weight=RATING_WEIGHT,
    )


def draw_rating(level: float, rng: random.Random) -> str:
    """Draw a rating whose mean is 1 + 9 * level: "1." at the worst, "10." at the best, "5." or "6."
    halfway.
    """
    mean = 1 + 9 * level
    return RATINGS[int(mean) - 1 + (rng.random() < mean % 1)]


def write_follow_up_turn(rng: random.Random, *, wide: bool = False) -> Example:
    """A conversation, a response of any kind, and what the user says to it."""
    task = rng.choice(world.tasks())
    kind = draw_any_kind(task, rng)
    messages = world.write_conversation(task, rng, wide=wide)
    response = world.write_response(task, kind, rng)
    n = len(messages)
    turns = [*messages, assistant(response), user(write_follow_up(kind, rng))]
    contents = find_contents(task, n, response, 0, len(response))
    return Example(turns, [n + 1], marks=[Mark(n, len(response), kind)], contents=contents)
