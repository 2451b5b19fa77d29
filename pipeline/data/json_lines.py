"""The preference set of a run in the shapes that other programs read, nearly all as JSON Lines.

    trl            {"prompt": [...], "chosen": [{assistant}], "rejected": [{assistant}]}, as the
                   trainers of TRL read it; `row_id` and `soft_label` are extra columns, which they
                   ignore
    trl_text       {"prompt": "...", "chosen": "...", "rejected": "..."}, plain texts for a model
                   without a chat template; holds conversations of one user turn alone
    trl_implicit   {"chosen": [...], "rejected": [...]}, each the whole conversation
    kto            {"prompt": [...], "completion": [{assistant}], "label": bool}: two lines per
                   pair, and one per reply of the feedback set, where the run has one
    openai         {"input": {"messages": [...]}, "preferred_output": [...],
                   "non_preferred_output": [...]}, fine-tuning at OpenAI and Azure
    gemini         {"contents": [...], "completions": [{"score": 1, ...}, {"score": 0, ...}]},
                   preference tuning of Gemini
    nova           {"messages": [..., {"candidates": [{..., "preferenceLabel": ...}]}]}, Amazon Nova
    nemo_rl        {"context": [...], "completions": [{"rank": 0, ...}, {"rank": 1, ...}]}
    axolotl        {"messages": [...], "chosen": {...}, "rejected": {...}}, its type
                   `chat_template.default`
    llama_factory  {"conversations": [{"from": "human", ...}], "chosen": {...}, "rejected": {...}},
                   its formatting `sharegpt` with `ranking: true`
    argilla        {"prompt": [...], "first": "...", "second": "...", "preference": "first", ...},
                   records for people to check in Argilla
    feedback_forensics
                   one JSON document, the annotated pairs (version 2.0) of Feedback Forensics

In the last two the preferred response is first or second by its text, so that its place tells
nothing.

Does not: keep soft labels, except in `trl`, `trl_text` and `argilla`: in all others each line
counts in full. A row that a
shape cannot hold is left out and counted with the reason.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipeline.data.dataset import iter_tables, load_dataset, set_path
from pipeline.errors import DataError
from pipeline.ids import text_hash
from pipeline.store.files import atomic_write
from pipeline.store.layout import RunDir

Line = dict[str, Any]
Turns = list[dict[str, str]]


class Exported(NamedTuple):
    """What an export wrote."""

    lines: int
    left_out: dict[str, list[str]]
    """Ids of the rows that the shape cannot hold, by reason."""


class _Unheld(Exception):
    """The shape has no place for what a row holds."""


def export_lines(run: RunDir, target: Path, shape: str) -> Exported:
    """Write the preference set of a run in a shape of `SHAPES`.

    Raises:
        DataError: the run has no preference set, or the target exists.
        StoreError: the data set is damaged, or the disk is full.
    """
    manifest = load_dataset(run)
    if manifest is None or "preference" not in manifest.sets:
        raise DataError(
            f"run {run.run_id} has no preference set to export; `rlaif resume {run.run_id}` "
            "finishes a run that was stopped"
        )
    if target.exists():
        raise DataError(f"{target} exists already; remove it or choose another name")
    sets = {"preference": SHAPES[shape]}
    document = DOCUMENTS.get(shape)
    if shape == "kto" and "feedback" in manifest.sets:
        sets["feedback"] = _feedback_lines
    rows = (
        (make_lines, row)
        for name, make_lines in sets.items()
        for table in iter_tables(set_path(run, name))
        for row in table.to_pylist()
    )
    count = 0
    left_out: dict[str, list[str]] = {}

    def write(stream: BinaryIO) -> None:
        nonlocal count
        if document:
            stream.write(document.head(run).encode("utf-8"))
        for make_lines, row in rows:
            try:
                lines = list(make_lines(row))
            except _Unheld as problem:
                left_out.setdefault(str(problem), []).append(row["row_id"])
                continue
            for line in lines:
                text = json.dumps(line, ensure_ascii=False)
                if document:
                    stream.write((f",\n{text}" if count else f"\n{text}").encode("utf-8"))
                else:
                    stream.write(f"{text}\n".encode())
                count += 1
        if document:
            stream.write(document.tail.encode("utf-8"))

    atomic_write(target, write)
    return Exported(count, left_out)


def _trl_lines(row: Line) -> Iterator[Line]:
    yield {
        "prompt": row["messages"],
        "chosen": _reply(row["chosen"]),
        "rejected": _reply(row["rejected"]),
        "row_id": row["row_id"],
        "soft_label": row["soft_label"],
    }


def _kto_lines(row: Line) -> Iterator[Line]:
    for name, label in (("chosen", True), ("rejected", False)):
        yield {"prompt": row["messages"], "completion": _reply(row[name]), "label": label}


def _feedback_lines(row: Line) -> Iterator[Line]:
    completion = _reply(row["completion"])
    yield {"prompt": row["messages"], "completion": completion, "label": row["label"]}


def _openai_lines(row: Line) -> Iterator[Line]:
    yield {
        "input": {"messages": row["messages"], "tools": [], "parallel_tool_calls": True},
        "preferred_output": _reply(row["chosen"]),
        "non_preferred_output": _reply(row["rejected"]),
    }


def _trl_text_lines(row: Line) -> Iterator[Line]:
    texts = {"chosen": row["chosen"], "rejected": row["rejected"]}
    yield {**next(_trl_lines(row)), "prompt": _only_text(row["messages"]), **texts}


def _trl_implicit_lines(row: Line) -> Iterator[Line]:
    yield {name: row["messages"] + _reply(row[name]) for name in ("chosen", "rejected")}


def _gemini_lines(row: Line) -> Iterator[Line]:
    system, turns = _split(row["messages"])
    names = {"user": "user", "assistant": "model"}

    def content(turn: dict[str, str]) -> Line:
        return {"role": names[turn["role"]], "parts": [{"text": turn["content"]}]}

    line: Line = {"system_instruction": {"parts": [{"text": system}]}} if system else {}
    line["contents"] = [content(turn) for turn in turns]
    line["completions"] = [
        {"score": score, "completion": content(_reply(row[name])[0])}
        for name, score in (("chosen", 1), ("rejected", 0))
    ]
    yield line


def _nova_lines(row: Line) -> Iterator[Line]:
    system, turns = _split(row["messages"])
    line: Line = {"system": [{"text": system}]} if system else {}
    candidates = [
        {"content": [{"text": row[name]}], "preferenceLabel": label}
        for name, label in (("chosen", "preferred"), ("rejected", "non-preferred"))
    ]
    line["messages"] = [
        *({"role": turn["role"], "content": [{"text": turn["content"]}]} for turn in turns),
        {"role": "assistant", "candidates": candidates},
    ]
    yield line


def _nemo_rl_lines(row: Line) -> Iterator[Line]:
    completions = [
        {"rank": rank, "completion": _reply(row[name])}
        for rank, name in enumerate(("chosen", "rejected"))
    ]
    yield {"context": row["messages"], "completions": completions}


def _axolotl_lines(row: Line) -> Iterator[Line]:
    # Its loader looks for each response in the rendered chat: a template that trims hides white
    # space around it, and what axolotl 0.19 then trains on is the template's last character.
    chosen, rejected = (_reply(row[name].strip())[0] for name in ("chosen", "rejected"))
    yield {"messages": row["messages"], "chosen": chosen, "rejected": rejected}


def _llama_factory_lines(row: Line) -> Iterator[Line]:
    system, turns = _split(row["messages"])
    names = {"user": "human", "assistant": "gpt"}
    yield {
        "conversations": [{"from": names[t["role"]], "value": t["content"]} for t in turns],
        "chosen": {"from": "gpt", "value": row["chosen"]},
        "rejected": {"from": "gpt", "value": row["rejected"]},
        "system": system,
    }


def _argilla_lines(row: Line) -> Iterator[Line]:
    # One line that its server refuses costs the whole batch.
    if any(not 0 < len(turn["content"]) <= ARGILLA_CHARACTERS for turn in row["messages"]):
        raise _Unheld(f"a message that is empty or above {ARGILLA_CHARACTERS:,} characters")
    first, second, chosen_first = _sides(row)
    yield {
        "id": row["row_id"],
        "prompt": row["messages"],
        "first": first,
        "second": second,
        "preference": "first" if chosen_first else "second",
        "score": row["soft_label"],
        "agent": _agent(row["source"]),
    }


def _agent(source: str) -> str:
    """The name of a source in the characters that Argilla allows, others as their code point."""
    return re.sub(r"[^a-zA-Z0-9_:./ -]", lambda m: f"-{ord(m[0]):x}", source)[:200]


def _feedback_forensics_lines(row: Line) -> Iterator[Line]:
    first, second, chosen_first = _sides(row)
    yield {
        "id": row["row_id"],
        "prompt": _only_text(row["messages"]),
        "response_a": {"text": first},
        "response_b": {"text": second},
        "annotations": {LABELS_OF_THE_RUN: {"pref": "a" if chosen_first else "b"}},
        "metadata": {"principle": row["principle_id"], "source": row["source"]},
    }


def _forensics_head(run: RunDir) -> str:
    metadata = {
        "version": "2.0",
        "description": f"preference pairs of run {run.run_id}",
        "default_annotator": LABELS_OF_THE_RUN,
        "available_metadata_keys_per_comparison": ["principle", "source"],
    }
    name = "labels of the run"
    annotator = {"name": name, "description": name, "type": "ai"}
    annotators = json.dumps({LABELS_OF_THE_RUN: annotator})
    return f'{{"metadata": {json.dumps(metadata)},\n"annotators": {annotators},\n"comparisons": ['


ARGILLA_CHARACTERS = 20_000
"""The longest message of a chat field that Argilla's server takes, unless its
`ARGILLA_MAX_MESSAGE_LENGTH` says otherwise."""

LABELS_OF_THE_RUN = "ba751e7b"
"""The id that Feedback Forensics expects of the labels that it explains: the first eight digits of
the MD5 of its own description of them."""


class Document(NamedTuple):
    """What is around the lines of a shape that is one JSON document."""

    head: Callable[[RunDir], str]
    tail: str


DOCUMENTS = {"feedback_forensics": Document(_forensics_head, "\n]}\n")}
"""Shapes that are one JSON document."""

SHAPES: dict[str, Callable[[Line], Iterable[Line]]] = {
    "trl": _trl_lines,
    "trl_text": _trl_text_lines,
    "trl_implicit": _trl_implicit_lines,
    "kto": _kto_lines,
    "openai": _openai_lines,
    "gemini": _gemini_lines,
    "nova": _nova_lines,
    "nemo_rl": _nemo_rl_lines,
    "axolotl": _axolotl_lines,
    "llama_factory": _llama_factory_lines,
    "argilla": _argilla_lines,
    "feedback_forensics": _feedback_forensics_lines,
}
"""How a row is written in each shape."""


def _split(messages: Turns) -> tuple[str, Turns]:
    """The system message, empty without one, and the turns of user and assistant.

    Raises:
        _Unheld: a shape that has one place for the system message, and turns that alternate, cannot
            hold this conversation.
    """
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    if any(turn["role"] == "system" for turn in turns):
        raise _Unheld("a system message that is not the first message")
    if any(turn["role"] != ("user", "assistant")[i % 2] for i, turn in enumerate(turns)):
        raise _Unheld("turns of user and assistant do not alternate, the user's first")
    return system, turns


def _only_text(messages: Turns) -> str:
    """The text of a conversation of one user turn. Raises _Unheld for any other."""
    if [turn["role"] for turn in messages] != ["user"]:
        raise _Unheld("a conversation of more than one user turn")
    return messages[0]["content"]


def _sides(row: Line) -> tuple[str, str, bool]:
    """The two responses ordered by hash, and whether the chosen one is first."""
    first, second = sorted((row["chosen"], row["rejected"]), key=text_hash)
    return first, second, first == row["chosen"]


def _reply(text: str) -> Turns:
    return [{"role": "assistant", "content": text}]
