"""How well the pocket model serves each labeling method; part of pocket_quality.py.

judge       P("A") of one question, asked in both orders
few-shot    the same after shipped exemplars (prompts/exemplars/pocket.yaml)
reasoned    a greedy rationale first, then the verdict
scores      expected rating of each response on its own
follow-ups  how much likelier a pleased user is than a displeased one
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from benchmarks.pocket_cases import Comparison, FollowUpPair, share
from models.pocket import principles
from models.pocket.corpus import render
from models.pocket.follow_ups import Category, categories
from models.pocket.labeling import RATINGS
from models.pocket.rationales import ENDING, REQUEST, UnreadableRationale, read_rationale
from models.pocket.world import Message, assistant, user
from pipeline.engines import Engine
from pipeline.types import SamplingParams, messages_from

EXEMPLARS = Path(__file__).parents[1] / "prompts" / "exemplars" / "pocket.yaml"
Ask = Callable[[str, str, str], Awaitable[float]]
"""Slot A, slot B and a request id give P("A")."""


def judge_message(item: Comparison, slot_a: str, slot_b: str) -> str:
    """The judge's message with these texts in the slots."""
    principle = {"comparison_request": item.request, "rationale": ""}
    return render(
        "judge_pocket",
        conversation=item.conversation,
        principle=principle,
        slot_a=slot_a,
        slot_b=slot_b,
    )


async def prob_a(engine: Engine, messages: list[Message], request_id: str) -> float:
    """P("A") against "B" as the reply."""
    scores = await engine.score(messages_from(messages), ["A", "B"], request_id=request_id)
    log_a, log_b = (value if value is not None else -math.inf for value in scores.logprobs)
    return 1.0 / (1.0 + math.exp(min(50.0, log_b - log_a)))


async def in_both_orders(item: Comparison, ask: Ask, name: str) -> tuple[float, float]:
    """P(first is preferred) in the forward and in the swapped order."""
    forward, swapped = await asyncio.gather(
        ask(item.first, item.second, f"{name}-0"), ask(item.second, item.first, f"{name}-1")
    )
    return forward, 1.0 - swapped


def accuracy(items: Sequence[Comparison], orders: Sequence[tuple[float, float]]) -> float:
    """Share of clear comparisons that the mean over both orders gets right."""
    return share(
        [
            ((f + s) / 2 > 0.5) == (item.truth > 0)
            for item, (f, s) in zip(items, orders, strict=True)
        ]
    )


async def measure_few_shot(
    engine: Engine, items: Sequence[Comparison], shots: int, seed: int
) -> float:
    """Accuracy after some of the shipped exemplars, each under a principle of its own, letters
    balanced.
    """
    exemplars = yaml.safe_load(EXEMPLARS.read_text())["exemplars"]
    rng = random.Random(seed)
    heads = [draw_head(rng.sample(exemplars, shots), rng) for _ in items]

    def ask(item: Comparison, head: list[Message]) -> Ask:
        return lambda a, b, name: prob_a(engine, [*head, user(judge_message(item, a, b))], name)

    orders = await asyncio.gather(
        *(
            in_both_orders(item, ask(item, head), f"few-shot-{shots}-{i}")
            for i, (item, head) in enumerate(zip(items, heads, strict=True))
        )
    )
    return accuracy(items, orders)


def draw_head(exemplars: list[dict[str, Any]], rng: random.Random) -> list[Message]:
    """The turns of solved comparisons; their letters alternate from a drawn start."""
    turns, letter = [], rng.choice("AB")
    for exemplar in exemplars:
        slots = [exemplar["better"], exemplar["worse"]][:: 1 if letter == "A" else -1]
        request = principles.write_request("comparison", exemplar["tags"][0], rng)
        content = render(
            "judge_pocket",
            conversation=exemplar["conversation"],
            principle={"comparison_request": request, "rationale": ""},
            slot_a=slots[0],
            slot_b=slots[1],
        )
        turns += [user(content), assistant(letter)]
        letter = "B" if letter == "A" else "A"
    return turns


async def measure_reasoned(
    engine: Engine, clear: Sequence[Comparison], equal: Sequence[Comparison]
) -> dict[str, float]:
    """Rationales that say the truth, and verdicts after them."""
    truths: list[bool] = []

    def ask(item: Comparison) -> Ask:
        async def reasoned(a: str, b: str, name: str) -> float:
            messages = [user(f"{judge_message(item, a, b)}\n{REQUEST}")]
            sampling = SamplingParams(temperature=0.0, max_tokens=80)
            rationale = await engine.generate(
                messages_from(messages), sampling, seed=0, request_id=f"{name}-r"
            )
            levels = item.levels if a == item.first else item.levels[::-1]
            truths.append(rationale_is_true(rationale.text, item.attribute, levels))
            return await prob_a(engine, [*messages, assistant(rationale.text), user(ENDING)], name)

        return reasoned

    orders = await asyncio.gather(
        *(
            in_both_orders(item, ask(item), f"reasoned-{i}")
            for i, item in enumerate([*clear, *equal])
        )
    )
    even = [abs((f + s) / 2 - 0.5) for f, s in orders[len(clear) :]]
    return {
        "cot_accuracy": accuracy(clear, orders[: len(clear)]),
        "rationale_accuracy": share(truths),
        "cot_equal_pair_deviation": round(fmean(even), 4),
    }


def rationale_is_true(text: str, attribute: str, levels: tuple[float, float]) -> bool:
    """Whether the rationale says the true levels, and its faults name the principle's attribute."""
    try:
        said = read_rationale(text)
    except UnreadableRationale:
        return False
    return said.levels == levels and said.attribute in (None, attribute)


async def measure_scores(engine: Engine, items: Sequence[Comparison]) -> dict[str, float]:
    """Clear pairs ranked right by their expected ratings, and how far these are from 1 + 9 *
    level.
    """
    sides = list(product(enumerate(items), (0, 1)))
    ratings = await asyncio.gather(
        *(
            expected_rating(engine, item, (item.first, item.second)[side], f"score-{i}-{side}")
            for (i, item), side in sides
        )
    )
    errors = [
        abs(r - 1 - 9 * item.levels[side])
        for r, ((_, item), side) in zip(ratings, sides, strict=True)
    ]
    pairs = zip(items, ratings[::2], ratings[1::2], strict=True)
    return {
        "score_accuracy": share(
            [(first > second) == (item.truth > 0) for item, first, second in pairs]
        ),
        "score_error": round(fmean(errors), 4),
    }


async def expected_rating(
    engine: Engine, item: Comparison, response: str, request_id: str
) -> float:
    """Mean rating under the probabilities of all ratings, 1 to 10."""
    principle = {"comparison_request": item.request, "rationale": ""}
    content = render(
        "score",
        options=("1", "10"),
        conversation=item.conversation,
        response=response,
        principle=principle,
    )
    scores = await engine.score(messages_from([user(content)]), RATINGS, request_id=request_id)
    weights = [math.exp(value) if value is not None else 0.0 for value in scores.logprobs]
    return sum(number * weight for number, weight in enumerate(weights, start=1)) / sum(weights)


async def measure_follow_ups(engine: Engine, pairs: Sequence[FollowUpPair]) -> dict[str, float]:
    """Pairs in which the better response makes pleased users likelier, by all sentences and by
    unseen ones.
    """
    likelihoods = await asyncio.gather(
        *(
            follow_up_likelihoods(
                engine, [*pair.conversation, assistant(text)], f"follow-up-{i}-{side}"
            )
            for i, pair in enumerate(pairs)
            for side, text in enumerate((pair.better, pair.worse))
        )
    )
    both = list(zip(likelihoods[::2], likelihoods[1::2], strict=True))
    unseen = tuple(category.part(held_out=True) for category in categories())
    return {
        "follow_up_accuracy": share(
            [reward(a, categories()) > reward(b, categories()) for a, b in both]
        ),
        "follow_up_accuracy_unseen": share(
            [reward(a, unseen) > reward(b, unseen) for a, b in both]
        ),
    }


async def follow_up_likelihoods(
    engine: Engine, messages: list[Message], name: str
) -> dict[str, float]:
    """Mean log-probability (nats) of a token of each follow-up after these messages."""
    texts = [text for category in categories() for text in category.positive + category.negative]
    replies = await asyncio.gather(
        *(
            engine.score_reply(messages_from([*messages, user(text)]), request_id=f"{name}-{i}")
            for i, text in enumerate(texts)
        )
    )
    return {text: total / count for text, (total, count) in zip(texts, replies, strict=True)}


def reward(likelihoods: dict[str, float], parts: Sequence[Category]) -> float:
    """Mean over categories of positive less negative likelihood, in nats per token (Zhang et al.
    2024).
    """
    return fmean(
        fmean(likelihoods[text] for text in part.positive)
        - fmean(likelihoods[text] for text in part.negative)
        for part in parts
    )
