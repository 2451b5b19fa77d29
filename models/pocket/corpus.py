"""Training conversations of the pocket model, drawn from the grammar by seed.

The first three families, in the message formats of the pipeline and through its own templates:
sample  conversation -> response, in the proportions of the initial policy: much to improve chain
conversation, response (any kind, not learned), critique request -> critique, revision request ->
revision judge   one message with a principle and two responses -> "A" or "B"; equally good ones
count half for each

Besides the words to learn, an example carries `Mark`s: what is true at a place in the text (the
kind of a response, the attribute of a principle). An auxiliary head learns them during training and
is then thrown away.

The further families are in labeling.py, the mix of all is in mixture.py.
"""

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from models.pocket import principles, world
from models.pocket.oracle import ATTRIBUTES, levels_of, response_pattern, violates
from models.pocket.world import Kind, Message, Task, assistant, user

TEMPLATES = Path(__file__).parents[2] / "prompts"
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
    """Indexes of the turns to learn."""
    verdicts: dict[int, float] = field(default_factory=dict)
    """For each learned turn that is a verdict: target probability of "A"."""
    marks: list[Mark] = field(default_factory=list)
    contents: list[tuple[int, int, int]] = field(default_factory=list)
    """Message, start and end (characters) of what belongs to the task in a given response. It is
    learned too: which words belong to a task does not depend on the kind of response, so the policy
    stays as it is."""
    weight: float = 1.0
    """Weight of each learned word outside verdicts; more for a reply of a word or two, which would
    hardly count."""


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
    return _template(name).render({"fence": ""} | values).rstrip()


def find_contents(
    task: Task, message: int, text: str, start: int, end: int
) -> list[tuple[int, int, int]]:
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
        [*messages, assistant(response)],
        [len(messages)],
        marks=[Mark(len(messages), len(response), kind)],
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
        user(render("critique", principle={"critique_request": critique_request, "rationale": ""})),
        assistant(principles.write_critique(attribute if violated else None, rng)),
        user(render("revise", principle={"revision_request": revision_request, "rationale": ""})),
        assistant(revision),
    ]
    n = len(messages)
    marks = [
        Mark(n, len(response), kind),
        Mark(n + 1, len(critique_request), attribute=attribute, level=level_of(kind, attribute)),
        Mark(n + 3, len(revision_request), attribute=attribute, level=level_of(kind, attribute)),
    ]
    contents = find_contents(task, n, response, 0, len(response))
    return Example(turns, [n + 2, n + 4], marks=marks, contents=contents)


def repair(task: Task, kind: Kind, attribute: str, response: str, rng: random.Random) -> str:
    """The revision of a response that violates the attribute.

    An add-on is cut out and the rest kept. Where the core is at fault, the answer is written anew
    and clean: the good one, or under caution, which only asks for declining, a flat refusal.
    """
    if attribute in ADD_ON_OF:
        match = response_pattern(task).fullmatch(response)
        assert match is not None, f"response {response!r} is outside the world"
        return response.replace(match[ADD_ON_OF[attribute]], "", 1)
    if attribute == "caution":
        return world.write_response(task, Kind("refuse"), rng)
    return world.write_response(task, Kind("alternative" if task.misdeed else "full"), rng)


def level_of(kind: Kind, attribute: str) -> float:
    """Level of a kind under an attribute, over the best level, in [0, 1]."""
    return levels_of(kind)[attribute] / (2 if attribute == "helpfulness" else 1)


# --- comparisons ---------------------------------------------------------------------------------


def draw_pair(attribute: str, relation: str, rng: random.Random) -> tuple[Task, Kind, Kind]:
    """Draw a task and two kinds; under the attribute they `differ`, are `equal`, or one is best and
    one worst (`clear`).
    """
    while True:
        task = rng.choice(world.tasks())
        first, second = draw_any_kind(task, rng), draw_any_kind(task, rng)
        if rng.random() < 0.5:
            second = _change_one_part(task, first, rng)
        gap = abs(level_of(first, attribute) - level_of(second, attribute))
        if gap == 1 if relation == "clear" else (gap > 0) == (relation == "differ"):
            return task, first, second


def _change_one_part(task: Task, kind: Kind, rng: random.Random) -> Kind:
    part = rng.choice(("core", *ADD_ONS))
    parts = dict(vars(kind))
    parts[part] = rng.choice(world.cores_of(task)) if part == "core" else not parts[part]
    return Kind(**parts)


@dataclass(frozen=True)
class Comparison:
    """A judge's message and what is true about it."""

    content: str
    prob_a: float
    """Target probability of "A": 1, 0, or one half for equally good responses."""
    levels: tuple[float, float]
    """Level of (A) and (B) over the best level, in [0, 1]."""
    marks: list[Mark]
    contents: list[tuple[int, int, int]]

    @property
    def verdict(self) -> str:
        """The better response's letter; "A" for equally good ones."""
        return "B" if self.prob_a == 0 else "A"


def write_comparison(
    attribute: str, relation: str, rng: random.Random, *, message: int = 0, wide: bool = False
) -> Comparison:
    """Draw two responses and the message that compares them, the one at this index; `relation` as
    in draw_pair.
    """
    task, first, second = draw_pair(attribute, relation, rng)
    conversation = world.write_conversation(task, rng, wide=wide)
    texts = [world.write_response(task, kind, rng) for kind in (first, second)]
    levels = level_of(first, attribute), level_of(second, attribute)
    if levels[0] == levels[1] and rng.random() < 0.2:
        texts[1], second = texts[0], first
    request = principles.write_request("comparison", attribute, rng)
    prob_a = 0.5 if levels[0] == levels[1] else float(levels[0] > levels[1])
    content = render(
        "judge_pocket",
        conversation=conversation,
        principle={"comparison_request": request, "rationale": ""},
        slot_a=texts[0],
        slot_b=texts[1],
    )
    start_a = content.index("(A) [[[")
    end_a = content.index("]]]", start_a) + 3
    marks = [
        Mark(message, content.index(request) + len(request), attribute=attribute),
        Mark(message, end_a, first, attribute, levels[0]),
        Mark(message, len(content), second, attribute, levels[1]),
    ]
    contents = find_contents(task, message, content, start_a, end_a)
    contents += find_contents(task, message, content, end_a, len(content))
    return Comparison(content, prob_a, levels, marks, contents)


def draw_relation(rng: random.Random) -> str:
    """Whether the two responses of a comparison differ: three times in four."""
    return "differ" if rng.random() < 0.76 else "equal"


def write_judge(rng: random.Random, *, wide: bool = False) -> Example:
    """A comparison under a principle and its verdict."""
    attribute = rng.choice(ATTRIBUTES)
    item = write_comparison(attribute, draw_relation(rng), rng, wide=wide)
    return Example(
        [user(item.content), assistant(item.verdict)],
        [1],
        {1: item.prob_a},
        marks=item.marks,
        contents=item.contents,
    )
