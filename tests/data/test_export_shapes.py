"""The shapes of an export, each read back by the rules of the program that it is for."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from datasets import Dataset, load_dataset

from pipeline.cli.app import export
from pipeline.constitution import load_constitution
from pipeline.data.export import export_preference
from pipeline.data.json_lines import DOCUMENTS, SHAPES, export_lines
from pipeline.store import RunDir
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
    "principle_id": "p-1",
    "source": "judge",
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


def argilla(line: Line) -> Triple:
    """Back to messages, chosen and rejected."""
    other = {"first": "second", "second": "first"}[line["preference"]]
    return line["prompt"], line[line["preference"]], line[other]


def feedback_forensics(line: Line) -> Triple:
    """Back to messages, chosen and rejected, as its loader reads version 2.0."""
    (annotation,) = line["annotations"].values()
    texts = {side: line[f"response_{side}"]["text"] for side in "ab"}
    chosen = texts.pop(annotation["pref"])
    return [{"role": "user", "content": line["prompt"]}], chosen, *texts.values()


READ: dict[str, Callable[[Line], Triple]] = {
    "trl": lambda x: (x["prompt"], x["chosen"][0]["content"], x["rejected"][0]["content"]),
    "trl_text": lambda x: ([{"role": "user", "content": x["prompt"]}], x["chosen"], x["rejected"]),
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
    "argilla": argilla,
    "feedback_forensics": feedback_forensics,
}
ONE_TURN = ("trl_text", "feedback_forensics")
"""Shapes that hold a prompt as one text."""


def test_the_command_knows_every_shape() -> None:
    hint = get_type_hints(export)["format"]
    assert get_args(hint) == tuple(SHAPES)
    assert {*READ, "kto"} == set(SHAPES)


@pytest.mark.parametrize("shape", READ)
@pytest.mark.parametrize("messages", [ROW["messages"], TALK, TALK[:1]], ids=["all", "talk", "one"])
def test_every_shape_reads_back(shape: str, messages: list[dict[str, str]]) -> None:
    row = {**ROW, "messages": messages}
    if shape in ONE_TURN and len(messages) > 1:
        with pytest.raises(Exception, match="more than one user turn"):
            list(SHAPES[shape](row))
        return
    (line,) = SHAPES[shape](row)
    again = READ[shape](json.loads(json.dumps(line)))
    assert again == (messages, ROW["chosen"], ROW["rejected"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run with a preference set."""
    run = asyncio.run(whole_run(tmp_path_factory.mktemp("shapes") / "r"))
    export_preference(run, CONFIG, load_constitution(run.constitution))
    return run


@pytest.mark.parametrize("shape", SHAPES)
def test_datasets_loads_every_shape(run: RunDir, tmp_path: Path, shape: str) -> None:
    count, left_out = export_lines(run, tmp_path / "x.jsonl", shape)
    field = "comparisons" if shape in DOCUMENTS else None
    loaded = load_dataset(
        "json",
        data_files=str(tmp_path / "x.jsonl"),
        split="train",
        cache_dir=str(tmp_path / "c"),
        field=field,
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
        assert shape in ("gemini", "nova", "llama_factory", *ONE_TURN), problem
        assert re.search("system message|alternate|more than one user turn", str(problem))
    else:
        assert READ[shape](line) == (messages, ROW["chosen"], ROW["rejected"])


@pytest.mark.parametrize("shape", ["argilla", "feedback_forensics"])
def test_place_of_the_preferred_response_tells_nothing(shape: str) -> None:
    """Exchanging the labels exchanges nothing but the preference."""
    row = {**ROW, "messages": TALK[:1]}
    swapped = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
    (one,), (two,) = SHAPES[shape](row), SHAPES[shape](swapped)
    assert {name for name in one if one[name] != two[name]} <= {"preference", "annotations"}


def test_argilla_gets_what_its_server_takes() -> None:
    """Patterns and lengths of argilla-server 2.8: one line that it refuses costs the batch."""
    (line,) = SHAPES["argilla"]({**ROW, "source": "people (desk \u684c)"})
    assert line["agent"] == "people -28desk -684c-29"
    for content in ("", "a" * 20_001):
        with pytest.raises(Exception, match="empty or above 20,000"):
            list(SHAPES["argilla"]({**ROW, "messages": [{"role": "user", "content": content}]}))


def test_axolotl_gets_no_white_space_to_lose() -> None:
    """Its loader looks for the response in what a template made of it, which may have trimmed."""
    (line,) = SHAPES["axolotl"]({**ROW, "chosen": " Because.\n"})
    assert line["chosen"]["content"] == "Because."


def test_forensics_document_names_its_annotator(run: RunDir, tmp_path: Path) -> None:
    """The loader takes the labels to be explained from this id, and every key that it indexes."""
    exported = export_lines(run, tmp_path / "x.json", "feedback_forensics")
    content = json.loads((tmp_path / "x.json").read_text())
    described = b"Default annotator from original dataset (from column `preferred_text`)"
    default = hashlib.md5(described).hexdigest()[:8]
    assert content["metadata"]["default_annotator"] == default
    assert list(content["annotators"]) == [default] and content["metadata"]["version"] == "2.0"
    assert len(content["comparisons"]) == exported.lines > 0


def test_trl_reads_its_shapes_as_one_another() -> None:
    """Its own functions find the prompt of the implicit shape, and make the unpaired shape."""
    from trl.data_utils import extract_prompt, is_conversational, unpair_preference_dataset

    (explicit,) = SHAPES["trl"](ROW)
    (implicit,) = SHAPES["trl_implicit"](ROW)
    texts = {name: explicit[name] for name in ("prompt", "chosen", "rejected")}
    assert extract_prompt(implicit) == texts
    assert is_conversational(explicit) and is_conversational(implicit)
    unpaired = unpair_preference_dataset(Dataset.from_list([texts]))
    assert [dict(line) for line in unpaired] == list(SHAPES["kto"](ROW))
    (plain,) = SHAPES["trl_text"]({**ROW, "messages": TALK[:1]})
    assert not is_conversational(plain)
