"""Rows and shards for the tests of the store."""

from pathlib import Path
from typing import Any

from pipeline.ids import row_id
from pipeline.records import PromptRow
from pipeline.store import Manifest, ShardCounts, write_shard
from pipeline.types import user


def make_prompts(count: int, **fields: Any) -> list[PromptRow]:
    """Prompts with ids of their own."""
    return [
        PromptRow(row_id=row_id("prompt", n), messages=(user(f"prompt {n}"),), **fields)
        for n in range(count)
    ]


def write_prompts(root: Path, count: int = 3, *, shard_index: int = 0, key: str = "k") -> Manifest:
    """One shard of prompts."""
    return write_shard(
        root,
        "prompts",
        shard_index,
        make_prompts(count),
        PromptRow,
        key=key,
        counts=ShardCounts(expected=count),
    )
