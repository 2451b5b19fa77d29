"""First-token lists of endpoints: what counts for an option, what bounds it, what is unreadable."""

import math

import pytest

from pipeline.engines.base import finish_reason
from pipeline.engines.openai.top_tokens import scores_from_top_tokens
from pipeline.errors import EngineError, VerdictError
from pipeline.soft_labels import prob_slot_a
from pipeline.types import OptionScores

LETTERS = ("A", "B")


@pytest.mark.parametrize("other", ["A)", "\u2581A", " A", "A.", "\u0120A", "A\n"])
def test_other_spellings_of_an_option_make_the_verdict_unreadable(other: str) -> None:
    """Without a look at them the 0.02 of the other option would win."""
    top = [(other, math.log(0.9)), ("B", math.log(0.02)), ("A", math.log(0.01))]
    with pytest.raises(VerdictError, match="the judge writes .*but the options are"):
        scores_from_top_tokens(LETTERS, top)


def test_a_little_of_another_spelling_changes_nothing() -> None:
    values, bound = scores_from_top_tokens(
        LETTERS,
        [
            ("A", math.log(0.6)),
            ("B", math.log(0.3)),
            (" A", math.log(0.02)),
            ("As", math.log(0.05)),
        ],
    )
    assert values == pytest.approx([math.log(0.6), math.log(0.3)]) and bound is None


def test_ratings_are_no_spellings_of_each_other() -> None:
    options = tuple(str(n) for n in range(1, 11))
    top = [(option, math.log(0.09)) for option in options]
    assert scores_from_top_tokens(options, top)[0] == pytest.approx([math.log(0.09)] * 10)


def test_tokens_of_one_text_add_up() -> None:
    """0.30 and 0.25 are 0.55 for A, against 0.45 for B."""
    values, _ = scores_from_top_tokens(
        LETTERS, [("A", math.log(0.30)), ("A", math.log(0.25)), ("B", math.log(0.45))]
    )
    assert prob_slot_a(OptionScores(values, None, 0)).prob_a == pytest.approx(0.55)


@pytest.mark.parametrize("floor", [-9999.0, -math.inf])
def test_the_floor_of_an_endpoint_bounds_nothing(floor: float) -> None:
    """B is absent: at most 0.05 as the least listed token, and no bound where A stands alone."""
    values, bound = scores_from_top_tokens(
        LETTERS, [("A", math.log(0.9)), ("x", math.log(0.05)), ("y", floor)]
    )
    assert values[1] is None and bound == pytest.approx(math.log(0.05))
    for top in ([("A", 0.0), ("x", floor)], [("A", 0.0), ("B", floor)]):
        values, bound = scores_from_top_tokens(LETTERS, top)
        assert values == (0.0, None) and bound is None
        with pytest.raises(VerdictError, match="gave no bound"):
            prob_slot_a(OptionScores(values, bound, 0))


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
