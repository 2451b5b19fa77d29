"""Reference log-probabilities, computed once and kept under a hash.

    <cache_dir>/<key>.parquet    row_id and one float column per log-probability (nats)

The key covers the reference model, the data set and everything that decides the token ids, so a
second job with another learning rate or another loss finds them, and one with another model
never does. With them no reference model is in memory during training.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from trl.trainer import dpo_trainer, kto_trainer

from pipeline.store.files import atomic_write

PAIR_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
UNPAIRED_COLUMNS = ("ref_logps", "ref_KL_logps")


@dataclass
class ReferenceCache:
    """One file of log-probabilities; `state` says afterwards whether it was there."""

    path: Path
    columns: tuple[str, ...]
    state: str = "unused"
    """`unused`, `hit` or `miss`."""

    def read(self, row_ids: Sequence[str]) -> dict[str, list[float]] | None:
        """The columns in the order of `row_ids`, or None when any row is missing."""
        self.state = "miss"
        try:
            table = pq.read_table(self.path).to_pydict()
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
        index_of = {row_id: i for i, row_id in enumerate(table["row_id"])}
        if not set(self.columns) <= set(table) or not index_of.keys() >= set(row_ids):
            return None
        self.state = "hit"
        return {
            name: [table[name][index_of[row_id]] for row_id in row_ids] for name in self.columns
        }

    def write(self, row_ids: Sequence[str], values: dict[str, list[float]]) -> None:
        """Keep the columns. Raises StoreError when the disk is full."""
        table = pa.table(
            {
                "row_id": pa.array(row_ids, pa.string()),
                **{name: pa.array(values[name], pa.float32()) for name in self.columns},
            }
        )
        atomic_write(self.path, lambda stream: pq.write_table(table, stream))


@contextmanager
def no_hashes() -> Iterator[None]:
    """TRL does not hash the weights for a cache that is not used: half a minute for 8 B."""
    modules = (dpo_trainer, kto_trainer)
    originals = [module.hash_module for module in modules]
    for module in modules:
        module.hash_module = lambda model: ""
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.hash_module = original


def with_reference(
    cache: ReferenceCache, dataset: Any, accelerator: Any, compute: Callable[[], Any]
) -> Any:
    """The data set with its reference columns: from the cache, else computed by TRL and kept.

    TRL's own computation is used since it knows about sharded models and adapters.
    """
    row_ids = dataset["row_id"][:]
    known = cache.read(row_ids)
    if known is None:
        # TRL hands the values from the first process to the others in a file, and would put it
        # into a folder of the first process's own for a data set that lives in memory.
        handed_over = cache.path.with_suffix(".arrow")
        dataset._get_cache_file_path = lambda fingerprint: str(handed_over)
        if accelerator.is_main_process:
            print(f"phase reference log-probabilities of {len(row_ids)} rows", flush=True)
            handed_over.parent.mkdir(parents=True, exist_ok=True)
            handed_over.unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        computed = compute()
        known = {name: computed[name][:] for name in cache.columns}
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            handed_over.unlink(missing_ok=True)
            cache.write(row_ids, known)
    for name in cache.columns:
        dataset = dataset.add_column(name, known[name])
    return dataset
