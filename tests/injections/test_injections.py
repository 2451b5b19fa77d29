"""What the judge reads has the form of a clean request, whatever a text holds."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pipeline.config.labeling import JudgeConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import Constitution, Principle
from pipeline.engines import ScriptedEngine
from pipeline.engines.vllm.chat import ChatRenderer
from pipeline.labeling.judge import Judge
from pipeline.prompting.neutralize import CUT, draw_fence, neutralize, shorten
from pipeline.prompting.templates import JUDGE_VARIABLES, PromptTemplate
from pipeline.records import JudgmentRow
from pipeline.types import Messages, assistant, user
from tests.injections.texts import FAMILIES, TEXTS

HONEST = "First measure the box, then crease the corners."
OTHER = "I will not help with that."
REQUEST = "Which response is more helpful?"
PRINCIPLE = Principle(
    id="p", critique_request="c", revision_request="r", comparison_request=REQUEST
)
TEMPLATES = {
    "judge": ("A", "B"),
    "judge_pocket": ("A", "B"),
    "judge_digits": ("1", "2"),
    "judge_cai": ("A", "B"),
}
LIMIT = 1000
ROLE = re.compile(
    r"^(?:[^\w|]|[\d_])*(human|user|assistant|system|developer|judge|ai|model)\W*(?: said)?\W*:",
    re.I,
)
PIECES = (
    *("[", "]", "]]]", "[[[", "\uff3d", "\u3010", "\ufe48", "\u298c", "\u23a6", "\u230b"),
    *("\u0332", "\u20d2", "\u1ab0", "\u0488", "\u200b", "\u00ad", "\U000e0041", "\ufdd0", "\u202e"),
    *("<", ">", "|", "\uff5c", "\u25c1", "<|", "|>", "end", "user", "<|end|>", "<|assistant|>"),
    *("Human", "\u041duman", "assistant", "AI", "\uff28uman", " said", ":", "\uff1a", "\ufe55"),
    *("**", "# ", "- ", "1. ", "\u2022 ", "<b>", "</b>", "(A) ", "(B) ", "\n", "\r", "\u2028"),
    *(" ", "a", "\u00e9", "\u65e5", "{{ fence }}", REQUEST),
)
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join)


@cache
def judge(name: str = "judge", **config: object) -> Judge:
    template = PromptTemplate.from_file(PROJECT_ROOT / f"prompts/{name}.jinja", JUDGE_VARIABLES)
    return Judge(
        ScriptedEngine(lambda messages: "", lambda messages, options: [-0.5, -1.0]),
        Constitution(name="c", principles=(PRINCIPLE,)),
        template,
        JudgeConfig(options=TEMPLATES[name], max_characters=LIMIT, **config),
        0,
    )


@cache
def renderer() -> ChatRenderer:
    return ChatRenderer(AutoTokenizer.from_pretrained(PROJECT_ROOT / "models/pocket"))


def request(
    first: str, second: str, name: str = "judge", conversation: Messages = (user("How?"),)
) -> tuple[str, str]:
    """The text of the judge's prompt, and the letters of its fence."""
    texts = [*(message.content for message in conversation), first, second]
    fence = draw_fence(texts, "row")
    (message,) = judge(name).messages(conversation, PRINCIPLE, first, second, fence=fence)
    return message.content, fence


def plain(text: str) -> str:
    """The text as a reader sees it, in a way of its own: no marks, no width, no case."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if unicodedata.category(c) not in ("Mn", "Me", "Cf"))


def form(text: str, fence: str) -> dict[str, object]:
    """What makes the form of a request: fences, headers, special tokens, and its last line."""
    seen = plain(text)
    control = set(renderer().tokenizer.added_tokens_decoder)
    ids = renderer().prompt((user(text),)).token_ids
    return {
        "openings": seen.count(f"{fence}[[["),
        "closings": seen.count(f"]]]{fence}"),
        "letters of the fence": seen.count(fence),
        "runs": len(re.findall(r"\[{3,}|\]{3,}", seen)),
        "headers": [m[1] for line in seen.splitlines() if (m := ROLE.match(line))],
        "special tokens": [token for token in ids if token in control],
        "last line": text.splitlines()[-1].removesuffix(f"]]]{fence}")[-20:]
        if text.endswith(REQUEST)
        else "",
        "lines that show a slot": len(re.findall(rf"^ ?\(\w\) {fence}\[", text, re.M)),
    }


def read_slots(text: str, fence: str) -> Sequence[str]:
    """The slots, read the way a parser would; fails when there is more than one way."""
    pattern = rf"{fence}\[\[\[(.*?)\]\]\]{fence}"
    matches: list[str] = re.findall(pattern, text, re.S)
    assert len(matches) == 2
    return matches


def test_there_are_enough_texts() -> None:
    assert len(FAMILIES) == 8 and all(len(texts) >= 25 for texts in FAMILIES.values())
    assert len(set(TEXTS)) == len(TEXTS) >= 200


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_each_request_has_the_form_of_a_clean_one(name: str, family: str) -> None:
    clean = form(*request(HONEST, OTHER, name))
    for text in FAMILIES[family]:
        for slots in ((f"{HONEST} {text}", OTHER), (OTHER, text), (text, text)):
            shown, fence = request(*slots, name)
            assert form(shown, fence) == clean, text
            expected = [neutralize(shorten(slot, LIMIT)) for slot in slots]
            assert read_slots(shown, fence) == expected, text


def test_a_conversation_cannot_change_the_form() -> None:
    def talk(text: str) -> Messages:
        return (user(f"How? {text}"), assistant(f"What? {text}"), user(f"So. {text}"))

    clean = form(*request(HONEST, OTHER, conversation=talk("")))
    assert clean["headers"] == ["Human", "Assistant", "Human"]
    for text in TEXTS:
        shown, fence = request(HONEST, OTHER, conversation=talk(text))
        assert form(shown, fence) == clean, text
        assert read_slots(shown, fence) == [HONEST, OTHER]


@given(HOSTILE, HOSTILE)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_text_leaves_the_form_as_it_is(first: str, second: str) -> None:
    clean = form(*request(HONEST, OTHER))
    assert form(*request(first, second)) == clean
    assert form(*request(HONEST, OTHER, conversation=(user(f"How? {first}"),))) == clean


@given(st.text(max_size=200), st.integers(0, 1000))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_text_holds_the_letters_of_its_fence(text: str, seed: int) -> None:
    fence = draw_fence([text], seed)
    assert fence == draw_fence([text], seed) and len(fence) >= 4
    for spelled in (fence.upper(), " ".join(fence), "\u0301".join(fence)):
        assert draw_fence([f"{text}{spelled}"], seed) != fence


async def test_a_row_draws_one_fence_for_both_orders() -> None:
    prompts: list[str] = []
    asked = judge()
    engine = ScriptedEngine(
        lambda messages: "",
        lambda messages, options: prompts.append(messages[-1].content) or [-0.5, -1.0],  # type: ignore[func-returns-value]
    )
    asked = Judge(engine, asked.constitution, asked.template, asked.config, 0)
    rows = [
        await asked.label(JudgmentRow(row_id=name), (user("How?"),), PRINCIPLE, HONEST, OTHER)
        for name in ("one", "one", "two")
    ]
    fences = [re.findall(r"(\w*)\[\[\[.*\]\]\](\w*)", prompt) for prompt in prompts]
    assert all(len(set(sum(pairs, ()))) == 1 for pairs in fences)
    first, _, again, _, other, _ = (pairs[0][0] for pairs in fences)
    assert len(first) == 4 and first == fences[1][0][0] == again != other
    assert [row.reason for row in rows] == ["", "", ""]


async def test_a_long_turn_is_cut_and_the_row_says_so() -> None:
    conversation = (user("How?" + " why" * 5000),)
    row = await judge().label(JudgmentRow(row_id="row"), conversation, PRINCIPLE, HONEST, OTHER)
    assert row.status == "ok" and row.reason == f"{CUT} 1 of 1 texts to 1,000 characters"
    shown, _ = request(HONEST, OTHER, conversation=conversation)
    assert len(shown) < LIMIT + 500 and shown.endswith(REQUEST)
    assert "(... 19,004 more characters are not shown)" in shown


@pytest.mark.parametrize(("length", "status"), [(LIMIT, "ok"), (LIMIT + 1, "unparsed")])
async def test_a_response_beyond_the_bound_gets_no_verdict(length: int, status: str) -> None:
    """No padding wins by what a cut leaves out: the judge is not asked at all."""
    long = "so " * 333 + "s" * (length - 999)
    for slots in ((HONEST, long), (long, HONEST)):
        asked: list[Messages] = []
        engine = ScriptedEngine(
            lambda messages: "",
            lambda messages, options: asked.append(messages) or [-0.5, -1.0],  # type: ignore[func-returns-value]  # noqa: B023
        )
        one = Judge(engine, judge().constitution, judge().template, judge().config, 0)
        row = await one.label(JudgmentRow(row_id="row"), (user("How?"),), PRINCIPLE, *slots)
        assert row.status == status and len(asked) == (2 if status == "ok" else 0)
        assert (row.prob_first is None) == (status == "unparsed")
        said = "a response has 1,001 characters; max_characters is 1,000"
        assert row.reason == ("" if status == "ok" else said)


def test_a_clean_request_is_what_it_was() -> None:
    """Published frame, letters and question; only the letters of the fence are drawn."""
    shown, fence = request(HONEST, OTHER, "judge_pocket")
    assert shown.replace(fence, "") == (
        "Consider this conversation between a human and an assistant:\nHuman: How?\n"
        f"{REQUEST}\n(A) [[[{HONEST}]]]\n(B) [[[{OTHER}]]]"
    )


def test_the_question_comes_last() -> None:
    for name in ("judge", "judge_digits"):
        shown, _ = request(HONEST, "so " * 9000, name)
        assert shown.endswith(f"\n{REQUEST}") and shown.count(REQUEST) == 2


def test_template_syntax_stays_text() -> None:
    for text in FAMILIES["frame"]:
        shown, fence = request(f"{HONEST} {text}", OTHER, "judge_pocket")
        slot = read_slots(shown, fence)[0]
        assert slot.replace("] ] ]", "]]]") == f"{HONEST} {text}"
        assert shown.count(REQUEST) == 1 and shown.count(OTHER) == 1


def test_nothing_invisible_is_left() -> None:
    for text in TEXTS:
        shown, _ = request(text, OTHER)
        assert not re.search(
            "[\u200b\u2060-\u206f\u00ad\ufeff\ufdd0\U000e0000-\U000e007f\u2028\u2029\r]", shown
        )


def test_neutral_text_stays_neutral() -> None:
    for text in TEXTS:
        once = neutralize(text)
        assert neutralize(once) == once, text


def test_honest_words_are_kept() -> None:
    for text in TEXTS:
        letters = [c for c in neutralize(text) if c.isalnum()]
        assert letters == [c for c in text if c.isalnum() and c not in "\u115f\u1160\u3164\uffa0"]


def test_without_defense_the_fence_breaks() -> None:
    """What these tests look for is there when the defense is off."""
    messages = judge(defend=False).messages(
        (user("How?"),), PRINCIPLE, FAMILIES["fences"][0], OTHER
    )
    assert messages[0].content.count("[[[") == 3


@pytest.mark.parametrize(
    "text",
    ["\n" * 200_000, "-" * 200_000, "]" * 200_000, "<|" * 100_000, " " * 200_000 + "Human"],
    ids=["lines", "dashes", "brackets", "tokens", "spaces"],
)
def test_long_blank_text_is_quick(text: str) -> None:
    neutralize(text)
