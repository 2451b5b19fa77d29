"""`rlaif constitution` and `rlaif labels`: output, exit codes, nothing written on a mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.scripted_chain import HOLD_AFTER
from pipeline.cli.tables import _Console, number_table
from pipeline.config.paths import PROJECT_ROOT
from pipeline.data.dataset import load_dataset
from pipeline.data.verify import check_files
from pipeline.store import RunDir, read_rows
from pipeline.store.shards import stage_manifests
from tests.cli.commands import Ended, Rlaif
from tests.run.builders import stored_json
from tests.sources.builders import write_lines


def principle(number: int, **changes: str) -> dict[str, str]:
    return {
        "id": f"p-{number}",
        "critique_request": f"Name what is rude in part {number}.",
        "revision_request": f"Make part {number} more polite.",
        "comparison_request": f"Which response is more polite in part {number}?",
        **changes,
    }


def write_constitution(path: Path, *principles: dict[str, str]) -> Path:
    path.write_text(yaml.safe_dump({"name": "short", "principles": list(principles)}))
    return path


def assert_one_line(ended: Ended, pattern: str) -> None:
    assert ended.code == 2, ended
    assert len(ended.err.splitlines()) == 1 and ended.err.startswith("rlaif: "), ended.err
    assert re.search(pattern, ended.err), ended.err


def test_lint_tells_errors_by_exit_code(rlaif: Rlaif, tmp_path: Path) -> None:
    sound = write_constitution(tmp_path / "sound.yaml", principle(1))
    ended = rlaif("constitution", "lint", sound)
    assert ended.code == 0 and "1 principle, 0 errors, 0 warnings" in ended.out
    vague = write_constitution(
        tmp_path / "vague.yaml", principle(1, comparison_request="Compare the responses.")
    )
    ended = rlaif("constitution", "lint", sound, vague)
    assert ended.code == 0 and "warning [no-direction] p-1" in ended.out
    broken = principle(1)
    broken["revison_request"] = broken.pop("revision_request")
    wrong = write_constitution(tmp_path / "wrong.yaml", broken)
    ended = rlaif("constitution", "lint", wrong, sound)
    assert ended.code == 2 and "rename 'revison_request' to 'revision_request'" in ended.out
    assert_one_line(rlaif("constitution", "lint", tmp_path / "none.yaml"), "does not exist")


def test_import_writes_once_and_says_what_it_did(rlaif: Rlaif, tmp_path: Path) -> None:
    source, out = tmp_path / "swarm.json", tmp_path / "swarm.yaml"
    source.write_text(
        json.dumps(
            {
                "constitutions": [
                    {"critic": "CritiqueRequest: Name what is rude.", "revision": "Make it polite."}
                ]
            }
        )
    )
    command = ("constitution", "import", source, "--name", "swarm", "--out", out)
    ended = rlaif(*command)
    assert ended.code == 0 and "note: the file compares nothing" in ended.out
    assert rlaif("check", out).code == 0
    assert_one_line(rlaif(*command), "exists already")
    verbatim = tmp_path / "verbatim.yaml"
    assert rlaif(*command[:-1], verbatim, "--verbatim").code == 0
    assert "CritiqueRequest:" in verbatim.read_text() and "CritiqueRequest: " not in out.read_text()
    source.write_text("[]")
    assert_one_line(rlaif(*command[:-1], tmp_path / "x.yaml"), "none of the known shapes")
    assert not (tmp_path / "x.yaml").exists()


def test_diff_prints_meaning(rlaif: Rlaif, tmp_path: Path) -> None:
    old = write_constitution(tmp_path / "old.yaml", principle(1), principle(2))
    new = write_constitution(tmp_path / "new.yaml", principle(2), principle(3))
    ended = rlaif("constitution", "diff", old, new)
    assert ended.code == 0 and ended.out == "added p-3\nremoved p-1\n1 principles unchanged\n"


def write_recipe(folder: Path, **args: Any) -> Path:
    """Sixteen prompts, four principles, a model that writes its bill."""
    write_lines(folder / "prompts.jsonl", *({"prompt": f"question {i}?"} for i in range(16)))
    write_constitution(folder / "old.yaml", *map(principle, range(4)))
    path = folder / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "small",
                "constitution": str(folder / "old.yaml"),
                "prompts": {"train": [str(folder / "prompts.jsonl")]},
                "policy": {
                    "type": "scripted",
                    "script": "benchmarks.scripted_chain:make_engine",
                    "args": {"meter": str(folder / "bill"), "max_concurrency": 1, **args},
                },
                "supervised": {"enabled": False},
                "evaluation": {"enabled": False},
                "preference": {"sample": {"num_samples": 3}},
                "execution": {"shard_size": 4, "shards_in_flight": 1},
            }
        )
    )
    return path


def bill(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "bill").read_text().split()]


def test_impact_pays_for_what_changed_and_repeats_for_nothing(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert rlaif("run", recipe, "--no-prefect", "--run-id", "one").code == 0
    paid = bill(tmp_path)
    new = write_constitution(
        tmp_path / "new.yaml",
        *map(principle, range(3)),
        principle(3, comparison_request="Which response is kinder?"),
    )
    ended = rlaif("constitution", "impact", "one", new, "--run-id", "two")
    assert ended.code == 0, ended.err
    impact = stored_json(tmp_path / "outputs/runs/two/impact.json")
    cost = impact["costs"][0]
    now = bill(tmp_path)[len(paid) :]
    assert len(now) == cost["calls"] == 2 * impact["total"]["asked_again"] > 0
    assert sum(now) == cost["tokens"] and 0.05 < impact["cost_share"] < 0.5
    assert (
        f"{cost['calls']} of 96 calls" in ended.out and "no response was sampled again" in ended.out
    )
    again = rlaif("constitution", "impact", "one", new, "--run-id", "two")
    assert again.code == 0 and len(bill(tmp_path)) == len(paid) + len(now)
    assert "was finished before" in again.out
    assert f"{cost['calls']} of 96 calls" in again.out
    assert rlaif("resume", "two").code == 0 and rlaif("verify", "two").code == 0
    assert_one_line(
        rlaif("constitution", "impact", "one", tmp_path / "old.yaml", "--run-id", "two"),
        "is not the impact of .*old.yaml on one; give another --run-id",
    )
    assert_one_line(rlaif("constitution", "impact", "none", new), "is not a run")


def test_pairs_of_a_run_are_exported(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert rlaif("run", recipe, "--no-prefect", "--run-id", "one").code == 0
    pairs = load_dataset(RunDir(tmp_path / "outputs/runs/one"))
    assert pairs is not None
    for shape, lines_per_pair in (("trl", 1), ("openai", 1), ("kto", 2)):
        out = tmp_path / f"{shape}.jsonl"
        ended = rlaif("export", "one", "--format", shape, "--out", out)
        count = lines_per_pair * pairs.sets["preference"].rows
        assert (ended.code, len(out.read_text().splitlines())) == (0, count), ended.err
        assert ended.out == f"{out}: {count} lines of one for {shape}\n"
    again = rlaif("export", "one", "--out", tmp_path / "trl.jsonl")
    assert_one_line(again, "trl.jsonl exists already; remove it or choose another name")
    assert rlaif("export", "one", "--format", "csv", "--out", tmp_path / "x").code == 2


def test_killed_impact_goes_on(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert rlaif("run", recipe, "--no-prefect", "--run-id", "one").code == 0
    new = write_constitution(tmp_path / "new.yaml", *map(principle, range(1, 5)))
    start, hold = len(bill(tmp_path)), 11
    command = [sys.executable, "-m", "pipeline.cli", "constitution", "impact", "one", str(new)]
    process = subprocess.Popen(
        command,
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
        env=os.environ | {HOLD_AFTER: str(hold)},
    )
    while len(bill(tmp_path)) < start + hold and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    ended = rlaif("constitution", "impact", "one", new)
    assert ended.code == 0, ended.err
    (root,) = (tmp_path / "outputs/runs").glob("one-impact-*")
    impact = stored_json(root / "impact.json")
    asked = impact["total"]["asked_again"]
    paid_twice = len(bill(tmp_path)) - start - 2 * asked
    # At most what the shard in flight had asked: 4 prompts with 3 comparisons in 2 orders.
    assert impact["costs"][0]["calls"] == 2 * asked and 0 <= paid_twice <= min(hold, 24)
    rows = [row for m in stage_manifests(root, "preference/judge") for row in read_rows(root, m)]
    assert len({row.row_id for row in rows}) == len(rows) == 48
    assert rlaif("verify", root.name).code == 0 and RunDir(root).info()["status"] == "finished"
    assert check_files(RunDir(root)).uncovered == []


@pytest.fixture
def label_files(tmp_path: Path) -> Path:
    """Two sources that agree on two of three items, and one of feedback."""
    pairs = [{"prompt": f"q{i}", "chosen": "good", "rejected": "bad"} for i in range(3)]
    write_lines(tmp_path / "crowd.jsonl", *pairs)
    write_lines(
        tmp_path / "desk.jsonl", *pairs[:2], {"prompt": "q2", "chosen": "bad", "rejected": "good"}
    )
    write_lines(tmp_path / "thumbs.jsonl", {"event": "thumbs_up", "prompt": "q", "response": "r"})
    return tmp_path


def write_list(folder: Path, *names: str, **changes: Any) -> Path:
    path = folder / "list.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "sources": [
                    {
                        "type": "feedback" if name == "thumbs" else "pairs",
                        "name": name,
                        "path": str(folder / f"{name}.jsonl"),
                        **changes,
                    }
                    for name in names
                ]
            }
        )
    )
    return path


def test_labels_import_mixes_and_writes(rlaif: Rlaif, label_files: Path) -> None:
    listed, out = write_list(label_files, "crowd", "desk"), label_files / "labels.parquet"
    ended = rlaif("labels", "import", listed, "--out", out)
    assert ended.code == 0, ended.err
    for text in (
        "crowd (human): 3 of 3 rows usable",
        "6 rows from 2 sources",
        "3 items occur more than once, 1 of them labeled both ways",
    ):
        assert text in ended.out
    assert pq.read_table(out).num_rows == 6
    assert_one_line(rlaif("labels", "import", listed, "--out", out), "exists already")
    feedback = label_files / "feedback.parquet"
    assert rlaif("labels", "import", write_list(label_files, "thumbs"), "--out", feedback).code == 0
    assert pq.read_table(feedback)["label"].to_pylist() == [True]


@pytest.mark.parametrize(
    ("names", "changes", "pattern"),
    [
        (["crowd", "nobody"], {}, r"nobody.jsonl does not exist"),
        (["crowd"], {"label_acuracy": 0.9}, r"line \d+: .*did you mean 'label_accuracy'"),
        (["crowd", "thumbs"], {}, "unpaired feedback"),
    ],
)
def test_labels_import_mistakes(
    rlaif: Rlaif, label_files: Path, names: list[str], changes: dict[str, Any], pattern: str
) -> None:
    out = label_files / "labels.parquet"
    listed = write_list(label_files, *names, **changes)
    assert_one_line(rlaif("labels", "import", listed, "--out", out), pattern)
    assert not out.exists()


def test_agreement_has_kappa_of_each_pair(rlaif: Rlaif, label_files: Path) -> None:
    listed = write_list(label_files, "crowd", "desk", "thumbs")
    ended = rlaif("labels", "agreement", listed)
    assert ended.code == 0, ended.err
    assert "crowd, desk" in ended.out and "66.7 %" in ended.out and "-0.000" not in ended.out
    assert rlaif("labels", "agreement", listed, "--between", "crowd", "desk").out == ended.out
    assert_one_line(
        rlaif("labels", "agreement", listed, "--between", "crowd", "dsk"), "has no pairs of 'dsk'"
    )
    assert_one_line(
        rlaif("labels", "agreement", listed, "--between", "crowd", "thumbs"),
        "has no pairs of 'thumbs'; it has crowd, desk",
    )
    assert_one_line(
        rlaif("labels", "agreement", write_list(label_files, "thumbs")), "agreement needs two"
    )


def test_run_with_label_sources(rlaif: Rlaif, label_files: Path) -> None:
    recipe = write_recipe(label_files)
    values = yaml.safe_load(recipe.read_text())
    values["preference"]["sources"] = str(write_list(label_files, "crowd"))
    recipe.write_text(yaml.safe_dump(values))
    assert "labels        crowd (human): 3 of 3 rows usable" in rlaif("check", recipe).out
    assert rlaif("run", recipe, "--no-prefect", "--run-id", "one").code == 0
    assert rlaif("verify", "one").code == 0
    rows = pq.read_table(label_files / "outputs/runs/one/dataset/preference.parquet").to_pylist()
    imported = next(row for row in rows if row["source"] == "crowd")
    ended = rlaif("trace", imported["row_id"])
    assert ended.code == 0 and f"crowd.jsonl, line {imported['source_index']}" in ended.out


def test_narrow_terminal_hides_no_figure() -> None:
    lines = StringIO()
    out = _Console(width=20, file=lines)
    name = "an-id-that-is-wider-than-the-terminal"
    out.print(number_table(("run", "pairs", "tokens"), [(name, "1,234", "987,654")]))
    assert all(text in lines.getvalue() for text in (name, "1,234", "987,654"))
    assert out.width == 20
