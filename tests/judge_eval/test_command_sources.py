"""`rlaif judge-eval`: recipes, transcripts, option files, panels, and what a second call pays."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.cli.commands import Rlaif
from tests.judge_eval.builders import write_judge_recipe, write_pairs
from tests.judge_eval.command_runs import measured, metrics_of, rows_of


def test_recipe_says_how_to_ask(rlaif: Rlaif, tmp_path: Path) -> None:
    """Exemplars, and a rationale whose verdict is clamped to [0.4, 0.6] in each call."""
    shots = {"exemplars": "prompts/exemplars/general.yaml", "num_exemplars": 2}
    found = measured(
        rlaif,
        tmp_path,
        {},
        constitution="constitutions/open_assistant.yaml",
        preference={"judge": {"chain_of_thought": {}, **shots}},
    )
    assert found["accuracy"]["share"] == 1.0
    assert found["confidence"]["mean"] == pytest.approx(0.6)
    assert {len(row.rationales) for row in rows_of(tmp_path)} == {2}
    plain = write_judge_recipe(tmp_path / "s")
    assert rlaif("judge-eval", tmp_path / "pairs.jsonl", "--recipe", plain, "--name", "p").code == 0
    assert metrics_of(tmp_path, "p")["judges"][0]["method_hash"] != found["method_hash"]


# --- label files ---------------------------------------------------------------------------------


def test_transcripts_of_people(rlaif: Rlaif, tmp_path: Path) -> None:
    """A judge that counts words is as good as the rule that does, even ones included."""
    recipe = write_judge_recipe(tmp_path / "r", {"behavior": "longer"})
    ended = rlaif(
        "judge-eval",
        "tests/sources/data/hh_rlhf_excerpt.jsonl.gz",
        "--type",
        "hh-rlhf",
        "--recipe",
        recipe,
        "--name",
        "e",
    )
    assert ended.code == 0, ended.err
    found = metrics_of(tmp_path)
    assert found["judges"][0]["accuracy"]["share"] == found["baselines"]["longer"]["share"]
    (source,) = found["sources"]
    assert source["num_ok"] == found["num_rows"] and source["num_dropped"] == sum(
        source["reasons"].values()
    )


def test_option_file(rlaif: Rlaif, tmp_path: Path) -> None:
    """Several pairs of one context; the slot of the file is a tag, and decides nothing here."""
    lines = [
        {
            "prompt": "p",
            "corrects": [[" (A)", " (B)"][n % 2]],
            "incorrects": [[" (B)", " (A)"][n % 2]],
            "text_correct": f"\n\nHuman: q {n // 3}\n\nAssistant: good {n} 2.0",
            "text_incorrect": f"\n\nHuman: q {n // 3}\n\nAssistant: bad {n} 0.5",
        }
        for n in range(12)
    ]
    path = tmp_path / "hhh.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = write_judge_recipe(tmp_path / "r")
    ended = rlaif("judge-eval", path, "--type", "hhh", "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    found = metrics_of(tmp_path)
    assert (found["num_rows"], found["num_prompts"]) == (12, 4)
    assert [g["id"] for g in found["judges"][0]["by_tag"]] == ["slot(A)", "slot(B)"]
    assert found["judges"][0]["accuracy"]["share"] == 1.0


# --- several principles, panels ------------------------------------------------------------------


def test_panel_has_figures_for_each_judge_and_the_pool(rlaif: Rlaif, tmp_path: Path) -> None:
    scripts = [
        {
            "type": "scripted",
            "script": "tests.judge_eval.judges:make_engine",
            "args": {"behavior": "longer", "name": "long"},
        }
    ]
    recipe = write_judge_recipe(tmp_path / "r", {"name": "good", "sharpness": 4.0}, panel=scripts)
    ended = rlaif(
        "judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", recipe, "--name", "e"
    )
    assert ended.code == 0, ended.err
    judges = metrics_of(tmp_path)["judges"]
    assert [j["name"] for j in judges] == ["judge", "judge 2", "pooled"]
    # The sure honest judge (6 nats) outweighs the one that counts words (3 nats).
    assert [j["accuracy"]["share"] for j in judges] == pytest.approx([1.0, 14 / 40, 1.0])
    assert len({j["fingerprint"] for j in judges}) == 3


def test_several_principles_are_pooled(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_judge_recipe(tmp_path / "r", preference={"judge": {"num_principles": 2}})
    rlaif("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", recipe, "--name", "e")
    judges = metrics_of(tmp_path)["judges"]
    assert [(j["name"], j["rows"]["expected"]) for j in judges] == [("judge", 80), ("pooled", 40)]
    assert [g["id"] for g in judges[0]["by_principle"]] == ["p-0", "p-1", "p-2"]


def test_tags_of_a_source_list_are_told_apart(rlaif: Rlaif, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", tags=("short", "long", "odd"))
    sources = tmp_path / "labels.yaml"
    columns = {"chosen": "chosen", "rejected": "rejected", "tags": "tags"}
    sources.write_text(
        yaml.safe_dump(
            {"sources": [{"type": "pairs", "name": "mine", "path": str(pairs), "columns": columns}]}
        )
    )
    recipe = write_judge_recipe(tmp_path / "r", {"behavior": "longer"})
    ended = rlaif("judge-eval", "--sources", sources, "--recipe", recipe, "--name", "e")
    assert ended.code == 0, ended.err
    by_tag = {g["id"]: g["accuracy"]["share"] for g in metrics_of(tmp_path)["judges"][0]["by_tag"]}
    assert by_tag == {"short": 1.0, "long": 0.0, "odd": 0.0}


# --- folders: resuming, names --------------------------------------------------------------------


def test_same_command_pays_once(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_judge_recipe(tmp_path / "r", execution={"shard_size": 4})
    command = ("judge-eval", write_pairs(tmp_path / "p.jsonl"), "--recipe", recipe)
    assert rlaif(*command).code == 0
    (root,) = (tmp_path / "outputs/judge-eval").iterdir()
    assert re.fullmatch(r"small-p-[0-9a-f]{8}", root.name)
    shards = sorted((root / "preference/judge").glob("*.json"))
    before = [path.stat().st_mtime_ns for path in shards]
    # A lost shard is what a killed evaluation has not written: only that one is judged again.
    shards[3].unlink()
    ended = rlaif(*command)
    assert ended.code == 0 and len(list((tmp_path / "outputs/judge-eval").iterdir())) == 1
    after = [path.stat().st_mtime_ns for path in shards]
    assert [a == b for a, b in zip(before, after, strict=True)].count(False) == 1
    assert rlaif("verify", root).code == 0


def test_row_is_traced_to_its_texts(rlaif: Rlaif, tmp_path: Path) -> None:
    measured(rlaif, tmp_path, {})
    row = rows_of(tmp_path)[0]
    ended = rlaif("trace", row.row_id, "--run", tmp_path / "outputs/judge-eval/e")
    assert ended.code == 0, ended.err
    for part in ("judgment", "response", "prompt", row.principle_id, "labeled/first"):
        assert part in ended.out, part
