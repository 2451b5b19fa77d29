"""The run folder: where things live, how shards and manifests are written and trusted."""

from pipeline.store.files import atomic_write, read_json, write_json
from pipeline.store.layout import RunDir, RunLock, new_run_id
from pipeline.store.shards import (
    Manifest,
    ShardCounts,
    load_manifest,
    read_rows,
    read_table,
    require_manifest,
    write_shard,
)

__all__ = [
    "Manifest",
    "RunDir",
    "RunLock",
    "ShardCounts",
    "atomic_write",
    "load_manifest",
    "new_run_id",
    "read_json",
    "read_rows",
    "read_table",
    "require_manifest",
    "write_json",
    "write_shard",
]
