"""A new training method is two files and a line: a toy, trained by the real worker's code."""

import math
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.alarms import AlarmConfig
from pipeline.training.job import describe, write_job
from pipeline.training.worker.methods import METHODS
from pipeline.training.worker.train import run
from tests.training.builders import pair_row, read_metrics, write_rows
from tests.training.toy_method import TOY
from tests.training.toy_settings import ToyConfig, ToyJob, ToyJobFile

FAST: dict[str, Any] = {"learning_rate": 3e-3, "warmup_share": 0.0, "max_steps": 4}


def test_toy_method_trains_the_tiny_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loss is twice that of a random model over 261 tokens: 2 ln 261 = 11.13."""
    monkeypatch.setitem(METHODS, "toy", TOY)
    job = ToyJob(
        config=ToyConfig(**FAST, alarms=AlarmConfig(probe_prompts=0)),
        model=tiny_model,
        dataset=write_rows(tmp_path / "pairs.parquet", [pair_row(i) for i in range(16)]),
        output_dir=tmp_path / "job",
    )
    file = ToyJobFile(**dict(describe(job)))
    write_job(file)
    result = run(file, time.perf_counter())
    losses = [row["loss"] for row in read_metrics(result)]
    assert losses[0] == pytest.approx(2 * math.log(261), abs=1.0) and losses[-1] < losses[0]
    assert result.method == "toy" and result.reference_cache == "unused"
    assert (result.model_dir / "model.safetensors").is_file()
