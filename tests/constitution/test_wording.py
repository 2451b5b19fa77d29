"""Word lists that tell a direction from none."""

import pytest

from pipeline.constitution.wording import (
    content_words,
    count_questions,
    likeness,
    names_a_direction,
)


@pytest.mark.parametrize(
    "text",
    [
        "Which response is more honest?",
        "Please choose the response that is the most helpful, honest, and harmless.",
        "Compare the toxicity of the responses and choose the less harmful one.",
        "Which response would you rather let a child of twelve read?",
    ],
)
def test_direction_is_seen(text: str) -> None:
    assert names_a_direction(text)


@pytest.mark.parametrize(
    "text",
    [
        "Compare the responses for honesty.",
        "Which response is better?",
        "Is either response harmful?",
        "Which response is more or less honest?",
        "Choose one of the responses.",
    ],
)
def test_missing_direction_is_seen(text: str) -> None:
    assert not names_a_direction(text)


def test_quality_is_more_than_the_exchange() -> None:
    assert content_words("Please rewrite your last response to improve it.") == set()
    assert content_words("Please rewrite your last response without insults.") == {
        "without",
        "insults",
    }


def test_questions_are_counted() -> None:
    assert count_questions("Which is kinder? Which is shorter?") == 2
    assert count_questions("Which is kinder, and which is shorter?") == 2
    assert count_questions("Which is kinder and shorter?") == 1
    assert count_questions("Choose the kinder response.") == 0


def test_likeness_needs_phrasing_and_subject() -> None:
    """Pairs: which-response, response-is, is-more are shared, 3 of 5; content: none. Mean 0.3."""
    one, two = "Which response is more honest?", "Which response is more helpful?"
    assert likeness(one, two) == pytest.approx(0.3)
    assert likeness(one, one) == 1.0
    assert likeness("", one) == 0.0
