"""Whole runs with the labelers that look at one response at a time."""

import asyncio
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.data.lineage import trace
from pipeline.data.verify import verify
from pipeline.errors import ConfigError
from pipeline.report.pairs import sample_pairs
from pipeline.run.context import open_context
from pipeline.run.phases import run_all
from pipeline.run.start import start_run
from pipeline.store import RunDir
from pipeline.store.shards import stage_manifests
from tests.run.builders import write_recipe

LABELERS: dict[str, dict[str, Any]] = {
    "drawn": {"labeler": "score"},
    "vector": {"labeler": "score", "score": {"principles": "all"}},
    "follow_up": {"labeler": "follow_up"},
    "control": {"labeler": "follow_up", "follow_up": {"neutral_reply": "Okay."}},
    "rewards": {
        "labeler": "reward_model",
        "reward_model": {
            "engine": {"type": "scripted", "script": "tests.run.scripted_world:make_engine"}
        },
    },
}
Whole = Callable[[str], RunDir]
STAGES = ("preference/score", "preference/judge", "preference/pair")


def started(folder: Path, preference: dict[str, Any], **changes: Any) -> RunDir:
    """A run that has not done anything yet."""
    recipe = write_recipe(folder / "in", preference=preference, **changes)
    return start_run(recipe, run_id="r1", runs_root_folder=folder / "out" / "runs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An audited run with a labeler, made once; no test changes it."""
    folder = tmp_path_factory.mktemp("labelers")
    audit = {"enabled": True, "canaries": None}

    @cache
    def make(name: str) -> RunDir:
        return asyncio.run(finished(folder / name, LABELERS[name] | {"audit": audit}, prompts=20))

    return make


def copied(run: RunDir, folder: Path) -> RunDir:
    """A copy that a test may change."""
    shutil.copytree(run.root, folder / run.root.name)
    return RunDir(folder / run.root.name)


async def finished(folder: Path, preference: dict[str, Any], **changes: Any) -> RunDir:
    """A whole run."""
    run = started(folder, preference, **changes)
    await run_all(open_context(run))
    return run


def rows(run: RunDir, stage: str) -> list[dict[str, Any]]:
    """All rows of a stage."""
    return [
        row
        for m in stage_manifests(run.root, stage)
        for row in pq.read_table(run.root / m.path).to_pylist()
    ]


@pytest.mark.parametrize("name", LABELERS)
def test_chosen_is_the_polite_one(whole: Whole, name: str) -> None:
    run = whole(name)
    pairs = pq.read_table(run.dataset / "preference.parquet").to_pylist()
    assert pairs
    for pair in pairs:
        assert "polite" in pair["chosen"] and "rude" in pair["rejected"]
        assert pair["position_gap"] is None
    methods = {row["method"] for row in rows(run, "preference/judge")}
    assert methods == {LABELERS[name]["labeler"]}
    assert not verify(run)


@pytest.mark.parametrize("name", LABELERS)
def test_pair_is_traced_to_both_scores(whole: Whole, name: str) -> None:
    run = whole(name)
    pair = pq.read_table(run.dataset / "preference.parquet").to_pylist()[0]
    kinds = [origin.kind for origin in trace(run, pair["row_id"]).walk()]
    assert kinds.count("score") == 2 and {"preference", "judgment", "response", "prompt"} <= set(
        kinds
    )


@pytest.mark.parametrize("name", LABELERS)
def test_report_tells_length_and_no_orders(whole: Whole, name: str) -> None:
    run = whole(name)
    metrics = json.loads(run.metrics.read_text())
    (entry,) = metrics["scores"]
    assert entry["n"] == 40 and set(entry["length"]) == {
        "pearson",
        "spearman",
        "pearson_within",
        "spearman_within",
    }
    labels = metrics["data"]["labels"]
    assert labels["position_consistency"] is None and labels["labeled"] > 0
    assert metrics["win_rates"] == [] or metrics["win_rates"][0]["win_rate"] is not None
    page, text = run.report.read_text(), (run.root / "report.md").read_text()
    assert "how much they follow the number of words" in page and "How sure are the labels?" in page
    assert "Does the label survive" not in page
    assert "## Scores and length" in text and "Spearman within prompts" in text
    card = (run.dataset / "README.md").read_text()
    assert "report.md says how much the scores follow length" in " ".join(card.split())
    ids = [row["id"] for row in metrics["principles"] if row["drawn"]]
    without = LABELERS[name]["labeler"] in ("follow_up", "reward_model")
    assert ids == ([] if without else ["p-0", "p-1", "p-2"])


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("vector", "revision_vs_initial"),
        ("vector", "best_vs_worst"),
        ("control", "best_vs_worst"),
        ("control", "all"),
        ("rewards", "all"),
    ],
)
async def test_every_comparison_mode_runs(tmp_path: Path, name: str, mode: str) -> None:
    preference = {**LABELERS[name], "comparisons": mode, "sample": {"num_samples": 3}}
    run = await finished(tmp_path, preference)
    kinds = {row["comparison"] for row in rows(run, "preference/judge")}
    assert kinds == ({"samples", "revision_vs_initial"} if mode == "all" else {mode})
    assert not verify(run)


@pytest.mark.parametrize("name", LABELERS)
def test_killed_run_ends_with_the_same_rows(tmp_path: Path, whole: Whole, name: str) -> None:
    """Shards that a kill left without a file, or with a file and no manifest, are made again."""
    killed = copied(whole(name), tmp_path)
    for number, stage in enumerate(STAGES):
        for manifest in stage_manifests(killed.root, stage)[number:]:
            path = killed.root / manifest.path
            path.with_suffix(".json").unlink()
            if number % 2:
                path.unlink()
    asyncio.run(run_all(open_context(killed)))
    for stage in STAGES:
        assert rows(killed, stage) == rows(whole(name), stage), stage
    assert not verify(killed)


def test_second_call_makes_nothing(tmp_path: Path, whole: Whole) -> None:
    run = copied(whole("control"), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in run.root.rglob("shard-*")}
    asyncio.run(run_all(open_context(run)))
    assert {p: p.stat().st_mtime_ns for p in run.root.rglob("shard-*")} == before


def test_browser_shows_which_part_decided(whole: Whole) -> None:
    shown = [pair for pair in sample_pairs(whole("vector")) if pair["status"] == "ok"]
    assert shown
    for pair in shown:
        assert {name for name, _ in pair["parts"]} == {"p-0", "p-1", "p-2"}
        assert all(value > 0 for _, value in pair["parts"])
        assert (pair["orders"], pair["agree"], pair["gap"]) == (None, None, None)


async def test_panel_is_pooled(tmp_path: Path) -> None:
    """The second rater likes what the first does not, so all labels are ties."""
    other = {
        "type": "scripted",
        "script": "tests.run.scripted_world:make_engine",
        "args": {"prefers": "rude"},
    }
    run = await finished(tmp_path, LABELERS["vector"], panel=[other])
    assert stage_manifests(run.root, "preference/score-2")
    assert {
        row["num_verdicts"] for row in rows(run, "preference/pool") if row["status"] == "ok"
    } == {2}
    # Two polite or two rude responses tie as well: no pair is left.
    assert {row["reason"] for row in rows(run, "preference/pair")} == {"tie"}
    assert [entry["folder"] for entry in json.loads(run.metrics.read_text())["scores"]] == [
        "preference/score",
        "preference/score-2",
    ]
    assert not verify(run)


async def test_run_reads_its_copy_of_the_follow_ups(tmp_path: Path) -> None:
    path = tmp_path / "follow_ups.yaml"
    path.write_text((PROJECT_ROOT / "prompts/follow_ups/helpfulness.yaml").read_text())
    preference = {"labeler": "follow_up", "follow_up": {"follow_ups": str(path)}}
    run = started(tmp_path, preference)
    path.write_text("broken: [")
    await run_all(open_context(run))
    assert "labeling/follow_ups.yaml" in run.info()["files"]


def test_missing_follow_up_file_writes_nothing(tmp_path: Path) -> None:
    preference = {"labeler": "follow_up", "follow_up": {"follow_ups": "nowhere.yaml"}}
    with pytest.raises(ConfigError, match=r"follow-up file .*nowhere.yaml does not exist"):
        started(tmp_path, preference)
    assert not (tmp_path / "out").exists()


async def test_repeated_sentences_are_told(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(
        "name: twice\ncategories: [{id: c, positive: [good, good, great], negative: [bad]}]\n"
    )
    kept = {"follow_ups": str(path), "deduplicate": False}
    for name, section, num, words in (
        ("once", {"follow_ups": str(path)}, 3, "counted once"),
        ("kept", kept, 4, "kept"),
    ):
        run = await finished(tmp_path / name, {"labeler": "follow_up", "follow_up": section})
        assert {len(row["details"]) for row in rows(run, "preference/score")} == {num}
        assert (
            f"Follow-ups 'twice': 1 repeated sentence {words}."
            in (run.root / "report.md").read_text()
        )


@pytest.mark.parametrize("name", LABELERS)
def test_audit_takes_labels_without_orders(whole: Whole, name: str) -> None:
    run = whole(name)
    audit = json.loads((run.root / "preference" / "audit.json").read_text())
    assert audit["passed"] and not stage_manifests(run.root, "preference/canary")
