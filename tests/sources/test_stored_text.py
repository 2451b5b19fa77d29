"""Structure stored as text: read as what it stands for, or the row is dropped with the reason."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.sources.config import PairsSource
from pipeline.sources.conversations import parse_messages
from pipeline.sources.pairs import import_pairs
from pipeline.sources.rows import Imported
from pipeline.sources.stored_text import MARKUP, STORED, THOUGHT, TRANSCRIPT, UnusableRow
from pipeline.types import Message, assistant, user
from tests.sources.builders import write_lines

GOOD = {"prompt": "Q", "chosen": "yes", "rejected": "no"}


def read(tmp_path: Path, *records: dict[str, Any], **values: Any) -> Imported:
    path = write_lines(tmp_path / "a.jsonl", GOOD, *records)
    return import_pairs(PairsSource.model_validate({"name": "s", "path": path, **values}))


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ('["What is rye?"]', ("What is rye?",)),
        ("['Is it late?', \"It's 9?\"]", ("Is it late?", "It's 9?")),
        ('[{"role": "user", "content": "Hi"}]', ("Hi",)),
        ("{'messages': [{'from': 'human', 'value': 'Hi'}]}", ("Hi",)),
        ('"[\\"Twice\\"]"', ("Twice",)),
        ("Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", ("a", "b", "c")),
        ("\n\nHuman: a\n\nAssistant:", ("a",)),
        ("User: a\nAI: b\nUser: c\nAI: ", ("a", "b", "c")),
        ("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", ("a",)),
        (
            "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nc\n<extra_id_1>Assistant\n",
            ("a", "b", "c"),
        ),
    ],
)
def test_clear_structure_is_read(text: str, turns: tuple[str, ...]) -> None:
    assert tuple(turn.content for turn in parse_messages(text, "x")) == turns


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("['How?' 'And then?']", STORED),  # NumPy prints no commas
        ("array(['a', 'b'], dtype=object)", STORED),
        ('["A cell that was cut', STORED),
        ('{"question": "Where?"}', STORED),
        ('["a", 3]', STORED),
        ("['a', None]", "an empty turn"),
        ("Be kind.\n\nHuman: a\n\nAssistant:", TRANSCRIPT),
        ("Human: a\n\nAssistant: b\nHuman: c\n\nAssistant:", TRANSCRIPT),
        ("Human: a\n\nHuman: b\n\nAssistant:", TRANSCRIPT),
        ("A chat. USER: hi ASSISTANT:", TRANSCRIPT),
        ("### Instruction:\nDo it.\n\n### Response:\n", TRANSCRIPT),
        ("<human>: hi\n<bot>:", TRANSCRIPT),
        ("[INST] Hi [/INST]", MARKUP),
        ("<\uff5cUser\uff5c>hi<\uff5cAssistant\uff5c>", MARKUP),
        ("Fill <extra_id_0> in", MARKUP),
        ("a\n<extra_id_1>User\n", MARKUP),
        ("So it is.</s>", MARKUP),
        ("<s> So it is.", MARKUP),
        ("<bos>So", MARKUP),
        ("So it is.[|endofturn|]", MARKUP),
        ("So it is.[e~[", MARKUP),
        ("<unused94>thought\nHm.<unused95>So", MARKUP),
        ('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', MARKUP),
        ('[TOOL_CALLS][{"name": "f", "arguments": {}}]', MARKUP),
        ('[{"role": "user", "content": "a", "content": "b"}]', STORED),
        ("[{'role': 'user', 'content': 'a', 'content': 'b'}]", STORED),
        ("<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", MARKUP),
        ("<|im_start|>user\na <|im_start|> b<|im_end|>", MARKUP),
    ],
)
def test_unclear_structure_is_no_text(text: str, reason: str) -> None:
    with pytest.raises(UnusableRow) as caught:
        parse_messages(text, "x")
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3]",
        "(3, 4)",
        "[link](https://x) says so",
        '{"a": 1} What is this?',
        "He said: [sic]",
        "What is an AI: a tool or a friend?",
        "Note: the user: admin",
        "x < 3 | y > 4",
        "Old <s>price</s>",
        "<s>Old price</s> and new",
        "What does </s> end?",
        "A <human> being: tell me",
    ],
)
def test_plain_text_stays_text(text: str) -> None:
    assert parse_messages(text, "x") == (user(text),)


def test_last_turn_of_a_transcript_is_the_prompt(tmp_path: Path) -> None:
    prompt = "\n\nHuman: My cat sneezes.\n\nAssistant: Since when?\n\nHuman: Monday.\n\nAssistant:"
    record = {"prompt": prompt, "chosen": " See a vet.", "rejected": " Buy a dog."}
    row = read(tmp_path, record).rows[1]
    assert row.messages == (user("My cat sneezes."), assistant("Since when?"), user("Monday."))
    assert (row.chosen, row.rejected) == ("See a vet.", "Buy a dog.")


def test_whole_transcripts_as_responses(tmp_path: Path) -> None:
    head = "\n\nHuman: Two plus two?\n\nAssistant:"
    row = read(tmp_path, {"chosen": f"{head} Four.", "rejected": f"{head} Five."}).rows[1]
    assert (row.messages, row.chosen, row.rejected) == ((user("Two plus two?"),), "Four.", "Five.")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chosen": '["yes"]'}, STORED),
        ({"prompt": '["Q"]'}, STORED),
        ({"rejected": '{"a": "b"}'}, STORED),
        ({"chosen": "Yes.\n\nHuman: Thanks\n\nAssistant: Sure"}, TRANSCRIPT),
        ({"chosen": "Assistant: Yes."}, TRANSCRIPT),
        ({"chosen": "<think>Hm.</think> Yes."}, THOUGHT),
        ({"chosen": "[THINK]Hm.[/THINK]Yes."}, THOUGHT),
        ({"chosen": "Yes.<|im_end|>"}, MARKUP),
    ],
)
def test_one_cell_with_structure_drops_the_row(
    tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    assert read(tmp_path, {**GOOD, **changes}).record.reasons == {reason: 1}


def test_battles_with_lists_in_cells(tmp_path: Path) -> None:
    """One-hot winners; turns before the last must agree; a failed turn is no text."""
    path = tmp_path / "battles.csv"
    path.write_text(
        "q,a,b,wa,wb,wt,id\n"
        '"[""Hi"", ""More?""]","[""Yo"", ""Yes.""]","[""Yo"", ""No.""]",0,1,0,1\n'
        '"[""Hi"", ""More?""]","[""Yo"", ""Yes.""]","[""Hey"", ""No.""]",1,0,0,2\n'
        '"[""Hi""]","[""Yo""]","[null]",1,0,0,3\n'
        '"[""Hi""]","[""Yo""]","[""Hey""]",0,0,1,4\n'
        '"[""Hi""]","[""Yo""]","[""Hey""]",0,0,0,5\n'
        '"[""Hi""]","[""Yo""]","[""Hey""]",1,1,0,6\n'
        '"[""Hi""]","[""Yo""]","[""Hey""]",,1,0,7\n'
        '"[""Hi"", ""More?""]","[""Yo""]","[""Hey""]",1,0,0,8\n',
        encoding="utf-8",
    )
    label = {"first": "wa", "second": "wb", "tie": "wt"}
    columns = {"prompt": "q", "first": "a", "second": "b", "label": label}
    values = {"name": "arena", "path": path, "columns": columns}
    imported = import_pairs(PairsSource.model_validate(values))
    (row,) = imported.usable
    assert row.messages == (user("Hi"), assistant("Yo"), user("More?"))
    assert (row.chosen, row.rejected, row.source_index) == ("No.", "Yes.", 2)
    assert imported.record.reasons == {
        "an empty turn": 1,
        "no outcome is marked": 1,
        "several outcomes are marked": 1,
        "the label is missing": 1,
        "the prompts of the two responses differ": 1,
        "tie": 1,
        "turns do not alternate": 1,
    }
    assert imported.record.unread == ("id",)


def test_tie_in_a_column_that_is_not_mapped(tmp_path: Path) -> None:
    """One column cannot say three things: 0 is the second response or a tie."""
    path = tmp_path / "battles.csv"
    path.write_text("prompt,a,b,left_won,is_tie\nQ,x,y,1,0\nR,x,y,0,1\nS,x,y,0,0\n")
    columns = {"first": "a", "second": "b", "label": "left_won"}
    declared = {"first": [1], "second": [0]}
    values = {"name": "s", "path": path, "columns": columns, "values": declared}
    imported = import_pairs(PairsSource.model_validate(values))
    assert [row.source_index for row in imported.usable] == [2, 4]
    assert imported.record.reasons == {"a column that is not mapped marks a tie": 1}
    assert imported.record.unread_evidence == ("is_tie",)


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"content": "I look.", "tool_calls": [{"id": "1"}]}, "a tool call"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "a tool call"),
        ({"tool_calls": [{"id": "1"}]}, "a tool call"),
        ({"content": "I look.", "function_call": {"name": "f"}}, "a tool call"),
        ({"content": None}, "a message without text (null)"),
        ({"content": "a", "name": "Ann"}, "a speaker with a name"),
        ({"content": "a", "reasoning_content": "Hm."}, "reasoning beside the text"),
        ({"content": "a", "mood": "sad"}, "a message with 'mood' besides role and text"),
        ({"content": "<think>a</think>b"}, THOUGHT),
        (
            {"content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "a part of a message that is not text (image_url)",
        ),
    ],
)
def test_message_that_is_more_than_text_drops_the_row(
    tmp_path: Path, turn: dict[str, Any], reason: str
) -> None:
    record = {**GOOD, "chosen": [{"role": "assistant", **turn}]}
    assert read(tmp_path, record).record.reasons == {reason: 1}
    middle = [{"role": "user", "content": "Q"}, {"role": "assistant", **turn}]
    record = {**GOOD, "prompt": [*middle, {"role": "user", "content": "R"}]}
    assert read(tmp_path, record).record.reasons == {reason: 1}


def test_turn_of_a_tool_and_offered_tools_drop_the_row(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "tool", "content": "7", "tool_call_id": 1}]
    imported = read(
        tmp_path,
        {**GOOD, "prompt": turns},
        {**GOOD, "tools": [{"type": "function"}]},
        {**GOOD, "tools": []},
        {**GOOD, "images": ["x.png"]},
        {**GOOD, "rejected": None},
        {**GOOD, "prompt": None},
    )
    assert imported.record.reasons == {
        "a message without text (null)": 1,
        "a turn of a tool": 1,
        "an image": 1,
        "no rejected (null)": 1,
        "tools are offered": 1,
    }


def test_parts_of_text_are_joined_and_empty_extras_ignored() -> None:
    parts = [{"type": "text", "text": "Name a"}, {"type": "text", "text": " knot."}]
    turn = {"role": "developer", "content": "Be brief."}
    told = {"role": "user", "content": [*parts, {"type": "text", "text": "Now."}], "name": None}
    assert parse_messages([turn, told], "x") == (
        Message("system", "Be brief."),
        user("Name a knot.\nNow."),
    )
