"""Training conversations of the pocket model, drawn from the grammar by seed.

Three families, in the message formats of the pipeline and through its own templates:
  sample  conversation -> response, in the proportions of the initial policy: much to improve
  chain   conversation, response (any kind, not learned), critique request -> critique, revision request -> revision
  judge   one message with a principle and two responses -> "A" or "B"; equally good ones count half for each

Besides the words to learn, an example carries `Mark`s: what is true at a place in the text (the kind of a
response, the attribute of a principle). An auxiliary head learns them during training and is then thrown away.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from models.pocket import principles, world
from models.pocket.oracle import ATTRIBUTES, levels_of, response_pattern, violates
from models.pocket.world import Kind, Message, Task, assistant, user

TEMPLATES = Path(__file__).parents[2] / "prompts"
Shares = tuple[float, float, float]
"""Share of samples, chains and comparisons in the number of examples."""
ADD_ONS = ("insult", "padding", "claim")
ADD_ON_OF = {"politeness": "insult", "concision": "padding", "honesty": "claim"}


@dataclass(frozen=True)
class Mark:
    """What is true after the first `end` characters of a message."""

    message: int
    end: int
    kind: Kind | None = None
    attribute: str | None = None
    level: float | None = None
    """Level under the principle, over the best level, in [0, 1]."""


@dataclass
class Example:
    """A conversation and what of it is learned."""

    messages: list[Message]
    learned: list[int]
    """Indexes of the assistant turns to learn."""
    prob_a: float | None = None
    """For a verdict: target probability of "A"; None elsewhere."""
    marks: list[Mark] = field(default_factory=list)
    contents: list[tuple[int, int, int]] = field(default_factory=list)
    """Message, start and end (characters) of what belongs to the task in a given response. It is learned
    too: which words belong to a task does not depend on the kind of response, so the policy stays as it is."""


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False, undefined=StrictUndefined
    )


@cache
def _template(name: str) -> Template:
    return _environment().from_string((TEMPLATES / f"{name}.jinja").read_text())


def render(name: str, **values: object) -> str:
    """Render one of the pipeline's templates, without trailing white space."""
    return _template(name).render(**values).rstrip()


def write_corpus(
    num_examples: int, seed: int, shares: Shares = (0.28, 0.34, 0.38), *, wide: bool = False
) -> Iterator[Example]:
    """Draw examples; the same seed gives the same examples. `wide` adds ways of asking (world.MORE_ASKS)."""
    rng = random.Random(seed)
    for writer in rng.choices((write_sample, write_chain, write_judge), weights=shares, k=num_examples):
        yield writer(rng, wide=wide)


def find_contents(task: Task, message: int, text: str, start: int, end: int) -> list[tuple[int, int, int]]:
    """Where the task's own words stand in text[start:end]."""
    found = []
    for phrase in (task.yours, *task.steps, *task.alternatives):
        place = text.find(phrase, start, end)
        if place >= 0:
            found.append((message, place, place + len(phrase)))
    return found


# --- the initial policy --------------------------------------------------------------------------


def draw_policy_kind(task: Task, rng: random.Random) -> Kind:
    """Draw a kind as the initial policy does: it goes along with misdeeds and has bad habits."""
    if task.misdeed:
        core = rng.choices(("comply", "refuse", "alternative"), weights=(0.56, 0.20, 0.24))[0]
    else:
        full = 0.62 if task.look_alike else 0.70
        core = rng.choices(("full", "curt", "refuse"), weights=(full, 0.12, 0.88 - full))[0]
    return Kind(core, rng.random() < 0.08, rng.random() < 0.10, rng.random() < 0.08)


def draw_any_kind(task: Task, rng: random.Random) -> Kind:
    """Draw a kind with all cores alike and add-ons often."""
    core = rng.choice(world.cores_of(task))
    share = rng.choice((0.1, 0.35))
    return Kind(core, *(rng.random() < share for _ in ADD_ONS))


def write_sample(rng: random.Random, *, wide: bool = False) -> Example:
    """A conversation and a reply of the initial policy."""
    task = rng.choice(world.tasks())
    messages = world.write_conversation(task, rng, wide=wide)
    kind = draw_policy_kind(task, rng)
    response = world.write_response(task, kind, rng)
    return Example(
        [*messages, assistant(response)], [len(messages)], marks=[Mark(len(messages), len(response), kind)]
    )


# --- critique and revision -----------------------------------------------------------------------


def write_chain(rng: random.Random, *, wide: bool = False) -> Example:
    """A response of any kind, its critique under a principle, and its revision."""
    attribute = rng.choice(ATTRIBUTES)
    violated = rng.random() < 0.55
    while True:
        task = rng.choice(world.tasks())
        kind = draw_any_kind(task, rng)
        if violates(kind, attribute) == violated:
            break
    messages = world.write_conversation(task, rng, wide=wide)
    response = world.write_response(task, kind, rng)
    critique_request = principles.write_request("critique", attribute, rng)
    revision_request = principles.write_request("revision", attribute, rng)
    revision = repair(task, kind, attribute, response, rng) if violated else response
    turns = [
        *messages,
        assistant(response),
        user(render("critique", principle={"critique_request": critique_request})),
        assistant(principles.write_critique(attribute if violated else None, rng)),
        user(render("revise", principle={"revision_request": revision_request})),
        assistant(revision),
    ]
    n = len(messages)
    marks = [
        Mark(n, len(response), kind),
        Mark(n + 1, len(critique_request), attribute=attribute, level=_level(kind, attribute)),
        Mark(n + 3, len(revision_request), attribute=attribute, level=_level(kind, attribute)),
    ]
    contents = find_contents(task, n, response, 0, len(response))
    return Example(turns, [n + 2, n + 4], marks=marks, contents=contents)


def repair(task: Task, kind: Kind, attribute: str, response: str, rng: random.Random) -> str:
    """The revision of a response that violates the attribute.

    An add-on is cut out and the rest kept. Where the core is at fault, the answer is written anew and clean:
    the good one, or under caution, which only asks for declining, a flat refusal.
    """
    if attribute in ADD_ON_OF:
        match = response_pattern(task).fullmatch(response)
        assert match is not None, f"response {response!r} is outside the world"
        return response.replace(match[ADD_ON_OF[attribute]], "", 1)
    if attribute == "caution":
        return world.write_response(task, Kind("refuse"), rng)
    return world.write_response(task, Kind("alternative" if task.misdeed else "full"), rng)


def _level(kind: Kind, attribute: str) -> float:
    return levels_of(kind)[attribute] / (2 if attribute == "helpfulness" else 1)


# --- comparisons ---------------------------------------------------------------------------------


def draw_pair(attribute: str, relation: str, rng: random.Random) -> tuple[Task, Kind, Kind]:
    """Draw a task and two kinds that differ under the attribute (`differ`) or not (`equal`)."""
    while True:
        task = rng.choice(world.tasks())
        first, second = draw_any_kind(task, rng), draw_any_kind(task, rng)
        if rng.random() < 0.5:
            second = _change_one_part(task, first, rng)
        differ = levels_of(first)[attribute] != levels_of(second)[attribute]
        if differ == (relation == "differ"):
            return task, first, second


def _change_one_part(task: Task, kind: Kind, rng: random.Random) -> Kind:
    part = rng.choice(("core", *ADD_ONS))
    parts = dict(vars(kind))
    parts[part] = rng.choice(world.cores_of(task)) if part == "core" else not parts[part]
    return Kind(**parts)


def write_judge(rng: random.Random, *, wide: bool = False) -> Example:
    """A comparison under a principle and its verdict."""
    attribute = rng.choice(ATTRIBUTES)
    task, first, second = draw_pair(attribute, "differ" if rng.random() < 0.76 else "equal", rng)
    conversation = world.write_conversation(task, rng, wide=wide)
    texts = [world.write_response(task, kind, rng) for kind in (first, second)]
    levels = [_level(kind, attribute) for kind in (first, second)]
    if levels[0] == levels[1] and rng.random() < 0.2:
        texts[1], second = texts[0], first
    request = principles.write_request("comparison", attribute, rng)
    prob_a = 0.5 if levels[0] == levels[1] else float(levels[0] > levels[1])
    content = render(
        "judge", conversation=conversation, principle={"comparison_request": request},
        slot_a=texts[0], slot_b=texts[1],
    )
    end_a = content.index("]]]", content.index("(A) [[[")) + 3
    marks = [
        Mark(0, content.index(request) + len(request), attribute=attribute),
        Mark(0, end_a, first, attribute, levels[0]),
        Mark(0, len(content), second, attribute, levels[1]),
    ]
    verdict = assistant("B" if prob_a == 0 else "A")
    start_a = content.index("(A) [[[")
    contents = find_contents(task, 0, content, start_a, end_a) + find_contents(task, 0, content, end_a, len(content))
    return Example([user(content), verdict], [1], prob_a, marks, contents)
