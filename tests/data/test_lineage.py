"""From any row back to its prompt, and every damage found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.constitution import load_constitution
from pipeline.data.export import export_preference, export_sft
from pipeline.data.lineage import Origin, trace
from pipeline.data.verify import verify
from pipeline.errors import StoreError, UserError
from pipeline.store import RunDir, write_json
from tests.run.builders import CONFIG, whole_run


async def finished_run(root: Path, prompts: int = 6, **options: Any) -> RunDir:
    """A run with both data sets."""
    run = await whole_run(root, prompts, **options)
    constitution = load_constitution(run.constitution)
    export_sft(run, CONFIG, constitution), export_preference(run, CONFIG, constitution)
    return run


def first_row(run: RunDir, name: str) -> dict[str, Any]:
    return dict(pq.read_table(run.dataset / f"{name}.parquet").to_pylist()[0])


def kinds(origin: Origin) -> list[str]:
    return [node.kind for node in origin.walk() if not node.shown_before]


async def test_pair_is_traced_to_its_prompt(tmp_path: Path) -> None:
    run = await finished_run(tmp_path / "r")
    row = first_row(run, "preference")
    origin = trace(run, row["row_id"])
    assert kinds(origin) == ["preference", "judgment", "prompt", "response", "response"]
    (judgment,) = origin.parents
    assert judgment.row["prob_forward"] + judgment.row["prob_swapped"] == pytest.approx(1)
    assert judgment.principle is not None
    assert judgment.principle.comparison_request == f"COMPARE {judgment.row['principle_id'][2:]}"
    assert judgment.engine["name"] == "scripted" and judgment.row["template_hash"]
    prompt, *responses = judgment.parents
    assert prompt.row["messages"] == row["messages"]
    assert {r.row["response"] for r in responses} == {row["chosen"], row["rejected"]}
    assert all(r.parents[0].shown_before and r.row["seed"] for r in responses)


async def test_revision_is_traced_through_its_rounds(tmp_path: Path) -> None:
    run = await finished_run(tmp_path / "r")
    rows = pq.read_table(run.dataset / "sft.parquet").to_pylist()
    row = next(row for row in rows if row["round"] == 2)
    origin = trace(run, row["row_id"])
    assert kinds(origin) == [
        "sft",
        "prompt",
        "revision",
        "revision",
        "response",
        "critique",
        "critique",
    ]
    principles = [node.principle for node in origin.walk() if node.principle]
    assert principles and all("CRITIQUE" in each.critique_request for each in principles)
    assert row["completion"] in [node.row.get("revision") for node in origin.walk()]


async def test_beginning_of_an_id_is_enough(tmp_path: Path) -> None:
    run = await finished_run(tmp_path / "r")
    row_id = first_row(run, "preference")["judgment_id"]
    assert trace(run, row_id[:10]).row_id == row_id == trace(run, row_id).row_id
    for unknown in (row_id[:4], "f" * 24, "", "no such id"):
        with pytest.raises(UserError, match=r"run r has no row .*; take an id from"):
            trace(run, unknown)


async def test_parents_row_is_traced_into_its_run(tmp_path: Path) -> None:
    old = await finished_run(tmp_path / "one", 3)
    new = await finished_run(tmp_path / "two", 3, first=3, parent="one")
    origin = trace(new, first_row(old, "preference")["row_id"])
    assert {node.run_id for node in origin.walk()} == {"one"}
    last = pq.read_table(new.dataset / "preference.parquet").to_pylist()[-1]
    assert {node.run_id for node in trace(new, last["row_id"]).walk()} == {"two"}
    assert verify(old) == verify(new) == []


async def test_folder_without_run_is_refused(tmp_path: Path) -> None:
    for check in (verify, lambda run: trace(run, "a" * 24)):
        with pytest.raises(StoreError, match="is not a run"):
            check(RunDir(tmp_path))


def rewrite(path: str, change: Callable[[Any], Any]) -> Callable[[RunDir], None]:
    """Change a JSON file of the run."""

    def apply(run: RunDir) -> None:
        value = json.loads((run.root / path).read_text())
        change(value)
        write_json(run.root / path, value)

    return apply


def flip(path: str) -> Callable[[RunDir], None]:
    """Change one byte of a file."""

    def apply(run: RunDir) -> None:
        data = bytearray((run.root / path).read_bytes())
        data[len(data) // 2] ^= 1
        (run.root / path).write_bytes(bytes(data))

    return apply


def swap_shards(run: RunDir) -> None:
    """Two shards of a stage take each other's place, with files and hashes that fit."""
    folder = run.root / "supervised/sample"
    one, two = folder / "shard-00000", folder / "shard-00001"
    for suffix in (".parquet", ".json"):
        first, second = (
            one.with_suffix(suffix).read_text("latin-1"),
            two.with_suffix(suffix).read_text("latin-1"),
        )
        if suffix == ".json":
            first, second = (
                first.replace("-00000.p", "-00001.p"),
                second.replace("-00001.p", "-00000.p"),
            )
        one.with_suffix(suffix).write_text(second, "latin-1")
        two.with_suffix(suffix).write_text(first, "latin-1")


DAMAGES: dict[str, tuple[Callable[[RunDir], object], str]] = {
    "flipped bit": (flip("supervised/sample/shard-00000.parquet"), "damaged or changed"),
    "lost file": (
        lambda run: (run.root / "preference/judge/shard-00001.parquet").unlink(),
        "missing, although its manifest is there",
    ),
    "lost manifest": (
        lambda run: (run.root / "preference/judge/shard-00001.json").unlink(),
        "has no manifest, so its shard is unfinished",
    ),
    "broken manifest": (
        lambda run: (run.root / "prompts/shard-00000.json").write_text("{"),
        "prompts/shard-00000.json: not a manifest",
    ),
    "counts": (
        rewrite("preference/pair/shard-00000.json", lambda m: m["counts"].update(ok=99)),
        "counts do not add up",
    ),
    "reasons": (
        rewrite("preference/pair/shard-00000.json", lambda m: m["reasons"].update(x=1)),
        "the reasons do not add up",
    ),
    "swapped shards": (swap_shards, "was made from another version of supervised/sample"),
    "edited constitution": (
        lambda run: run.constitution.write_text("name: other\n"),
        "constitution.yaml: changed since the run began",
    ),
    "lost recipe": (lambda run: run.recipe.unlink(), "recipe.yaml: missing"),
    "data set": (
        flip("dataset/preference.parquet"),
        "dataset/preference.parquet: damaged or changed",
    ),
    "row count": (
        rewrite("dataset/manifest.json", lambda m: m["sets"]["sft"].update(rows=3)),
        "12 rows, but its manifest says 3",
    ),
    "dataset manifest": (
        lambda run: (run.dataset / "manifest.json").write_text("{}"),
        "dataset/manifest.json: not a dataset manifest",
    ),
    "training": (
        lambda run: write_json(run.training("sft") / "result.json", {"dataset_sha256": "0"}),
        "training/sft: was trained on another version of dataset/sft.parquet",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    run = await finished_run(tmp_path / "r")
    assert verify(run) == []
    apply, message = DAMAGES[damage]
    apply(run)
    problems = verify(run)
    assert any(message in problem for problem in problems), problems


async def test_trained_model_names_its_pairs(tmp_path: Path) -> None:
    run = await finished_run(tmp_path / "r")
    sha = json.loads((run.dataset / "manifest.json").read_text())["sets"]["sft"]["sha256"]
    write_json(run.training("sft") / "result.json", {"dataset_sha256": sha})
    assert verify(run) == []
