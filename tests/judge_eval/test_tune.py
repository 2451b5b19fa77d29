"""`rlaif judge-tune`: ways of asking on judges that only some of them suit."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import load_config
from pipeline.config.factories import recipe_factory
from pipeline.config.overrides import override
from pipeline.engines import ScriptedEngine
from pipeline.judge_eval.tune import WAYS, changes_of
from pipeline.types import Messages
from tests.cli.commands import Rlaif
from tests.judge_eval.builders import write_pairs
from tests.judge_eval.command_runs import assert_one_line
from tests.judge_eval.judges import quality
from tests.run.builders import write_recipe
from tests.stages.builders import SLOT, log_sigmoid, slots


@recipe_factory
def make_judge(suits: str) -> ScriptedEngine:
    """Reads the texts with two exemplars (`exemplars`), or never (`nothing`); else slot A wins by
    a little. Asked for digits it writes prose.
    """

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        if options[0] == "1":
            return [math.log(1e-4)] * 2
        samples = [m for m in messages if SLOT.search(m.content)]
        reads = suits == "exemplars" and len(samples) == 3
        a, b = slots((samples[-1],))
        value = quality(a) - quality(b) if reads else 0.3
        return [log_sigmoid(value), log_sigmoid(-value)]

    return ScriptedEngine(lambda messages: "a rationale", scores, name=suits)


def recipe(
    tmp_path: Path, suits: str, constitution: str = "constitutions/open_assistant.yaml", **more: Any
) -> Path:
    judge = {
        "type": "scripted",
        "script": "tests.judge_eval.test_tune:make_judge",
        "args": {"suits": suits},
    }
    return write_recipe(tmp_path / "r", judge=judge, constitution=constitution, **more)


def test_best_way_is_chosen_and_measured_apart(rlaif: Rlaif, tmp_path: Path) -> None:
    path, pairs = recipe(tmp_path, "exemplars"), write_pairs(tmp_path / "pairs.jsonl")
    ended = rlaif("judge-tune", path, pairs)
    assert ended.code == 0, ended.err
    rows = {
        name: next(line for line in ended.out.splitlines() if re.match(rf"\s*{name}  ", line))
        for name in WAYS
    }
    assert "100" in rows["2 exemplars"] and " n " in rows["2 exemplars"]
    # Slot A in both orders: each label is even, half right, and the orders disagree.
    assert re.search(r"50\W%.*50\W%.*0\W%.*100\W%", rows["prefix"])
    assert re.search(r" 0\W%.* 0\W%.*100\W%", rows["digits, prefix"])
    assert rows["prefix"].split()[-2] == "2" and rows["chain of thought"].split()[-2] == "4"
    assert "half that chooses: 2 exemplars." in ended.out
    assert (
        "preference.judge.num_exemplars=2" in ended.out and "not told from chance" not in ended.out
    )
    # A second time nothing is asked: every folder is complete.
    folders = sorted((tmp_path / "outputs/judge-eval").iterdir())
    before = [(p, p.stat().st_mtime_ns) for f in folders for p in f.rglob("judge/*.parquet")]
    assert len(folders) == len(WAYS) and before
    table = ended.out[ended.out.index("way of asking") :]
    assert rlaif("judge-tune", path, pairs).out.endswith(table)
    assert before == [(p, p.stat().st_mtime_ns) for p, _ in before]
    values = json.loads(rlaif("judge-tune", path, pairs, "--json").out)
    assert [way["name"] for way in values["ways"]] == list(WAYS)
    assert (values["best"], values["fit"]) == ("2 exemplars", True)
    assert values["changes"] == list(WAYS["2 exemplars"])


def test_advice_has_the_exemplars_that_were_asked_with(rlaif: Rlaif, tmp_path: Path) -> None:
    own = {"judge": {"exemplars": "prompts/exemplars/pocket.yaml", "num_exemplars": 1}}
    path = recipe(tmp_path, "exemplars", preference=own)
    ended = rlaif("judge-tune", path, write_pairs(tmp_path / "pairs.jsonl"), "--json")
    values = json.loads(ended.out)
    assert values["best"] == "2 exemplars"
    assert values["changes"] == ["preference.judge.num_exemplars=2"]


def test_few_pairs_are_one_line(rlaif: Rlaif, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 12)
    ended = rlaif("judge-tune", recipe(tmp_path, "nothing"), pairs)
    assert_one_line(
        ended, r"needs 10 pairs in each half, and the halves have \d+ and \d+", tmp_path
    )


def test_error_names_the_recipe_of_the_person(rlaif: Rlaif, tmp_path: Path) -> None:
    path = recipe(tmp_path, "nothing")
    path.write_text(f"{path.read_text()}templates: {{judge: nowhere.jinja}}\n")
    ended = rlaif("judge-tune", path, write_pairs(tmp_path / "pairs.jsonl"))
    expected = rf"nowhere.jinja does not exist; correct the path in {re.escape(str(path))}$"
    assert_one_line(ended, expected, tmp_path)


def test_checked_constitution_asks_no_judge(rlaif: Rlaif, tmp_path: Path) -> None:
    path = recipe(tmp_path, "nothing", "constitutions/short_answers.yaml")
    ended = rlaif("judge-tune", path, write_pairs(tmp_path / "pairs.jsonl"))
    assert_one_line(ended, "a program decides every principle of .*short_answers", tmp_path)


def test_no_way_helps_a_judge_that_reads_nothing(rlaif: Rlaif, tmp_path: Path) -> None:
    """One does not even fit: no exemplar that ships has a tag of this constitution."""
    constitution = tmp_path / "own.yaml"
    principle = {
        f"{kind}_request": "Which response is better?"
        for kind in ("critique", "revision", "comparison")
    }
    principles = [{"id": "own", "tags": ["own_tag"], **principle}]
    constitution.write_text(yaml.safe_dump({"name": "own", "principles": principles}))
    ended = rlaif(
        "judge-tune",
        recipe(tmp_path, "nothing", str(constitution)),
        write_pairs(tmp_path / "pairs.jsonl"),
        *("--limit", 30),
    )
    assert ended.code == 0, ended.err
    assert "2 exemplars: left out (" in ended.out and "\nprefix: " in ended.out
    assert "half that chooses: as in the recipe." in ended.out
    assert "In the recipe" not in ended.out and "not told from chance" in ended.out


def test_recipe_keeps_what_a_way_does_not_change(tmp_path: Path) -> None:
    judge = {"exemplars": "prompts/exemplars/pocket.yaml", "num_exemplars": 1, "ending": "Best:"}
    path = write_recipe(tmp_path, preference={"judge": judge, "pair": {"tie_width": 0.1}})
    changes = changes_of(WAYS["2 exemplars, prefix"], load_config(path))
    changed = yaml.safe_load(override(path.read_text(), changes, "the recipe"))
    assert changed["preference"]["judge"] == {
        **judge,
        "num_exemplars": 2,
        "reply_prefix": "Response (",
    }
    assert changed["preference"]["pair"] == {"tie_width": 0.1}


def test_ways_are_recipes() -> None:
    """Each way is valid on its own, and differs from the others."""
    assert len({*WAYS.values()}) == len(WAYS)
