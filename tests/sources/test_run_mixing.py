"""Labels of other sources in the preference set of a run: mixed, counted and traced."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config.labeling import PreferenceConfig
from pipeline.constitution import load_constitution
from pipeline.data.dataset import load_dataset
from pipeline.data.export import export_preference
from pipeline.data.lineage import trace
from pipeline.data.verify import verify
from pipeline.errors import ConfigError, DataError
from pipeline.ids import file_hash
from pipeline.records import PreferenceRow, table_from_rows
from pipeline.run.context import open_context
from pipeline.run.phases import supervised_chain
from pipeline.run.start import start_run
from pipeline.sources.config import load_mixture, load_sources
from pipeline.sources.files import record_label_files
from pipeline.store import RunDir
from pipeline.types import user
from tests.run.builders import CONFIG, make_preference_set, whole_run, write_recipe
from tests.sources.builders import write_lines

PROMPTS = 12


def write_list(folder: Path, *sources: dict[str, Any], **values: Any) -> Path:
    path = folder / "sources.yaml"
    path.write_text(yaml.safe_dump({"sources": list(sources), **values}))
    return path


def crowd(folder: Path, count: int = 8, **values: Any) -> dict[str, Any]:
    """A source of that many pairs, and its file."""
    lines = [
        {"prompt": f"Crowd asks {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"}
        for i in range(count)
    ]
    write_lines(folder / "crowd.jsonl", *lines)
    return {
        "type": "pairs",
        "name": "crowd",
        "path": str(folder / "crowd.jsonl"),
        "label_accuracy": 0.8,
        **values,
    }


def start(folder: Path, sources: Path | None, run_id: str = "mixed") -> RunDir:
    preference = {"sources": str(sources)} if sources else {}
    recipe = write_recipe(folder, prompts=PROMPTS, preference=preference)
    return start_run(recipe, run_id=run_id, runs_root_folder=folder / "runs")


def pairs(run: RunDir) -> list[dict[str, Any]]:
    return list(pq.read_table(run.dataset / "preference.parquet").to_pylist())


def own_count(folder: Path) -> int:
    (folder / "plain").mkdir(exist_ok=True)
    run = start(folder / "plain", None)
    make_preference_set(run)
    assert {row["source"] for row in pairs(run)} == {"run"}
    return len(pairs(run))


def test_without_run_entry_all_own_pairs_stay(tmp_path: Path) -> None:
    num_own = own_count(tmp_path)
    run = start(tmp_path, write_list(tmp_path, crowd(tmp_path, weight=0.5)))
    counts = make_preference_set(run)
    by_source = Counter(row["source"] for row in pairs(run))
    assert by_source == {"run": num_own, "crowd": round(0.5 * num_own)}
    assert counts["candidates"] == counts["rows"] + sum(counts["reasons"].values())
    assert counts["reasons"]["crowd: left out by weight"] == 8 - round(0.5 * num_own)
    assert verify(run) == []


def test_run_entry_shares_by_weight(tmp_path: Path) -> None:
    num_own = own_count(tmp_path)
    run = start(
        tmp_path,
        write_list(
            tmp_path,
            crowd(tmp_path, weight=2.0),
            {"type": "run", "name": "judge", "weight": 1.0},
            size=6,
        ),
    )
    make_preference_set(run)
    assert Counter(row["source"] for row in pairs(run)) == {"judge": 2, "crowd": 4}
    manifest = load_dataset(run)
    assert manifest and manifest.sets["preference"].reasons["left out by weight"] == num_own - 2
    assert verify(run) == []
    # A larger mixture contains the smaller one.
    few = {row["row_id"] for row in pairs(run)}
    (tmp_path / "more").mkdir()
    more = start(
        tmp_path / "more",
        write_list(
            tmp_path / "more", crowd(tmp_path, weight=2.0), {"type": "run", "name": "judge"}, size=9
        ),
    )
    make_preference_set(more)
    assert few < {row["row_id"] for row in pairs(more)}


def test_imported_rows_have_trust_and_no_principle(tmp_path: Path) -> None:
    run = start(tmp_path, write_list(tmp_path, crowd(tmp_path)))
    make_preference_set(run)
    rows = [row for row in pairs(run) if row["source"] == "crowd"]
    for row in rows:
        assert row["principle_id"] == row["judgment_id"] == "" and row["soft_label"] == 0.8
        assert row["run_id"] == "mixed" and row["comparison"] == "imported"
    assert all(row["principle_id"] for row in pairs(run) if row["source"] == "run")
    card = (run.dataset / "README.md").read_text()
    assert f"| crowd | human | 8 | 8 | {len(rows)}" in card and "0.8" in card
    assert file_hash(tmp_path / "crowd.jsonl") in card


def test_trace_ends_at_file_and_line(tmp_path: Path) -> None:
    run = start(tmp_path, write_list(tmp_path, crowd(tmp_path)))
    make_preference_set(run)
    row = next(row for row in pairs(run) if row["source"] == "crowd")
    origin = trace(run, row["row_id"])
    (label,) = origin.parents
    assert label.kind == "label" and label.file.endswith("crowd.jsonl") and not label.parents
    line = (tmp_path / "crowd.jsonl").read_text().splitlines()[label.row["source_index"] - 1]
    assert row["chosen"] in line and label.row_id == file_hash(tmp_path / "crowd.jsonl")
    own = next(row for row in pairs(run) if row["source"] == "run")
    assert trace(run, own["row_id"]).parents[0].kind == "judgment"


def test_held_out_prompts_stay_out(tmp_path: Path) -> None:
    source = crowd(tmp_path)
    with (tmp_path / "crowd.jsonl").open("a") as stream:
        stream.write('{"prompt": " heldout question 1?\\n", "chosen": "a", "rejected": "b"}\n')
    run = start(tmp_path, write_list(tmp_path, {**source, "weight": 99.0}))
    counts = make_preference_set(run)
    assert counts["reasons"]["crowd: its prompt is held out"] == 1
    assert not any("heldout" in row["messages"][-1]["content"] for row in pairs(run))
    assert verify(run) == []


def test_held_out_prompts_of_a_data_set_stay_out(tmp_path: Path) -> None:
    """A data set keeps its line breaks; a prompt that was held out at the start stays held out."""
    row = PreferenceRow(
        row_id="p1",
        messages=(user("heldout question 1?\n"),),
        chosen="a",
        rejected="b",
        soft_label=0.9,
    )
    path = tmp_path / "other.parquet"
    pq.write_table(
        table_from_rows(
            [row, replace(row, row_id="p2", messages=(user("Is it open?\n"),))], PreferenceRow
        ),
        path,
    )
    run = start(
        tmp_path,
        write_list(
            tmp_path, {"type": "dataset", "name": "before", "path": str(path), "weight": 99.0}
        ),
    )
    asyncio.run(supervised_chain(open_context(run)))
    (tmp_path / "heldout.jsonl").write_text('{"prompt": "other?"}\n')
    assert make_preference_set(run)["reasons"]["before: its prompt is held out"] == 1
    imported = [row["messages"][0]["content"] for row in pairs(run) if row["source"] == "before"]
    assert imported == ["Is it open?\n"]


def test_own_pairs_of_a_dataset_source_come_once(tmp_path: Path) -> None:
    num_own = own_count(tmp_path)
    plain = tmp_path / "plain/runs/mixed/dataset/preference.parquet"
    run = start(
        tmp_path,
        write_list(
            tmp_path,
            {"type": "dataset", "name": "before", "path": str(plain)},
            {"type": "dataset", "name": "twice", "path": str(plain)},
        ),
    )
    counts = make_preference_set(run)
    assert counts["reasons"]["before: the run has this pair itself"] == num_own
    assert len(pairs(run)) == num_own and verify(run) == []


def test_changed_label_file_is_refused(tmp_path: Path) -> None:
    run = start(tmp_path, write_list(tmp_path, crowd(tmp_path)))
    crowd(tmp_path, count=9)
    with pytest.raises(DataError, match=r"crowd.jsonl has changed since run mixed began"):
        make_preference_set(run)
    crowd(tmp_path)
    make_preference_set(run)
    (run.root / "labeling/sources.yaml").write_text("sources: []")
    assert "labeling/sources.yaml: changed since the run began" in verify(run)


@pytest.mark.parametrize(
    ("sources", "values", "match"),
    [
        ([{"type": "run"}], {}, "only source in the list"),
        (
            [
                {"type": "run"},
                {"type": "run", "name": "b"},
                {"type": "dataset", "name": "x", "path": "x"},
            ],
            {},
            "both mean the run itself",
        ),
        ([{"type": "dataset", "name": "x", "path": "x"}], {"size": 5}, "add one, or remove size"),
    ],
)
def test_lists_that_fit_no_run_are_refused(
    tmp_path: Path, sources: list[dict[str, Any]], values: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        load_mixture(write_list(tmp_path, *sources, **values))


def test_missing_label_file_stops_the_start(tmp_path: Path) -> None:
    listed = write_list(
        tmp_path, {"type": "pairs", "name": "x", "path": str(tmp_path / "no.jsonl")}
    )
    with pytest.raises(DataError, match=r"no.jsonl does not exist"):
        start(tmp_path, listed)
    assert not (tmp_path / "runs").exists()


def test_run_entry_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'run'"):
        load_sources(write_list(tmp_path, crowd(tmp_path), {"type": "run"}))


async def test_next_version_takes_other_rows(tmp_path: Path) -> None:
    """Two nights with one list: 5 pairs each, so weight 0.4 adds 2 rows a night, never the same."""
    listed = write_list(tmp_path, crowd(tmp_path, weight=0.4))
    config = CONFIG.model_copy(update={"preference": PreferenceConfig(sources=listed)})
    for name, first, info in (("a", 0, {}), ("b", 100, {"parent": "a"})):
        run = await whole_run(tmp_path / name, prompts=5, first=first, **info)
        (run.root / "labeling").mkdir()
        (run.root / "labeling/sources.yaml").write_bytes(listed.read_bytes())
        record_label_files(run, load_mixture(listed))
        counts = export_preference(run, config, load_constitution(run.constitution))
        assert counts["rows"] - counts["from_parent"] == 7 and verify(run) == []
    assert (
        counts["from_parent"] == 7
        and counts["reasons"]["crowd: already in the parent's version"] == 2
    )
    rows = [row for row in pairs(run) if row["source"] == "crowd"]
    assert len({row["row_id"] for row in rows}) == 4 and {row["run_id"] for row in rows} == {
        "a",
        "b",
    }
    from_parent = next(row for row in rows if row["run_id"] == "a")
    assert trace(run, from_parent["row_id"]).parents[0].run_id == "a"
