"""First-token lists of endpoints: what counts for an option, what bounds it, what is unreadable."""

import math

import pytest

from pipeline.engines.base import finish_reason
from pipeline.engines.openai.top_tokens import scores_from_top_tokens
from pipeline.errors import EngineError, VerdictError
from pipeline.soft_labels import expected_rating, prob_slot_a

LETTERS = ("A", "B")


@pytest.mark.parametrize("other", ["A)", "\u2581A", " A", "A.", "\u0120A", "A\n"])
def test_other_spellings_of_an_option_make_the_verdict_unreadable(other: str) -> None:
    """Without a look at them the 0.02 of the other option would win."""
    top = [(other, math.log(0.9)), ("B", math.log(0.02)), ("A", math.log(0.01))]
    scores = scores_from_top_tokens(LETTERS, top)
    assert scores.unreadable == (
        f"the model writes {other!r} with probability 0.9, and the options ['A', 'B'] as given "
        "with 0.03"
    )
    assert scores.logprobs == (math.log(0.01), math.log(0.02))
    with pytest.raises(VerdictError, match="the model writes"):
        prob_slot_a(scores)


def test_first_tokens_are_named_when_no_option_is_listed() -> None:
    top = [("The", math.log(0.6)), ("I", math.log(0.25)), ("It", math.log(0.1)), ("x", -5.0)]
    scores = scores_from_top_tokens(LETTERS, top)
    assert scores.unreadable == (
        "the model begins with 'The' (0.6), 'I' (0.25), 'It' (0.1), not with one of ['A', 'B']"
    )
    with pytest.raises(VerdictError, match="the model begins with 'The'"):
        expected_rating(scores)


def test_a_little_of_another_spelling_changes_nothing() -> None:
    scores = scores_from_top_tokens(
        LETTERS,
        [
            ("A", math.log(0.6)),
            ("B", math.log(0.3)),
            (" A", math.log(0.02)),
            ("As", math.log(0.05)),
        ],
    )
    assert scores.logprobs == pytest.approx([math.log(0.6), math.log(0.3)])
    assert scores.upper_bound is None and not scores.unreadable


def test_ratings_are_no_spellings_of_each_other() -> None:
    options = tuple(str(n) for n in range(1, 11))
    top = [(option, math.log(0.09)) for option in options]
    assert scores_from_top_tokens(options, top).logprobs == pytest.approx([math.log(0.09)] * 10)


def test_tokens_of_one_text_add_up() -> None:
    """0.30 and 0.25 are 0.55 for A, against 0.45 for B."""
    scores = scores_from_top_tokens(
        LETTERS, [("A", math.log(0.30)), ("A", math.log(0.25)), ("B", math.log(0.45))]
    )
    assert prob_slot_a(scores).prob_a == pytest.approx(0.55)


@pytest.mark.parametrize("floor", [-9999.0, -math.inf])
def test_the_floor_of_an_endpoint_bounds_nothing(floor: float) -> None:
    """B is absent: at most 0.05 as the least listed token, and no bound where A stands alone."""
    scores = scores_from_top_tokens(
        LETTERS, [("A", math.log(0.9)), ("x", math.log(0.05)), ("y", floor)]
    )
    assert scores.logprobs[1] is None and scores.upper_bound == pytest.approx(math.log(0.05))
    for top in ([("A", 0.0), ("x", floor)], [("A", 0.0), ("B", floor)]):
        scores = scores_from_top_tokens(LETTERS, top)
        assert scores.logprobs == (0.0, None) and scores.upper_bound is None
        with pytest.raises(VerdictError, match="gave no bound"):
            prob_slot_a(scores)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "stop"),
        ("eos_token", "stop"),
        ("length", "length"),
        ("content_filter", "length"),
        ("repetition", "length"),
    ],
)
def test_how_a_reply_ended(said: str, reason: str) -> None:
    assert finish_reason(said) == reason


@pytest.mark.parametrize("said", ["abort", "error", "tool_calls", None, "odd"])
def test_a_reply_that_did_not_end_is_no_reply(said: str | None) -> None:
    with pytest.raises(EngineError, match="no finished reply"):
        finish_reason(said)
