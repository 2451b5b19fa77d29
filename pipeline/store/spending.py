"""What a run has spent, in all its attempts: tokens by stage, seconds of work, money.

In:  manifests, the results of trainings, entry `work` of run.json
Out: Spending

A manifest counts each token once: those of its last attempt, and under `earlier_*` those of the
attempts before. `work` has the seconds of ended attempts and when the present one began. An attempt
that was killed ended with the last file that it wrote.

Does not: know the tokens of calls that were in flight when a run was stopped.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.budget import PricesConfig
from pipeline.store.files import read_json
from pipeline.store.layout import RunDir
from pipeline.store.shards import ShardCounts, iter_manifests
from pipeline.store.stage_names import stage_folders

TRACES = ("*/*.parquet", "*/*/*.parquet", "*/*/*.journal", "training/*/metrics.jsonl")
"""Files that a run writes while it works."""


@dataclass(frozen=True)
class Spending:
    """What one stage, one training or a whole run has spent."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    """Share of the run's seconds of work; shards that ran side by side share theirs."""
    token_money: float = 0.0
    """Price of the tokens."""
    money: float = 0.0
    """Price of tokens and time together, in the currency of the recipe's prices."""

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.generated_tokens


def spending(run: RunDir, prices: PricesConfig | None) -> dict[str, Spending]:
    """What a run has spent by stage folder and by training, such as `training/sft`; `all` is the
    last entry, with the time between stages too.

    Raises:
        StoreError: a manifest is damaged.
    """
    prices = prices or PricesConfig()
    counts: dict[str, tuple[str, ShardCounts]] = {}
    for folder in stage_folders(run.root):
        model, total = "", ShardCounts()
        for number, manifest in enumerate(iter_manifests(run.root, folder)):
            model = model if number else manifest.engine.get("name", "")
            total += manifest.counts
        counts[folder] = model, total
    trained = {
        f"training/{path.parent.name}": float((read_json(path) or {}).get("total_s", 0.0))
        for path in sorted(run.root.glob("training/*/result.json"))
    }
    in_shards = sum(each.all_seconds for _, each in counts.values())
    worked = worked_seconds(run)
    scale = max(0.0, worked - sum(trained.values())) / in_shards if in_shards else 0.0
    entries = {}
    for folder, (model, each) in counts.items():
        tokens = each.all_prompt_tokens, each.all_generated_tokens
        price = prices.models.get(model)
        entries[folder] = _entry(
            *tokens, each.all_seconds * scale, price.of(*tokens) if price else 0.0, prices
        )
    entries |= {name: _entry(0, 0, seconds, 0.0, prices) for name, seconds in trained.items()}
    stages = list(entries.values())
    entries["all"] = _entry(
        sum(stage.prompt_tokens for stage in stages),
        sum(stage.generated_tokens for stage in stages),
        worked,
        sum(stage.token_money for stage in stages),
        prices,
    )
    return entries


def worked_seconds(run: RunDir) -> float:
    """Seconds in which the run worked; 0 where they were not recorded."""
    work = run.info().get("work") or {}
    since = work.get("since")
    return float(work.get("seconds", 0.0)) + (max(0.0, time.time() - since) if since else 0.0)


@contextmanager
def timed(run: RunDir) -> Iterator[None]:
    """Count the seconds of an attempt as work of the run."""
    work = run.info().get("work") or {}
    seconds, since = float(work.get("seconds", 0.0)), work.get("since")
    if since:
        seconds += max(0.0, _last_trace(run.root, since) - since)
    run.update_info(work={"seconds": seconds, "since": time.time()})
    try:
        yield
    finally:
        stop_clock(run)


def stop_clock(run: RunDir) -> None:
    """End the present attempt in the record, unless it has ended already."""
    if (run.info().get("work") or {}).get("since"):
        run.update_info(work={"seconds": worked_seconds(run), "since": None})


def _entry(
    prompt_tokens: int, generated: int, seconds: float, token_money: float, prices: PricesConfig
) -> Spending:
    money = token_money + prices.hour * seconds / 3600
    return Spending(prompt_tokens, generated, seconds, token_money, money)


def _last_trace(root: Path, since: float) -> float:
    times = [path.stat().st_mtime for pattern in TRACES for path in root.glob(pattern)]
    return max([since, *times])
