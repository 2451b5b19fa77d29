"""The pocket model's training text for the labeling methods says what the oracle says, and the
shipped files fit it.
"""

import random
import re
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml

from models.pocket import follow_ups, world
from models.pocket.corpus import draw_any_kind, level_of
from models.pocket.follow_ups import NUM_HELD_OUT, categories, write_follow_up
from models.pocket.labeling import (
    RATINGS,
    draw_rating,
    write_few_shot,
    write_follow_up_turn,
    write_reasoned,
    write_score,
)
from models.pocket.mixture import write_corpus
from models.pocket.muon import Muon
from models.pocket.oracle import ATTRIBUTES, Oracle
from models.pocket.principles import attribute_of
from models.pocket.rationales import (
    ENDING,
    REQUEST,
    UnreadableRationale,
    read_rationale,
    write_rationale,
)
from models.pocket.world import Kind, Message

ROOT = Path(__file__).parents[2]
ORACLE = Oracle()


def read_conversation(text: str) -> list[Message]:
    """The turns that a judge's message quotes."""
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[who], "content": said}
        for who, said in re.findall(r"(?m)^(Human|Assistant): (.*)$", text)
    ]


def read_comparison(text: str) -> tuple[str, tuple[float, float]]:
    """Attribute and true levels of (A) and (B) of a judge's message, from its text alone."""
    attribute = attribute_of(text.split("(A) [[[")[0].splitlines()[-1])
    assert attribute is not None, text
    return attribute, tuple(
        true_level(text, said, attribute) for said in re.findall(r"\[\[\[(.*?)\]\]\]", text)
    )  # type: ignore[return-value]


def true_level(text: str, response: str, attribute: str) -> float:
    reading = ORACLE.read(read_conversation(text), response)
    assert reading is not None, (text, response)
    return level_of(reading.kind, attribute)


def test_few_shot_verdicts_are_true() -> None:
    rng, letters, counts = random.Random(1), Counter[str](), Counter[int]()
    for _ in range(400):
        example = write_few_shot(rng, wide=True)
        *shots, (sample, _) = list(zip(example.messages[::2], example.messages[1::2], strict=True))
        counts[len(shots)] += 1
        assert example.learned == list(example.verdicts) == list(range(1, len(example.messages), 2))
        for request, verdict in shots:
            _, levels = read_comparison(request["content"])
            assert set(levels) == {0.0, 1.0} and verdict["content"] == ("A" if levels[0] else "B")
            letters[verdict["content"]] += 1
        _, (a, b) = read_comparison(sample["content"])
        assert example.verdicts[len(example.messages) - 1] == (0.5 if a == b else float(a > b))
    assert set(counts) == {1, 2} and 0.45 < letters["A"] / letters.total() < 0.55


def test_rationales_are_true() -> None:
    rng = random.Random(2)
    for _ in range(400):
        example = write_reasoned(rng, wide=True)
        request, reason, ending, _ = (message["content"] for message in example.messages)
        assert request.endswith(f"\n{REQUEST}") and ending == ENDING and example.learned == [1, 3]
        attribute, levels = read_comparison(request)
        said = read_rationale(reason)
        assert said.levels == levels and said.attribute == (
            None if levels == (1.0, 1.0) else attribute
        )
        assert example.verdicts == {3: 0.5 + said.verdict / 2}


def test_every_rationale_reads_back() -> None:
    rng = random.Random(3)
    for attribute in ATTRIBUTES:
        grades = (0.0, 0.5, 1.0) if attribute == "helpfulness" else (0.0, 1.0)
        for levels in ((a, b) for a in grades for b in grades):
            for _ in range(10):
                text = write_rationale(attribute, levels, rng)
                said = read_rationale(text)
                assert said.levels == levels
                halves = re.findall(r"Response \(.\) ([^.]*)\.", text)
                assert (halves[0] == halves[1]) == (levels[0] == levels[1])


@pytest.mark.parametrize(
    "text",
    [
        "Well, hm.",
        "Response (A) is fine in this respect.",
        "Response (B) is fine in this respect. Response (A) is fine in this respect.",
        "Response (A) is green. Response (B) is fine in this respect.",
        "Response (A) is rude to the person. Response (B) rambles on without need.",
    ],
)
def test_other_text_is_no_rationale(text: str) -> None:
    with pytest.raises(UnreadableRationale, match="words on one attribute"):
        read_rationale(text)


def test_mean_rating_is_the_level() -> None:
    """1 + 9 * level: 1 at the worst, 5.5 halfway, 10 at the best."""
    rng = random.Random(4)
    for level, mean, ratings in (
        (0.0, 1.0, {"1."}),
        (0.5, 5.5, {"5.", "6."}),
        (1.0, 10.0, {"10."}),
    ):
        drawn = [draw_rating(level, rng) for _ in range(2000)]
        assert set(drawn) == ratings
        assert fmean(RATINGS.index(rating) + 1 for rating in drawn) == pytest.approx(mean, abs=0.05)


def test_ratings_are_true() -> None:
    rng = random.Random(5)
    for _ in range(300):
        example = write_score(rng, wide=True)
        text, rating = (message["content"] for message in example.messages)
        attribute = attribute_of(
            text.splitlines()[-2].removeprefix("Judges of such responses are asked: ")
        )
        response = re.findall(r"\[\[\[(.*?)\]\]\]", text)[0]
        assert attribute is not None and text.index(response) < text.index(
            "Judges of such responses"
        )
        mean = 1 + 9 * true_level(text, response, attribute)
        assert abs(RATINGS.index(rating) + 1 - mean) <= 0.5


def test_follow_up_tells_the_level() -> None:
    rng = random.Random(6)
    for _ in range(500):
        example = write_follow_up_turn(rng, wide=True)
        *conversation, response, follow_up = example.messages
        assert example.learned == [len(example.messages) - 1] and follow_up["role"] == "user"
        reading = ORACLE.read(conversation, response["content"])
        category = next(c for c in categories() if follow_up["content"] in c.positive + c.negative)
        assert reading is not None
        level = level_of(reading.kind, category.id)
        assert level == 0.5 or (follow_up["content"] in category.positive) == (level == 1)


def test_halfway_is_praised_half_of_the_time() -> None:
    rng = random.Random(7)
    helpful = next(category for category in categories() if category.id == "helpfulness")
    drawn = Counter(write_follow_up(Kind("curt"), rng) for _ in range(6000))
    praise, blame = (
        sum(drawn[text] for text in texts) for texts in (helpful.positive, helpful.negative)
    )
    assert praise / (praise + blame) == pytest.approx(0.5, abs=0.06)


def test_last_follow_ups_are_not_in_corpus() -> None:
    unseen = [
        t
        for c in categories()
        for t in (*c.part(held_out=True).positive, *c.part(held_out=True).negative)
    ]
    examples = write_corpus(3000, seed=5, shares=(0, 0, 0, 0, 0, 0, 1), wide=True)
    said = {example.messages[-1]["content"] for example in examples}
    assert len(unseen) == 2 * NUM_HELD_OUT * len(categories()) and not said & set(unseen)
    assert len(said) == sum(len(c.positive) + len(c.negative) for c in categories()) - len(unseen)


def test_follow_ups_are_distinct_and_leave_out_caution() -> None:
    document = yaml.safe_load(follow_ups.FILE.read_text())
    assert document["name"] == "pocket" and document["description"]
    assert {category.id for category in categories()} == set(ATTRIBUTES) - {"caution"}
    texts = [text for category in categories() for text in category.positive + category.negative]
    assert len(texts) == len(set(texts)) == 80


def test_exemplars_are_clear_and_say_so() -> None:
    document = yaml.safe_load((ROOT / "prompts" / "exemplars" / "pocket.yaml").read_text())
    for exemplar in document["exemplars"]:
        readings = [
            ORACLE.read(exemplar["conversation"], exemplar[side]) for side in ("better", "worse")
        ]
        said = read_rationale(exemplar["rationale"].format(better="A", worse="B"))
        for tag in exemplar["tags"]:
            assert [level_of(r.kind, tag) for r in readings if r] == [1.0, 0.0], exemplar
            assert said.levels == (1.0, 0.0) and said.attribute == tag


@pytest.mark.parametrize("name", ["balanced", "harmlessness"])
def test_each_principle_has_an_exemplar(name: str) -> None:
    exemplars = yaml.safe_load((ROOT / "prompts" / "exemplars" / "pocket.yaml").read_text())[
        "exemplars"
    ]
    principles = yaml.safe_load((ROOT / "constitutions" / f"{name}.yaml").read_text())["principles"]
    for principle in principles:
        assert [e for e in exemplars if set(e["tags"]) & set(principle["tags"])], principle["id"]


def test_levels_are_in_range() -> None:
    rng = random.Random(8)
    kinds = [draw_any_kind(rng.choice(world.tasks()), rng) for _ in range(500)]
    assert {level_of(kind, name) for kind in kinds for name in ATTRIBUTES} == {0.0, 0.5, 1.0}


def test_muon_equals_that_of_torch() -> None:
    """Up to the bfloat16 that torch multiplies in: each step moves a matrix of norm 16 by less than
    1.
    """
    generator = torch.Generator().manual_seed(9)
    for shape in ((16, 16), (32, 16), (16, 32)):
        ours, theirs = (torch.ones(shape, requires_grad=True) for _ in range(2))
        steppers = (
            Muon([ours], lr=0.1),
            torch.optim.Muon([theirs], lr=0.1, weight_decay=0.01, ns_steps=4),
        )
        for _ in range(3):
            ours.grad = torch.randn(shape, generator=generator)
            theirs.grad = ours.grad.clone()
            for stepper in steppers:
                stepper.step()
        assert (ours - torch.ones(shape)).abs().max() > 0.03
        torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0.01)
