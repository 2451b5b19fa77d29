"""A manifest vouches for its file: whole, counted, and of the same settings."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import StoreError
from pipeline.records import PromptRow
from pipeline.store import ShardCounts, load_manifest, read_rows, write_shard
from pipeline.store.shards import Manifest, count_reasons, first_manifest, stage_manifests
from tests.store.builders import make_prompts, write_prompts
from tests.store.test_files import files_in, fill_disk


def test_shard_reads_back(tmp_path: Path) -> None:
    written = write_prompts(tmp_path, 5)
    found = load_manifest(tmp_path, "prompts", 0)
    assert found == written
    assert read_rows(tmp_path, found) == make_prompts(5)
    assert files_in(tmp_path / "prompts") == {"shard-00000.parquet", "shard-00000.json"}


def test_equal_shards_have_equal_hashes(tmp_path: Path) -> None:
    assert write_prompts(tmp_path / "a").sha256 == write_prompts(tmp_path / "b").sha256


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "other"])
def test_damaged_file_is_not_trusted(tmp_path: Path, damage: str) -> None:
    manifest = write_prompts(tmp_path)
    path = tmp_path / manifest.path
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        changed = {
            "cut": data[:-1],
            "flip": data[:20] + bytes([data[20] ^ 1]) + data[21:],
            "other": b"",
        }
        path.write_bytes(changed[damage])
    assert load_manifest(tmp_path, "prompts", 0) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "prompts"}'])
def test_damaged_manifest_is_not_trusted(tmp_path: Path, text: str) -> None:
    write_prompts(tmp_path)
    (tmp_path / "prompts" / "shard-00000.json").write_text(text)
    assert load_manifest(tmp_path, "prompts", 0) is None


def test_file_without_manifest_is_unfinished(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    (tmp_path / "prompts" / "shard-00000.json").unlink()
    assert load_manifest(tmp_path, "prompts", 0) is None


@pytest.mark.parametrize("flushes", [0, 1])
def test_full_disk_keeps_the_old_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushes: int
) -> None:
    old = write_prompts(tmp_path, 3)
    with monkeypatch.context() as patch:
        fill_disk(patch, after=flushes)
        with pytest.raises(StoreError, match="no space left"):
            write_prompts(tmp_path, 4)
    assert load_manifest(tmp_path, "prompts", 0) == old
    assert len(read_rows(tmp_path, old)) == 3
    assert files_in(tmp_path / "prompts") == {"shard-00000.parquet", "shard-00000.json"}


def test_missing_row_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 rows expected, 3 made"):
        write_shard(
            tmp_path,
            "prompts",
            0,
            make_prompts(3),
            PromptRow,
            key="k",
            counts=ShardCounts(expected=4),
        )
    assert not (tmp_path / "prompts").exists()


def test_statuses_are_counted_with_reasons(tmp_path: Path) -> None:
    rows = [
        *make_prompts(2),
        *make_prompts(1, status="failed", reason="engine died\ntraceback"),
        *make_prompts(2, status="dropped", reason="tie"),
        *make_prompts(1, status="unparsed"),
    ]
    manifest = write_shard(
        tmp_path, "x", 0, rows, PromptRow, key="k", counts=ShardCounts(expected=6)
    )
    counts = manifest.counts
    assert (counts.ok, counts.unparsed, counts.failed, counts.dropped) == (2, 1, 1, 2)
    assert manifest.reasons == {"dropped: tie": 2, "failed: engine died": 1, "unparsed: ": 1}
    assert sum(count_reasons(rows).values()) == 4


def test_counts_add_up_over_shards() -> None:
    total = ShardCounts(expected=3, ok=3, seconds=0.5) + ShardCounts(
        expected=2, failed=2, seconds=1
    )
    assert (total.expected, total.ok, total.failed, total.seconds) == (5, 3, 2, 1.5)


def test_manifests_come_in_order(tmp_path: Path) -> None:
    for index in (10, 2, 0):
        write_prompts(tmp_path, 1, shard_index=index)
    assert [m.shard_index for m in stage_manifests(tmp_path, "prompts")] == [0, 2, 10]


def test_shard_100_000_comes_after_99_999(tmp_path: Path) -> None:
    """A million prompts in shards of eight have longer numbers at their end."""
    for index in (100_000, 10_000, 99_999):
        write_prompts(tmp_path, 1, shard_index=index)
    found = [manifest.shard_index for manifest in stage_manifests(tmp_path, "prompts")]
    assert found == [10_000, 99_999, 100_000]


@pytest.mark.parametrize("text", [b"", b'{"stage": "prompts"}', b"\xff"])
def test_broken_manifest_is_no_missing_shard(tmp_path: Path, text: bytes) -> None:
    """A reader of the stage must not take two shards of three for all; a writer may continue."""
    for number in range(3):
        write_prompts(tmp_path / "r", shard_index=number)
    (tmp_path / "r/prompts/shard-00000.json").write_bytes(text)
    with pytest.raises(
        StoreError, match=r"prompts/shard-00000.json of run r is not a manifest.*`rlaif resume r`"
    ):
        stage_manifests(tmp_path / "r", "prompts")
    found = first_manifest(tmp_path / "r", "prompts")
    assert found is not None and found.shard_index == 1
    assert first_manifest(tmp_path / "r", "other") is None


def test_manifest_refuses_unknown_fields(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    path = tmp_path / "prompts" / "shard-00000.json"
    value = json.loads(path.read_text())
    assert Manifest.from_json(json.dumps(value)).version == 1
    path.write_text(json.dumps({**value, "surprise": 1}))
    assert load_manifest(tmp_path, "prompts", 0) is None


def test_parquet_is_readable_elsewhere(tmp_path: Path) -> None:
    table = pq.read_table(tmp_path / write_prompts(tmp_path, 2).path)
    assert table["messages"].to_pylist()[1] == [{"role": "user", "content": "prompt 1"}]


def test_shard_of_another_version_is_one_line(tmp_path: Path) -> None:
    """A run from before a column was added is told apart, not read halfway."""
    manifest = write_prompts(tmp_path)
    path = tmp_path / manifest.path
    pq.write_table(pq.read_table(path).drop_columns(["tags"]), path)
    with pytest.raises(
        StoreError, match=r"another version of this program \(columns tags differ\)"
    ):
        read_rows(tmp_path, manifest)


@pytest.mark.parametrize(
    "outside", ["../other/shard.parquet", "/etc/hostname", "a/../../b", "a\0b"]
)
@pytest.mark.parametrize("field", ["path", "inputs"])
def test_manifest_names_nothing_outside_its_run(tmp_path: Path, outside: str, field: str) -> None:
    """Run folders are passed on, and what a manifest names is read and shown."""
    manifest = write_prompts(tmp_path)
    path = tmp_path / manifest.path.replace(".parquet", ".json")
    values = json.loads(path.read_text())
    values[field] = outside if field == "path" else {outside: "0" * 64}
    path.write_text(json.dumps(values))
    with pytest.raises(StoreError, match="shard-00000"):
        stage_manifests(tmp_path, manifest.stage)
    assert load_manifest(tmp_path, manifest.stage, 0) is None
