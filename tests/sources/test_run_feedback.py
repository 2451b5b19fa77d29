"""Thumbs and regenerate events of a run: a data set of their own, counted and traced."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config.labeling import PreferenceConfig
from pipeline.config.training import DpoConfig, KtoConfig
from pipeline.constitution import load_constitution
from pipeline.data.dataset import FEEDBACK_SCHEMA, load_dataset
from pipeline.data.export import export_preference
from pipeline.data.json_lines import export_lines
from pipeline.data.lineage import trace
from pipeline.data.verify import verify
from pipeline.errors import ConfigError
from pipeline.ids import file_hash
from pipeline.run.phases import feedback_file
from pipeline.run.start import start_run
from pipeline.sources.config import load_mixture
from pipeline.sources.files import record_label_files
from pipeline.store import RunDir, write_json
from tests.cli.commands import Rlaif
from tests.run.builders import CONFIG, make_preference_set, whole_run, write_recipe
from tests.sources.builders import write_lines


def event(number: int, kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "event": kind,
        "prompt": f"Users ask {number}?",
        "response": f"reply {number}",
    } | changes


EVENTS = [
    event(0, "thumbs_up"),
    event(1, "thumbs_down"),
    event(2, "regenerate"),
    event(3, "thumbs_up"),
    # One reply whose events cancel out, and one to a prompt that is held out.
    event(4, "thumbs_up"),
    event(4, "thumbs_down"),
    event(5, "thumbs_up", prompt=" heldout question 1?\n"),
]


def thumbs(folder: Path, *events: dict[str, Any], **values: Any) -> dict[str, Any]:
    path = write_lines(folder / "thumbs.jsonl", *(events or EVENTS))
    return {"type": "feedback", "name": "thumbs", "path": str(path), **values}


def write_list(folder: Path, *sources: dict[str, Any], **values: Any) -> Path:
    path = folder / "sources.yaml"
    path.write_text(yaml.safe_dump({"sources": list(sources), **values}))
    return path


def finished(folder: Path, listed: Path) -> tuple[RunDir, dict[str, Any]]:
    recipe = write_recipe(folder, prompts=12, preference={"sources": str(listed)})
    run = start_run(recipe, run_id="mixed", runs_root_folder=folder / "runs")
    return run, make_preference_set(run)


def read(run: RunDir, name: str = "feedback") -> list[dict[str, Any]]:
    return list(pq.read_table(run.dataset / f"{name}.parquet").to_pylist())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, dict[str, Any]]:
    """A run with its own pairs, those of a crowd, and thumbs."""
    folder = tmp_path_factory.mktemp("mixed")
    crowd = write_lines(
        folder / "crowd.jsonl",
        *({"prompt": f"Crowd asks {i}?", "chosen": "good", "rejected": "bad"} for i in range(3)),
    )
    return finished(
        folder,
        write_list(folder, {"type": "pairs", "name": "crowd", "path": str(crowd)}, thumbs(folder)),
    )


def test_feedback_gets_a_file_of_its_own(mixed: tuple[RunDir, dict[str, Any]]) -> None:
    run, counts = mixed
    rows = read(run)
    assert tuple(rows[0]) == tuple(FEEDBACK_SCHEMA.names)
    found = {row["completion"]: (row["label"], row["weight"], row["source_index"]) for row in rows}
    assert found == {
        "reply 0": (True, 1.0, 1),
        "reply 1": (False, 1.0, 2),
        "reply 2": (False, 0.5, 3),
        "reply 3": (True, 1.0, 4),
    }
    assert {(row["source"], row["run_id"], row["status"]) for row in rows} == {
        ("thumbs", "mixed", "ok")
    }
    assert Counter(row["source"] for row in read(run, "preference"))["crowd"] == 3
    assert counts["feedback"]["rows"] == 4 and counts["feedback"]["version"] == 1


def test_rows_left_out_are_counted_in_their_set(mixed: tuple[RunDir, dict[str, Any]]) -> None:
    run, _ = mixed
    manifest = load_dataset(run)
    assert manifest is not None
    feedback, preference = manifest.sets["feedback"], manifest.sets["preference"]
    assert feedback.reasons == {
        "thumbs: the events cancel out": 1,
        "thumbs: its prompt is held out": 1,
    }
    assert (feedback.candidates, feedback.rows, feedback.from_parent) == (6, 4, 0)
    assert not any("thumbs" in reason for reason in preference.reasons)
    assert preference.candidates == preference.rows + sum(preference.reasons.values())
    assert [use.name for use in preference.sources] == ["run", "crowd"]
    (use,) = feedback.sources
    assert (use.kind, use.rows, use.usable, use.num_selected, use.label_accuracy) == (
        "user",
        6,
        5,
        4,
        None,
    )
    assert verify(run) == []


def test_card_describes_the_feedback(mixed: tuple[RunDir, dict[str, Any]]) -> None:
    run, _ = mixed
    card = (run.dataset / "README.md").read_text()
    thumbs_part = card[card.index("## feedback.parquet") : card.index("## preference.parquet")]
    assert "data_files: feedback.parquet" in card and "4 rows; SHA-256" in thumbs_part
    assert "| left out: thumbs: its prompt is held out | 1 |" in thumbs_part
    assert (
        "| thumbs | user | 6 | 5 | 4" in thumbs_part
        and "Each reply is judged on its own" in thumbs_part
    )
    assert file_hash(run.root.parent.parent / "thumbs.jsonl") in thumbs_part
    assert "thumbs" not in card[card.index("## preference.parquet") :]


def test_trace_of_feedback_ends_at_file_and_line(mixed: tuple[RunDir, dict[str, Any]]) -> None:
    run, _ = mixed
    row = next(row for row in read(run) if row["completion"] == "reply 2")
    origin = trace(run, row["row_id"][:12])
    (label,) = origin.parents
    assert (origin.kind, label.kind, label.parents) == ("feedback", "label", ())
    assert label.file.endswith("thumbs.jsonl") and label.row["source_index"] == 3
    assert label.row_id == file_hash(run.root.parent.parent / "thumbs.jsonl")


def test_changed_byte_and_other_training_are_found(mixed: tuple[RunDir, dict[str, Any]]) -> None:
    run, counts = mixed
    path, result = run.dataset / "feedback.parquet", run.training("preference") / "result.json"
    data = path.read_bytes()
    trained = {
        "method": "kto",
        "dataset_sha256": counts["sha256"],
        "feedback_sha256": counts["feedback"]["sha256"],
    }
    other = "training/preference: was trained on another version of dataset/feedback.parquet"
    try:
        write_json(result, trained)
        assert verify(run) == []
        write_json(result, trained | {"feedback_sha256": ""})
        assert verify(run) == [other]
        write_json(result, trained | {"method": "dpo"})
        assert verify(run) == [other]
        write_json(result, trained)
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        path.write_bytes(bytes(flipped))
        assert verify(run) == [
            "dataset/feedback.parquet: damaged or changed (its hash differs from its manifest)",
            other,
        ]
    finally:
        path.write_bytes(data)
        result.unlink()


def test_kto_alone_reads_the_feedback(mixed: tuple[RunDir, dict[str, Any]]) -> None:
    run, _ = mixed
    assert feedback_file(run, KtoConfig()) == run.dataset / "feedback.parquet"
    assert feedback_file(run, DpoConfig()) is None


def test_feedback_follows_the_pairs_in_kto_lines(
    mixed: tuple[RunDir, dict[str, Any]], tmp_path: Path
) -> None:
    run, counts = mixed
    assert export_lines(run, tmp_path / "kto.jsonl", "kto").lines == 2 * counts["rows"] + 4
    first = read(run)[0]
    line = json.loads((tmp_path / "kto.jsonl").read_text().splitlines()[-4])
    assert line == {
        "prompt": first["messages"],
        "label": first["label"],
        "completion": [{"role": "assistant", "content": first["completion"]}],
    }
    assert export_lines(run, tmp_path / "trl.jsonl", "trl").lines == counts["rows"]


def test_weight_counts_a_reply_as_one_label(tmp_path: Path) -> None:
    """Shares of 6 by 1 to 2: two pairs of the run and four replies."""
    run, counts = finished(
        tmp_path,
        write_list(tmp_path, thumbs(tmp_path, weight=2.0), {"type": "run", "weight": 1.0}, size=6),
    )
    assert (len(read(run, "preference")), len(read(run))) == (2, 4)
    assert counts["reasons"]["left out by weight"] > 0 and verify(run) == []
    (tmp_path / "few").mkdir()
    few, counts = finished(
        tmp_path / "few",
        write_list(
            tmp_path / "few",
            thumbs(tmp_path / "few", weight=1.0),
            {"type": "run", "weight": 1.0},
            size=4,
        ),
    )
    assert (len(read(few, "preference")), len(read(few))) == (2, 2)
    assert counts["feedback"]["reasons"]["thumbs: left out by weight"] == 2
    # A larger mixture contains the smaller one.
    assert {row["row_id"] for row in read(few)} < {row["row_id"] for row in read(run)}


def test_same_label_of_a_second_source_comes_once(tmp_path: Path) -> None:
    """A second file says the same of one reply and the opposite of another: both are told."""
    first = thumbs(tmp_path, event(0, "thumbs_up"), event(1, "thumbs_up"))
    again = write_lines(tmp_path / "again.jsonl", event(0, "thumbs_up"), event(1, "thumbs_down"))
    run, counts = finished(
        tmp_path,
        write_list(tmp_path, first, {"type": "feedback", "name": "again", "path": str(again)}),
    )
    assert counts["feedback"]["reasons"] == {"again: the same row as in an earlier source": 1}
    assert sorted((row["source"], row["completion"], row["label"]) for row in read(run)) == [
        ("again", "reply 1", False),
        ("thumbs", "reply 0", True),
        ("thumbs", "reply 1", True),
    ]
    assert verify(run) == []


async def test_next_version_keeps_the_feedback(tmp_path: Path) -> None:
    """The second night adds one event; a third without feedback in its list keeps the rows."""
    for name, first, events, info in (
        ("a", 0, EVENTS[:2], {}),
        ("b", 100, EVENTS[:3], {"parent": "a"}),
        ("c", 200, [], {"parent": "b"}),
    ):
        sources = [thumbs(tmp_path, *events)] if events else []
        listed = write_list(tmp_path, *sources)
        config = CONFIG.model_copy(
            update={"preference": PreferenceConfig(sources=listed if events else None)}
        )
        run = await whole_run(tmp_path / name, prompts=5, first=first, **info)
        if events:
            (run.root / "labeling").mkdir()
            (run.root / "labeling/sources.yaml").write_bytes(listed.read_bytes())
            record_label_files(run, load_mixture(listed))
        counts = export_preference(run, config, load_constitution(run.constitution))["feedback"]
        assert verify(run) == []
        if name == "b":
            assert counts["reasons"] == {"thumbs: already in the parent's version": 2}
            assert (counts["rows"], counts["from_parent"]) == (3, 2)
    assert (counts["rows"], counts["from_parent"], counts["candidates"]) == (3, 3, 0)
    assert [row["run_id"] for row in read(run)] == ["a", "a", "b"]
    assert trace(run, read(run)[0]["row_id"]).parents[0].run_id == "a"


def test_run_without_feedback_has_no_such_file(tmp_path: Path) -> None:
    crowd = write_lines(
        tmp_path / "crowd.jsonl", {"prompt": "Hi", "chosen": "good", "rejected": "bad"}
    )
    run, counts = finished(
        tmp_path, write_list(tmp_path, {"type": "pairs", "name": "crowd", "path": str(crowd)})
    )
    assert not (run.dataset / "feedback.parquet").exists() and "feedback" not in counts
    assert feedback_file(run, KtoConfig()) is None


def test_method_must_learn_from_single_replies(tmp_path: Path) -> None:
    listed = write_list(tmp_path, thumbs(tmp_path), {"type": "run"})
    for method in (None, "kto"):
        assert len(load_mixture(listed, method).files) == 1
    for method in ("dpo", "ipo", "robust_dpo", "orpo", "simpo"):
        with pytest.raises(
            ConfigError, match=f"method is '{method}', which learns from pairs alone"
        ):
            load_mixture(listed, method)


def test_wrong_method_stops_check_and_run(rlaif: Rlaif, tmp_path: Path) -> None:
    """One line, exit code 2, nothing written; with kto the same list is fine."""
    listed = write_list(tmp_path, thumbs(tmp_path))
    policy = {"type": "vllm", "model": "models/pocket"}
    for method in ("dpo", "kto"):
        recipe = write_recipe(
            tmp_path,
            policy=policy,
            preference={"sources": str(listed), "train": {"method": method}},
        )
        checked = rlaif("check", recipe)
        if method == "kto":
            assert "labels        thumbs (user): 5 of 6 rows usable" in checked.out
            assert checked.code == 0, checked.err
            continue
        for ended in (checked, rlaif("run", recipe, "--no-prefect")):
            assert ended.code == 2 and len(ended.err.splitlines()) == 1, ended.err
            assert (
                "source 'thumbs' holds unpaired feedback, but preference.train.method is 'dpo'"
                in ended.err
            )
            assert ended.err.rstrip().endswith("use kto, or remove the source")
    assert not (tmp_path / "outputs").exists()
