"""Fixtures: the tiny model, and training in this process."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.training.worker.__main__ import ENVIRONMENT
from tests.training.builders import build_model, train_here, write_rows

os.environ.update({**ENVIRONMENT, **os.environ})


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the random Llama, shared by all tests and never changed."""
    import torch

    # Two threads gain nothing on so small a model and wait for each other on a busy machine.
    torch.set_num_threads(1)
    return build_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def train(tiny_model: Path, tmp_path: Path) -> Callable[..., Any]:
    """Train in this process: `train(config, rows, name=...)` -> TrainingResult."""

    def go(config: Any, rows: list[dict[str, Any]], *, name: str = "job", **fields: Any) -> Any:
        return train_here(config, rows, tmp_path / name, **{"model": tiny_model, **fields})

    return go


@pytest.fixture
def make_trainer(tiny_model: Path, tmp_path: Path) -> Callable[..., Any]:
    """A prepared, untrained trainer: `make_trainer(config, rows, feedback rows, ...)`."""
    from pipeline.training.job import TrainingJob, describe
    from pipeline.training.worker.arguments import place, trl_arguments
    from pipeline.training.worker.encoding import training_columns
    from pipeline.training.worker.loading import load_encoder, load_model
    from pipeline.training.worker.train import build_trainer, reference_cache

    def go(
        config: Any,
        rows: list[dict[str, Any]],
        judged: list[dict[str, Any]] | None = None,
        **fields: Any,
    ) -> Any:
        dataset = write_rows(tmp_path / "rows.parquet", rows)
        feedback = write_rows(tmp_path / "feedback.parquet", judged) if judged else None
        job = TrainingJob(
            config=config,
            **{"model": tiny_model, **fields},
            dataset=dataset,
            feedback=feedback,
            output_dir=tmp_path / "job",
        )
        file, placement, encoder = describe(job), place(config), load_encoder(job)
        columns, counts = training_columns(dataset, config, encoder, feedback)
        cache = reference_cache(file, compute_dtype=placement.compute_dtype)
        model, placement = load_model(job.model, placement, config)
        arguments = trl_arguments(config, counts, placement, job.checkpoint_dir)
        return build_trainer(file, model, arguments, columns, encoder, cache)

    return go
