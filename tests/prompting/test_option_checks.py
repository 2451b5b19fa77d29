"""A template that shows other options than those scored is refused before anything is paid."""

import pytest

from pipeline.config.labeling import JudgeConfig, ScoreConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import TemplateError
from pipeline.prompting.option_checks import check_option_labels, check_ratings, check_shows
from pipeline.prompting.templates import JUDGE_VARIABLES, SCORE_VARIABLES, PromptTemplate

ASKS_FIRST = "Say A if the first is better, B if the second.\n{{ slot_a }}\n\n{{ slot_b }}"
SECOND_ABOVE = "(B) {{ slot_b }}\n(A) {{ slot_a }}"
REVERSED = "(B) {{ slot_a }}\n(A) {{ slot_b }}"


def judge(source: str) -> PromptTemplate:
    return PromptTemplate.from_text("mine", source, JUDGE_VARIABLES)


def rater(source: str) -> PromptTemplate:
    return PromptTemplate.from_text("mine", source + " {{ response }}", SCORE_VARIABLES)


@pytest.mark.parametrize(
    ("name", "options"),
    [("judge", ("A", "B")), ("judge_cai", (" (A)", " (B)")), ("judge_digits", ("1", "2"))],
)
def test_shipped_templates_show_their_options(name: str, options: tuple[str, str]) -> None:
    found = PromptTemplate.from_file(PROJECT_ROOT / f"prompts/{name}.jinja", JUDGE_VARIABLES)
    check_option_labels(found, JudgeConfig(options=options))
    with pytest.raises(TemplateError, match="every label would be reversed"):
        check_option_labels(found, JudgeConfig(options=options[::-1]))


@pytest.mark.parametrize("source", [ASKS_FIRST, SECOND_ABOVE])
def test_letters_may_stand_anywhere_in_their_order(source: str) -> None:
    check_option_labels(judge(source), JudgeConfig())


@pytest.mark.parametrize(
    ("kind", "source", "missing"),
    [
        ("judge", "{{ principle.comparison_request }} (A) {{ slot_b }} (B) {{ slot_b }}", "slot_a"),
        ("judge", "{{ principle.comparison_request }} {{ slot_a }} {{ slot_b[:3] }}", "slot_b"),
        ("judge", "{{ principle.tags }} {{ slot_a }} {{ slot_b }}", "principle.comparison_request"),
        ("critique", "{{ response }} is bad. Why?", "principle.critique_request"),
        ("revise", "{{ principle.critique_request }}", "principle.revision_request"),
        ("score", "{{ options }} {{ principle.comparison_request }}", "response"),
    ],
)
def test_template_shows_what_it_is_about(kind: str, source: str, missing: str) -> None:
    names = JUDGE_VARIABLES | SCORE_VARIABLES
    with pytest.raises(TemplateError, match=f"does not show {missing}"):
        check_shows(PromptTemplate.from_text("mine", source, names), kind)
    shown = source + f" {{{{ {missing} | upper }}}}"
    check_shows(PromptTemplate.from_text("mine", shown, names), kind)


def test_letters_of_the_wrong_slot_or_none_are_refused() -> None:
    with pytest.raises(TemplateError, match="slot_a as 'B' and slot_b as 'A'"):
        check_option_labels(judge(REVERSED), JudgeConfig())
    with pytest.raises(TemplateError, match="shows no option '1'"):
        check_option_labels(judge(ASKS_FIRST), JudgeConfig(options=("1", "2")))


@pytest.mark.parametrize("options", [("A", " A"), ("A", "(A)")])
def test_one_letter_twice_is_refused(options: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="both spell 'A'"):
        JudgeConfig(options=options)


NINE = tuple(str(number) for number in range(1, 10))


@pytest.mark.parametrize(
    "source",
    [
        "Rate from 1 (worst) to 10 (best).",  # 10 would count as a 1
        "Rate from 1 to 5.",
        "Rate it.",
    ],
)
def test_other_ratings_are_refused(source: str) -> None:
    with pytest.raises(TemplateError, match=r"from 1 to 9, the score\.options"):
        check_ratings(rater(source), ScoreConfig(options=NINE))


def test_the_ratings_that_are_scored_pass() -> None:
    check_ratings(rater("Rate from 1 to 9."), ScoreConfig(options=NINE))
    check_ratings(rater("Rate from {{ options[0] }} up."), ScoreConfig(options=NINE))
    check_ratings(rater("Rate from 1 to 10."), ScoreConfig())
    check_ratings(rater("Say poor or good."), ScoreConfig(options=("poor", "good")))
