"""`rlaif constitution discover` on a world of two hidden rules, with a scripted judge."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.constitution import load_constitution
from pipeline.discover.run import Answers
from pipeline.errors import EngineError
from tests.cli.commands import Rlaif
from tests.discover.worlds import PLEASE, SHORTER, write_dataset, write_world
from tests.judge_eval.command_runs import assert_one_line
from tests.run.builders import write_recipe


def recipe(tmp_path: Path, **arguments: Any) -> Path:
    judge = {"type": "scripted", "script": "tests.discover.worlds:make_engine", "args": arguments}
    return write_recipe(tmp_path / "r", judge=judge)


def search(
    rlaif: Rlaif, tmp_path: Path, *options: object, constitution: str = "", **arguments: Any
) -> dict[str, Any]:
    figures = tmp_path / "figures.json"
    pairs = [] if "--sources" in options else [tmp_path / "pairs.jsonl"]
    path = recipe(tmp_path, **arguments)
    for name in ("found.yaml", "figures.json"):
        (tmp_path / name).unlink(missing_ok=True)
    if constitution:
        path.with_name("constitution.yaml").write_text(constitution)
    ended = rlaif(
        *("constitution", "discover", *pairs),
        *("--recipe", path, "--out", tmp_path / "found.yaml"),
        *("--figures", figures, *options),
    )
    assert ended.code == 0, ended.err
    content: dict[str, Any] = json.loads(figures.read_text())
    if "--json" in options:
        assert json.loads(ended.out) == content
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
    assert "held-out labels explained by what was found: 100.0 %" in found["text"]


def test_length_shows_as_a_trait_that_no_principle_names(rlaif: Rlaif, tmp_path: Path) -> None:
    write_world(tmp_path / "pairs.jsonl")
    found = search(rlaif, tmp_path)
    (trait,) = found["traits"]
    assert trait["name"] == "more words" and not trait["named"]
    assert trait["explains"]["share"] == 0.0
    assert "the labels go against more words: they prefer it in 0.0 %" in found["text"]
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
    again = search(rlaif, tmp_path, "--json")
    assert again == {**first, "text": again["text"]}
    assert answers.read_bytes() == before + b'{"torn": \n'


def test_exchanged_sides_are_asked_about_again(rlaif: Rlaif, tmp_path: Path) -> None:
    """A corrected data set keeps its row ids: neither its rules nor its votes are the old ones."""
    sources = tmp_path / "pairs.yaml"
    (tmp_path / "rules.txt").write_text(f"{PLEASE}\n{SHORTER}\n")
    write_dataset(tmp_path / "pairs.parquet")
    before = search(rlaif, tmp_path, "--sources", sources)
    assert {each["name"] for each in before["kept"]} == {PLEASE, SHORTER}
    write_dataset(tmp_path / "pairs.parquet", inverted=True)
    asked = search(rlaif, tmp_path, "--sources", sources)
    assert [each["name"] for each in asked["candidates"]] == ["Select the response that is blue"]
    listed = search(rlaif, tmp_path, "--sources", sources, "--principles", tmp_path / "rules.txt")
    assert all(each["votes"]["agree"] == 0 for each in listed["candidates"])


def test_rules_of_a_file_stay_apart(rlaif: Rlaif, tmp_path: Path) -> None:
    """A judge's rules of like wording are one candidate, but a person who writes two tests two; a
    line that is there twice is one. What --candidates leaves out is named.
    """
    write_world(tmp_path / "pairs.jsonl")
    rules = [f"{PLEASE} to all of its readers", f"{PLEASE} to all readers", SHORTER]
    (tmp_path / "rules.txt").write_text("".join(f"{rule}\n" for rule in [rules[0], *rules]))
    options = ("--principles", tmp_path / "rules.txt", "--candidates", 2)
    found = search(rlaif, tmp_path, *options)
    assert {each["name"] for each in found["candidates"]} == set(rules[:2])
    assert "1 more rules of" in found["text"]


def test_checked_principles_are_part_of_the_constitution(rlaif: Rlaif, tmp_path: Path) -> None:
    """A check of at most two words holds for `take 1` alone: it explains the half of the pairs
    whose chosen response is shorter. The judge, asked for politeness, explains the other half, and
    none of the two is against any label: 100 %. The check's request names the length.
    """
    write_world(tmp_path / "pairs.jsonl")
    path = recipe(tmp_path)
    constitution = path.with_name("constitution.yaml")
    text = yaml.safe_load(constitution.read_text())
    text["principles"][2] |= {
        "comparison_request": "Which response is more brief?", "check": {"name": "words", "max": 2}
    }  # fmt: skip
    changed = yaml.safe_dump(text)
    found = search(rlaif, tmp_path, constitution=changed)
    assert found["given"]["share"] == 1.0
    assert [trait["named"] for trait in found["traits"]] == [True]


def test_unread_votes_are_counted_and_said(rlaif: Rlaif, tmp_path: Path) -> None:
    """Of the rule that the judge cannot answer each vote on a pair for training is unread; it is
    not kept, so it is not measured.
    """
    write_world(tmp_path / "pairs.jsonl")
    (tmp_path / "rules.txt").write_text(f"{PLEASE}\n{SHORTER}\n")
    found = search(
        rlaif, tmp_path, "--principles", tmp_path / "rules.txt", unread="that is shorter"
    )
    assert [each["name"] for each in found["kept"]] == [PLEASE]
    assert found["num_unreadable"] == found["train_pairs"]
    line = f"{found['num_unreadable']} of {found['num_votes']} votes could not be read or failed"
    assert line in found["text"]


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
