"""Reference log-probabilities, computed once and kept under a hash.

    <cache_dir>/<key>.parquet    row_id and one float column per log-probability (nats)

The key covers the reference model, the data set and everything that decides the token ids, so a
second job with another learning rate or another loss finds them, and one with another model
never does. With them no reference model is in memory during training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ids import content_hash
from pipeline.store.files import atomic_write
from pipeline.training.job import JobFile
from pipeline.training.methods import method_of

PAIR_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
UNPAIRED_COLUMNS = ("ref_logps", "ref_KL_logps")


@dataclass
class ReferenceCache:
    """One file of log-probabilities; `state` says afterwards whether it was there."""

    path: Path
    columns: tuple[str, ...]
    state: str = field(default="unused")
    """`unused`, `hit` or `miss`."""

    def read(self, row_ids: Sequence[str]) -> dict[str, list[float]] | None:
        """The columns in the order of `row_ids`, or None when any row is missing."""
        self.state = "miss"
        try:
            table = pq.read_table(self.path).to_pydict()
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
        place = {row_id: i for i, row_id in enumerate(table["row_id"])}
        if not set(self.columns) <= set(table) or not all(i in place for i in row_ids):
            return None
        self.state = "hit"
        return {name: [table[name][place[i]] for i in row_ids] for name in self.columns}

    def write(self, row_ids: Sequence[str], values: dict[str, list[float]]) -> None:
        """Keep the columns. Raises StoreError when the disk is full."""
        table = pa.table(
            {
                "row_id": pa.array(row_ids, pa.string()),
                **{name: pa.array(values[name], pa.float32()) for name in self.columns},
            }
        )
        atomic_write(self.path, lambda stream: pq.write_table(table, stream))


def reference_cache(file: JobFile, *, compute_dtype: str) -> ReferenceCache | None:
    """The cache that belongs to a job, or None for a method without a reference.

    `compute_dtype` is part of the key: bfloat16 and float32 give different log-probabilities.
    """
    config = file.job.config
    method = method_of(config)
    if not method.uses_reference:
        return None
    unpaired = method.shape == "unpaired"
    determinants = [
        file.model_hash,
        file.dataset_sha256,
        config.max_length,
        compute_dtype,
        method.shape,
    ]
    if unpaired:
        # The mismatched replies depend on the order and on the batches.
        determinants += [
            config.seed,
            config.batch_size,
            config.min_soft_label,
            config.min_weight,
            file.feedback_sha256,
        ]
    return ReferenceCache(
        path=file.job.cache_dir / f"{content_hash(determinants)[:24]}.parquet",
        columns=UNPAIRED_COLUMNS if unpaired else PAIR_COLUMNS,
    )
