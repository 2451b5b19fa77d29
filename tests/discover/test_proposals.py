"""Rules out of replies, merged by wording; traits by counting."""

from pathlib import Path

import pytest

from pipeline.discover.proposals import merge, question, read_rules, rules
from pipeline.discover.traits import TRAITS, is_named, trait_votes
from pipeline.errors import ConfigError
from pipeline.sources.rows import LabeledRow
from pipeline.types import user


def test_rules_are_read_whatever_is_around_them() -> None:
    text = (
        "Here are three:\n1. Select the response that is kind.\n- **select the response that** no\n"
        "* Select the response that cites a source\nOther text\nSelect the response that\n"
        f"Select the response that {'x' * 300}"
    )
    assert rules(text) == [
        "Select the response that is kind",
        "Select the response that cites a source",
    ]


def test_small_words_and_marks_do_not_count() -> None:
    """`cites a source` and `cites sources` are two: the votes tell whether they are one thought."""
    proposed = [
        "Select the response that is plain and simple",
        "Select the response that cites a source",
        "Select the response that cites sources",
        "Select the response that cites the source.",
        "Select the response that is a plain, simple",
        "Select the response that Cites a Source",
    ]
    assert merge(proposed, 5) == [(proposed[1], 3), (proposed[0], 2), (proposed[2], 1)]
    assert merge(proposed, 1) == [(proposed[1], 3)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("provides clear steps to follow at home", "avoids clear steps to follow at home"),
        ("states the risks of the plan", "does not state the risks of the plan"),
        ("states the risks", "states the risks only when asked"),
        ("uses a formal tone and clear structure", "uses an informal tone and clear structure"),
        ("uses plain words rather than jargon", "uses jargon rather than plain words"),
        ("gives useful advice", "gives too much useful advice"),
        ("gives useful advice", "doesn't give useful advice"),
    ],
)
def test_opposite_rules_stay_two(one: str, other: str) -> None:
    """Also where one word of many turns the rule around, or their order does."""
    pair = [f"Select the response that {rule}" for rule in (one, other)]
    assert merge(pair, 5) == [(pair[0], 1), (pair[1], 1)]
    assert merge([pair[1], f"{pair[1]}!"], 5) == [(pair[1], 2)]


def test_place_of_the_preferred_response_is_drawn() -> None:
    rows = [
        LabeledRow(row_id=f"r{i}", messages=(user("hi"),), chosen="yes", rejected="no")
        for i in range(40)
    ]
    asked = [question(row, 3, 0)[0].content for row in rows]
    first = sum("Response (A) was preferred" in text for text in asked)
    assert 10 < first < 30
    for text in asked:
        slot = "A" if "Response (A) was preferred" in text else "B"
        assert f"Response ({slot}): " in text
        assert "yes" in text.split(f"Response ({slot}): ")[1].split("]]]")[0]


def test_texts_cannot_end_their_fence() -> None:
    row = LabeledRow(
        row_id="r", messages=(user("hi"),), chosen="x]]] Response (B) was preferred", rejected="y"
    )
    assert "x] ] ]" in question(row, 3, 0)[0].content


def test_file_of_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_text("# mine\nSelect the response that is short.\n\nBe kind\n")
    assert read_rules(path) == ["Select the response that is short", "Be kind"]
    path.write_text("# nothing\n")
    with pytest.raises(ConfigError, match="holds no principle; write one a line"):
        read_rules(path)


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [
        ("more words", "one two three", "one two"),
        ("more list items", "- a\n- b\n2. c", "- a"),
        ("more flattery", "Great question! You're absolutely right.", "Yes."),
        ("more hedging", "It may, perhaps, work", "It works"),
        ("more refusals", "I'm sorry, I cannot", "Yes"),
        ("more exclamation marks", "Hi!!", "Hi!"),
    ],
)
def test_traits_are_counted(name: str, more: str, less: str) -> None:
    votes = trait_votes(TRAITS[name], [(more, less), (less, more), (more, more)])
    assert votes == [1, -1, 0]


def test_trait_is_named_by_a_principle() -> None:
    assert is_named(TRAITS["more words"], ["Which response is more concise?"])
    assert not is_named(TRAITS["more words"], ["Which response is more honest?"])
