"""First-token lists of endpoints: what counts for an option, what bounds it, what is unreadable."""

import math

import pytest

from pipeline.engines.base import finish_reason
from pipeline.engines.openai.top_tokens import scores_from_top_tokens
from pipeline.errors import ConfigError, EngineError, VerdictError
from pipeline.soft_labels import expected_rating, prob_slot_a
from pipeline.types import OptionScores

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


@pytest.mark.parametrize(
    "other",
    [
        *(
            "b",
            "(B",
            "**B**",
            '"B',
            "\uff22",
            "\u010aB",
            "\u2581b",
            "[[b",
            "\u24b7",
            "'B'.",
            "<b>B",
        ),
        *("B, as", "**", "[[", "(", '"', "\n", "\u2581", "\u0120\u0120", "<think>", "<", "```"),
        *("So", "Both", "\u25c1"),
    ],
)
def test_what_is_left_of_the_probability_never_decides(other: str) -> None:
    """0.85 say B in another form, or nothing yet; the 0.10 of the letters would say A."""
    top = [(other, math.log(0.85)), ("A", math.log(0.07)), ("B", math.log(0.03))]
    with pytest.raises(VerdictError, match="the model writes"):
        prob_slot_a(scores_from_top_tokens(LETTERS, top), min_option_mass=0.05)


def test_a_large_minority_in_another_case_is_unreadable() -> None:
    """B 0.44 and B 0.20 are 64 % for B, and the letters as asked say A."""
    top = [("b", math.log(0.44)), ("A", math.log(0.35)), ("B", math.log(0.2))]
    assert scores_from_top_tokens(LETTERS, top).unreadable


def test_words_after_the_letter_in_a_list_change_nothing() -> None:
    top = [("A", math.log(0.6)), ("B", math.log(0.2)), ("Both", math.log(0.1)), ("As", -3.0)]
    assert not scores_from_top_tokens(LETTERS, top).unreadable


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


def test_listed_beginning_of_an_absent_option_is_in_doubt() -> None:
    """'10' may be one token that is not listed, or begin with the listed '1'."""
    ratings = ["1", "2", "10"]
    with pytest.raises(ConfigError, match=r"'1' begins option '10'.* may stand for both"):
        scores_from_top_tokens(ratings, [("2", -0.5), ("1", -1.0)])
    unlikely = math.log(0.005)
    scores = scores_from_top_tokens(ratings, [("2", -0.1), ("1", unlikely)])
    assert scores == OptionScores((None, -0.1, None), unlikely)
    scores = scores_from_top_tokens(ratings, [("10", -0.5), ("1", -1.0), ("2", -4.0)])
    assert scores == OptionScores((-1.0, -4.0, -0.5))


def test_absent_option_gets_a_bound() -> None:
    """B is not among the three listed tokens, so it is at most as probable as the third."""
    top = [("A", -0.1), ("I", -3.0), ("The", -5.0)]
    assert scores_from_top_tokens(["A", "B"], top) == OptionScores((-0.1, None), -5.0)
    assert scores_from_top_tokens(["A", "I"], top) == OptionScores((-0.1, -3.0))


def test_option_of_several_tokens_is_refused() -> None:
    """The model begins both options with ' (': its probability says nothing about either."""
    with pytest.raises(ConfigError, match="first tokens only"):
        scores_from_top_tokens([" (A)", " (B)"], [(" (", -0.01), ("A", -6.0)])


def test_unlikely_beginning_only_widens_the_bound() -> None:
    """'Y' at 0.5 % may begin 'Yes': the bound is its log-probability, not that of the last."""
    top = [("No", -0.1), ("Y", math.log(0.005)), ("x", -9.0)]
    scores = scores_from_top_tokens(["Yes", "No"], top)
    assert scores.logprobs == (None, -0.1)
    assert scores.upper_bound == pytest.approx(math.log(0.005))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "stop"),
        ("eos_token", "stop"),
        ("length", "length"),
        ("content_filter", "length"),
        ("model_length", "length"),
        ("repetition", "length"),
    ],
)
def test_how_a_reply_ended(said: str, reason: str) -> None:
    assert finish_reason(said) == reason


@pytest.mark.parametrize("said", ["abort", "error", "tool_calls", None, "odd"])
def test_a_reply_that_did_not_end_is_no_reply(said: str | None) -> None:
    with pytest.raises(EngineError, match="not a finished reply"):
        finish_reason(said)
