"""The shapes of an export, each read back by the rules of the program that it is for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from datasets import load_dataset

from pipeline.cli.app import export
from pipeline.constitution import load_constitution
from pipeline.data.export import export_preference
from pipeline.data.json_lines import SHAPES, export_lines
from tests.run.builders import CONFIG, whole_run

Line = dict[str, Any]
SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [
    {"role": "user", "content": 'Hi \u2028 "you"'},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why?"},
]
ROW: Line = {
    "row_id": "r1",
    "messages": [SYSTEM, *TALK],
    "chosen": "Because.",
    "rejected": "No\nidea.",
    "soft_label": 0.9,
}
Triple = tuple[list[dict[str, str]], str, str]


def gemini(line: Line) -> Triple:
    """Back to messages, chosen and rejected."""
    roles = {"user": "user", "model": "assistant"}
    texts = {each["score"]: each["completion"]["parts"][0]["text"] for each in line["completions"]}
    assert {each["completion"]["role"] for each in line["completions"]} == {"model"}
    parts = line.get("system_instruction", {"parts": []})["parts"]
    messages = [{"role": "system", "content": part["text"]} for part in parts]
    messages += [
        {"role": roles[turn["role"]], "content": turn["parts"][0]["text"]}
        for turn in line["contents"]
    ]
    return messages, texts[1], texts[0]


def nova(line: Line) -> Triple:
    """Back to messages, chosen and rejected."""
    *turns, last = line["messages"]
    texts = {each["preferenceLabel"]: each["content"][0]["text"] for each in last["candidates"]}
    messages = [{"role": "system", "content": part["text"]} for part in line.get("system", [])]
    messages += [{"role": t["role"], "content": t["content"][0]["text"]} for t in turns]
    return messages, texts["preferred"], texts["non-preferred"]


def nemo_rl(line: Line) -> Triple:
    """Back to messages, chosen and rejected: the lower rank is preferred."""
    best, worst = sorted(line["completions"], key=lambda each: int(each["rank"]))
    return line["context"], best["completion"][0]["content"], worst["completion"][0]["content"]


def llama_factory(line: Line) -> Triple:
    """Back to messages, chosen and rejected."""
    roles = {"human": "user", "gpt": "assistant"}
    messages = [{"role": "system", "content": line["system"]}] if line["system"] else []
    messages += [{"role": roles[t["from"]], "content": t["value"]} for t in line["conversations"]]
    return messages, line["chosen"]["value"], line["rejected"]["value"]


READ: dict[str, Callable[[Line], Triple]] = {
    "trl": lambda x: (x["prompt"], x["chosen"][0]["content"], x["rejected"][0]["content"]),
    "trl_implicit": lambda x: (
        x["chosen"][:-1],
        x["chosen"][-1]["content"],
        x["rejected"][-1]["content"],
    ),
    "openai": lambda x: (
        x["input"]["messages"],
        x["preferred_output"][0]["content"],
        x["non_preferred_output"][0]["content"],
    ),
    "gemini": gemini,
    "nova": nova,
    "nemo_rl": nemo_rl,
    "axolotl": lambda x: (x["messages"], x["chosen"]["content"], x["rejected"]["content"]),
    "llama_factory": llama_factory,
}


def test_the_command_knows_every_shape() -> None:
    hint = get_type_hints(export)["format"]
    assert get_args(hint) == tuple(SHAPES)
    assert {*READ, "kto"} == set(SHAPES)


@pytest.mark.parametrize("shape", READ)
@pytest.mark.parametrize("messages", [ROW["messages"], TALK, TALK[:1]], ids=["all", "talk", "one"])
def test_every_shape_reads_back(shape: str, messages: list[dict[str, str]]) -> None:
    row = {**ROW, "messages": messages}
    (line,) = SHAPES[shape](row)
    again = READ[shape](json.loads(json.dumps(line)))
    assert again == (messages, ROW["chosen"], ROW["rejected"])


@pytest.mark.parametrize("shape", SHAPES)
async def test_datasets_loads_every_shape(tmp_path: Path, shape: str) -> None:
    run = await whole_run(tmp_path / "r")
    export_preference(run, CONFIG, load_constitution(run.constitution))
    count, left_out = export_lines(run, tmp_path / "x.jsonl", shape)
    loaded = load_dataset(
        "json", data_files=str(tmp_path / "x.jsonl"), split="train", cache_dir=str(tmp_path / "c")
    )
    assert (len(loaded), left_out) == (count, {})


ODD = {
    "late system": [*TALK, SYSTEM, TALK[0]],
    "two systems": [SYSTEM, SYSTEM, *TALK],
    "two users": [TALK[0], TALK[0]],
    "assistant first": [TALK[1], TALK[0]],
}


@pytest.mark.parametrize("shape", READ)
@pytest.mark.parametrize("messages", ODD.values(), ids=ODD.keys())
def test_what_a_shape_cannot_hold_is_not_bent(shape: str, messages: list[dict[str, str]]) -> None:
    row = {**ROW, "messages": messages}
    try:
        (line,) = SHAPES[shape](row)
    except Exception as problem:
        assert shape in ("gemini", "nova", "llama_factory"), problem
        assert "system message" in str(problem) or "alternate" in str(problem)
    else:
        assert READ[shape](line) == (messages, ROW["chosen"], ROW["rejected"])
