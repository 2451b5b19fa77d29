"""What enters a row as a reply: whole characters and no thought; nothing is no reply."""

import pytest

from pipeline.engines.reply import make_generation, split_thought, whole_text
from pipeline.engines.scripted import ScriptedEngine
from pipeline.errors import NoReplyError
from pipeline.types import SamplingParams, user

HEALTHY = (
    "Plain.",
    " Leading space stays",
    "Use `<think>` and `</think>` in the template.",
    "The tag </think> ends a thought.",
    "analysis of the problem: final answer",
    "I think <b>so</b>\n",
    "A 🐈 and 中文",
)


@pytest.mark.parametrize("text", HEALTHY)
def test_a_healthy_text_keeps_every_byte(text: str) -> None:
    assert make_generation(text, "stop", 1, 1).text == text


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nlong\n\nthought</think>\n\nFine.",
        "\n<THINK>x</THINK>Fine.",
        "<think></think>\n<think>two</think>\nFine.",
        "<thinking>a <think> b</thinking> Fine.",
        "Hm, the user wants\nan answer.\n</think>\n\nFine.",
        "</think>\n\nFine.",
        "[THINK]plan[/THINK]Fine.",
        "◁think▷plan◁/think▷Fine.",
        "<|channel|>analysis<|message|>plan<|end|><|start|>assistant<|channel|>final<|message|>Fine.",
        "analysisUser asks something.assistantfinalFine.",
        "<|channel>thought\nplan<channel|>Fine.",
    ],
)
def test_a_thought_is_taken_off(text: str) -> None:
    assert split_thought(text)[1] == "Fine."


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("<think>\nOne.\n\nTwo.\n</think>\n\nFine.", "One.\n\nTwo."),
        ("<think></think>\n\nFine.", ""),
        ("Fine.", ""),
        ("Analysis first.\n</think>\n\nFine.", "Analysis first."),
        ("[THINK]plan[/THINK]Fine.", "plan"),
        (
            "<|channel|>analysis<|message|>plan<|end|><|start|>assistant<|channel|>final<|message|>"
            "Fine.",
            "plan",
        ),
        ("analysisUser asks.assistantfinalFine.", "User asks."),
    ],
)
def test_a_thought_is_kept_beside_the_text(text: str, thought: str) -> None:
    generation = make_generation(text, "stop", 1, 9, count_thought=lambda t: len(t.split()) or None)
    assert (generation.text, generation.thought) == ("Fine.", thought)
    assert generation.num_thought_tokens == (len(thought.split()) or None)
    assert generation.costs()["thoughts"] == ((thought,) if thought else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "\u3000",
        "\u200b\u2060",
        "\a\x1b",
        "<think>never ends",
        "<think>a</think>\n",
        "a\n</think>\n",
    ],
)
async def test_no_text_is_no_reply(text: str) -> None:
    engine = ScriptedEngine(lambda messages, seed: text)
    with pytest.raises(NoReplyError, match="in place of a reply"):
        await engine.generate((user("q"),), SamplingParams(), seed=1, request_id="r")


@pytest.mark.parametrize(
    ("sent", "remedy"),
    [
        ("refusal", "in other words"),
        ("tool_calls and reasoning_content", "server's tools"),
        ("reasoning_content", "raise max_tokens"),
        ("", "raise max_tokens"),
    ],
)
def test_the_remedy_fits_what_was_sent(sent: str, remedy: str) -> None:
    with pytest.raises(NoReplyError, match=remedy):
        make_generation("", "stop", 1, 1, instead=sent)


def test_half_a_pair_is_replaced_and_a_whole_one_is_joined() -> None:
    assert whole_text("x \udc36 y \ud83d") == "x \ufffd y \ufffd"
    assert whole_text("\ud83d\ude00") == "😀"
