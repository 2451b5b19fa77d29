"""A run folder with odd files in it: each is one line, or counts as missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StoreError
from pipeline.store import RunDir, read_json
from pipeline.store.shards import load_manifest, open_parquet, stage_manifests


@pytest.mark.parametrize("text", ["[1]", '"x"', "7", "true", "{", "", "[" * 100_000, "1" * 9_000])
def test_whatever_is_no_object_counts_as_missing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert read_json(path) is None


def test_folder_counts_as_missing(tmp_path: Path) -> None:
    assert read_json(tmp_path) is None and read_json(tmp_path / "gone" / "x.json") is None


@pytest.mark.parametrize(
    "info",
    [[], "run", {"files": ["a"]}, {"constitution": "kind"}, {"status": 3}, {"parent": {"a": 1}}],
)
def test_odd_run_json_is_one_line(info: Any, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(info))
    with pytest.raises(StoreError, match=r"run\.json.* restore"):
        RunDir(tmp_path).info()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_text("[]")])
def test_odd_manifest_counts_as_unfinished(make: Any, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    make(tmp_path / "s" / "shard-00000.json")
    assert load_manifest(tmp_path, "s", 0) is None
    with pytest.raises(StoreError, match="is not a manifest"):
        stage_manifests(tmp_path, "s")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_bytes(b"PAR1" * 9)])
def test_odd_parquet_is_one_line(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "x.parquet")
    with (
        pytest.raises(StoreError, match="cannot be read as Parquet"),
        open_parquet(tmp_path / "x.parquet"),
    ):
        pass
