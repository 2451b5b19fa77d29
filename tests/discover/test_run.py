"""`rlaif constitution discover` on a world of two hidden rules, with a scripted judge."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.constitution import load_constitution
from pipeline.discover.run import Answers
from pipeline.errors import EngineError
from tests.cli.commands import Rlaif
from tests.discover.worlds import PLEASE, SHORTER, write_world
from tests.judge_eval.command_runs import assert_one_line
from tests.run.builders import write_recipe


def recipe(tmp_path: Path, **arguments: Any) -> Path:
    judge = {"type": "scripted", "script": "tests.discover.worlds:make_engine", "args": arguments}
    return write_recipe(tmp_path / "r", judge=judge)


def search(rlaif: Rlaif, tmp_path: Path, *options: object, **arguments: Any) -> dict[str, Any]:
    figures = tmp_path / "figures.json"
    ended = rlaif(
        *("constitution", "discover", tmp_path / "pairs.jsonl"),
        *("--recipe", recipe(tmp_path, **arguments), "--out", tmp_path / "found.yaml"),
        *("--figures", figures, *options),
    )
    assert ended.code == 0, ended.err
    content: dict[str, Any] = json.loads(figures.read_text())
    return {**content, "text": ended.out}


def test_hidden_rules_are_recovered(rlaif: Rlaif, tmp_path: Path) -> None:
    """Both rules and no other; together they explain every held-out label, of which each decides
    its own half. The recipe's constitution asks for politeness: it explains that half, and half of
    the rest by chance. The judge alone knows nothing.
    """
    write_world(tmp_path / "pairs.jsonl")
    found = search(rlaif, tmp_path)
    assert {each["name"] for each in found["kept"]} == {PLEASE, SHORTER}
    assert found["found"]["share"] == 1.0 and found["alone"]["share"] == 0.5
    polite = next(each for each in found["kept"] if each["name"] == PLEASE)
    share = polite["votes"]["agree"] / found["heldout_pairs"]
    assert found["given"]["share"] == pytest.approx(share + (1 - share) / 2)
    assert found["luck"] < 0.05
    written = load_constitution(tmp_path / "found.yaml")
    assert {p.comparison_request for p in written.principles} == {PLEASE, SHORTER}
    assert "held-out labels explained by what was found: 100.0%" in found["text"]


def test_length_shows_as_a_trait_that_no_principle_names(rlaif: Rlaif, tmp_path: Path) -> None:
    write_world(tmp_path / "pairs.jsonl")
    found = search(rlaif, tmp_path)
    (trait,) = found["traits"]
    assert trait["name"] == "more words" and not trait["named"]
    assert trait["explains"]["share"] == 0.0
    assert "the labels go against more words: they prefer it in 0.0%" in found["text"]
    assert "no principle of the recipe names it" in found["text"]


def test_inverted_labels_turn_the_rules_against_themselves(rlaif: Rlaif, tmp_path: Path) -> None:
    """Candidates from a file: the rules of the world hold for no label, so nothing is written."""
    write_world(tmp_path / "pairs.jsonl", inverted=True)
    (tmp_path / "rules.txt").write_text(f"{PLEASE}\n{SHORTER}\n")
    found = search(rlaif, tmp_path, "--principles", tmp_path / "rules.txt")
    assert found["kept"] == [] and found["found"]["share"] == 0.5
    assert all(each["votes"]["agree"] == 0 for each in found["candidates"])
    assert "no principle explains these labels" in found["text"]
    assert not (tmp_path / "found.yaml").exists()


def test_same_command_asks_nothing_again(rlaif: Rlaif, tmp_path: Path) -> None:
    write_world(tmp_path / "pairs.jsonl")
    first = search(rlaif, tmp_path)
    (answers,) = (tmp_path / "outputs/discover").glob("*/answers.jsonl")
    before = answers.read_bytes()
    answers.write_bytes(before + b'{"torn": ')
    for name in ("found.yaml", "figures.json"):
        (tmp_path / name).unlink()
    again = search(rlaif, tmp_path)
    assert again == {**first, "text": again["text"]}
    assert answers.read_bytes() == before + b'{"torn": \n'


def test_failing_judge_keeps_what_was_answered(rlaif: Rlaif, tmp_path: Path) -> None:
    write_world(tmp_path / "pairs.jsonl")
    ended = rlaif(
        *("constitution", "discover", tmp_path / "pairs.jsonl"),
        *("--recipe", recipe(tmp_path, fails=True), "--out", tmp_path / "found.yaml"),
    )
    assert ended.code == 1 and "calls failed (the model is gone)" in ended.err
    (answers,) = (tmp_path / "outputs/discover").glob("*/answers.jsonl")
    assert len(answers.read_bytes().splitlines()) >= 20


async def test_failures_that_were_accepted_are_not_counted_again(tmp_path: Path) -> None:
    """10 of 100 calls fail, then none of 20: 10 of 20 would be too many."""
    answers = Answers(tmp_path / "answers.jsonl")

    async def answer() -> int:
        return 1

    async def fail() -> int:
        raise EngineError("the model is busy")

    for number in range(100):
        await answers.get(f"first {number}", fail if number < 10 else answer)
    answers.check(100)
    for number in range(20):
        await answers.get(f"second {number}", answer)
    answers.check(20)
    answers.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no labels are given"),
        (["pairs.jsonl", "--run", "x"], "the labels come from one place"),
        (["--run", "nowhere"], "no run|does not exist|not a run"),
        (["few.jsonl"], "on one side of the split, but 10 on each side are needed"),
        (["pairs.jsonl", "--principles", "none.txt"], "none.txt does not exist"),
        (["pairs.jsonl", "--out", "pairs.jsonl"], "exists already"),
    ],
)
def test_bad_input_is_one_line(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    path = recipe(tmp_path)
    write_world(tmp_path / "pairs.jsonl")
    write_world(tmp_path / "few.jsonl", 12)
    monkeypatch.chdir(tmp_path)
    if "--out" not in options:
        options = [*options, "--out", "found.yaml"]
    ended = rlaif("constitution", "discover", *options, "--recipe", path)
    assert_one_line(ended, message, tmp_path)
    assert not (tmp_path / "found.yaml").exists()


def test_reply_without_rules_is_named(rlaif: Rlaif, tmp_path: Path) -> None:
    write_world(tmp_path / "pairs.jsonl")
    ended = rlaif(
        *("constitution", "discover", tmp_path / "pairs.jsonl"),
        *("--recipe", recipe(tmp_path, proposes=False), "--out", tmp_path / "found.yaml"),
    )
    assert ended.code == 2 and "give candidates with --principles FILE" in ended.err
