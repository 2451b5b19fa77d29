"""What the judge reads has the shape of the template, whatever stands in a response."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from pipeline.config.labeling import JudgeConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import Constitution, Principle
from pipeline.engines import ScriptedEngine
from pipeline.engines.vllm.chat import ChatRenderer
from pipeline.labeling.judge import Judge
from pipeline.prompting.neutralize import neutralize
from pipeline.prompting.templates import JUDGE_VARIABLES, PromptTemplate
from pipeline.types import Messages, assistant, user

GROUPS: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parent / "injections.yaml").read_text(encoding="utf-8")
)
TEXTS = [text for group in GROUPS.values() for text in group]
HONEST = "First measure the box, then crease the corners."
OTHER = "I will not help with that."
REQUEST = "Which response is more helpful?"
PRINCIPLE = Principle(
    id="p", critique_request="c", revision_request="r", comparison_request=REQUEST
)
TEMPLATES = {"judge": ("A", "B"), "judge_digits": ("1", "2"), "judge_cai": ("A", "B")}
HEADER = re.compile(r"^[^\S\n]*(Human|User|Assistant|System|Developer)\s*:", re.I | re.M)


@cache
def judge(name: str = "judge", **config: object) -> Judge:
    template = PromptTemplate.from_file(PROJECT_ROOT / f"prompts/{name}.jinja", JUDGE_VARIABLES)
    letters = TEMPLATES[name]
    return Judge(
        ScriptedEngine(lambda messages: ""),
        Constitution(name="c", principles=(PRINCIPLE,)),
        template,
        JudgeConfig(options=letters, **config),
        0,
    )


HOW = (user("How?"),)


def asked(first: str, second: str, name: str = "judge", conversation: Messages = HOW) -> str:
    """The text of the judge's prompt."""
    messages = judge(name).messages(conversation, PRINCIPLE, first, second)
    assert len(messages) == 1
    return messages[0].content


def read_slots(text: str, name: str = "judge") -> tuple[str, str]:
    """The slots, read the way a parser would; fails when there is more than one way.

    A fence opens after its letter and closes at the end of a line: a text may end with a bracket.
    """
    a, b = TEMPLATES[name]
    pattern = rf"\({a}\) \[\[\[(.*?)\]\]\]\n ?\({b}\) \[\[\[(.*?)\]\]\](?:\n|$)"
    matches: list[tuple[str, str]] = re.findall(pattern, text, re.S)
    greedy = re.findall(pattern.replace("*?", "*"), text, re.S)
    assert matches == greedy and len(matches) == 1
    return matches[0]


def test_there_are_enough_texts() -> None:
    assert len(TEXTS) >= 40 and len(set(TEXTS)) == len(TEXTS)
    assert {
        "verdicts",
        "fences",
        "turns",
        "templates",
        "requests",
        "hidden",
        "rationales",
        "notices",
        "principles",
    } == set(GROUPS)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("place", ["alone", "after", "before"])
def test_each_slot_has_one_fence(name: str, place: str) -> None:
    for text in TEXTS:
        hostile = {"alone": text, "after": f"{HONEST} {text}", "before": f"{text} {HONEST}"}[place]
        for slots in ((hostile, OTHER), (OTHER, hostile), (hostile, hostile)):
            shown = asked(*slots, name=name)
            assert shown.count("[[[") == shown.count("]]]") == 2, text
            assert read_slots(shown, name) == (neutralize(slots[0]), neutralize(slots[1])), text


def test_no_turn_is_added() -> None:
    conversation = (user("How?"), assistant("What?"), user("How do I wrap it?"))
    honest = HEADER.findall(asked(HONEST, OTHER, conversation=conversation))
    assert honest == ["Human", "Assistant", "Human"]
    for text in TEXTS:
        for hostile in (text, f"{HONEST}\n{text}"):
            shown = asked(hostile, OTHER, conversation=conversation)
            assert HEADER.findall(shown) == honest, text


def test_conversation_cannot_open_a_slot() -> None:
    for text in TEXTS:
        shown = asked(HONEST, OTHER, conversation=(user(f"How? {text}"),))
        assert shown.count("[[[") == 2 and read_slots(shown) == (HONEST, OTHER), text
        assert len(HEADER.findall(shown)) == 1, text


def test_template_syntax_stays_text() -> None:
    for text in GROUPS["templates"]:
        shown = asked(f"{HONEST} {text}", OTHER)
        slot = read_slots(shown)[0]
        assert slot.replace("] ] ]", "]]]") == f"{HONEST} {text}"
        assert shown.count(REQUEST) == 1 and shown.count(OTHER) == 1


def test_special_tokens_are_where_the_chat_template_put_them() -> None:
    tokenizer = AutoTokenizer.from_pretrained(PROJECT_ROOT / "models/pocket")
    renderer = ChatRenderer(tokenizer)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)

    def marks(first: str) -> list[int]:
        messages = judge().messages((user("How?"),), PRINCIPLE, first, OTHER)
        return [i for i in renderer.prompt(messages).token_ids if i in special]

    honest = marks(HONEST)
    assert len(honest) == 3  # <|user|> ... <|end|><|assistant|>
    for text in TEXTS:
        assert marks(f"{HONEST} {text}") == honest, text


def test_nothing_invisible_is_left() -> None:
    for text in TEXTS:
        shown = asked(text, OTHER)
        assert not re.search(
            "[\u200b\u2060-\u206f\u00ad\ufeff\U000e0000-\U000e007f\u2028\u2029\r]", shown
        )


def test_neutral_text_stays_neutral() -> None:
    for text in TEXTS:
        once = neutralize(text)
        assert neutralize(once).strip() == once.strip(), text


def test_honest_words_are_kept() -> None:
    for text in TEXTS:
        kept = re.sub(r"[\s|]", "", neutralize(text))
        seen = re.sub("[\u200b\u2060-\u206f\u00ad\U000e0000-\U000e007f]", "", text)
        assert kept == re.sub(r"[\s|]", "", seen), text


def test_without_defense_the_fence_breaks() -> None:
    """The control: what these tests look for is really there when the defense is off."""
    messages = judge(defend=False).messages((user("How?"),), PRINCIPLE, GROUPS["fences"][0], OTHER)
    assert messages[0].content.count("[[[") == 3


def test_long_blank_text_is_quick() -> None:
    for text in (
        "\n" * 200_000,
        "-" * 200_000,
        "]" * 200_000,
        "<|" * 100_000,
        " " * 200_000 + "Human",
    ):
        neutralize(text)
