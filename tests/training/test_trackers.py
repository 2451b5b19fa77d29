"""Trackers: off by default, refused where they are not installed, fed where they are."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.alarms import AlarmConfig
from pipeline.config.training import SftConfig
from pipeline.errors import ConfigError
from pipeline.training.job import TrainingJob, describe
from pipeline.training.launch import _environment, check_trackers
from pipeline.training.worker.optimize import Tracker
from tests.training.builders import sft_row, write_rows

TRACKERS = [name for name in ("tensorboard", "mlflow", "wandb", "trackio") if not find_spec(name)]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_one_line(name: Any) -> None:
    check_trackers(None)
    check_trackers(SftConfig())
    with pytest.raises(ConfigError, match=rf"'{name}', which is not installed .* leave it out"):
        check_trackers(SftConfig(report_to=(name,)))


def test_where_metrics_go_is_no_part_of_a_job(tiny_model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.parquet", [sft_row(0)])
    hashes = {
        describe(
            TrainingJob(config=config, model=tiny_model, dataset=data, output_dir=tmp_path)
        ).job_hash
        for config in (SftConfig(), SftConfig(report_to=("tensorboard",)))
    }
    assert len(hashes) == 1


WRITER = """
from pathlib import Path


class SummaryWriter:
    def __init__(self, log_dir):
        self.path = Path(log_dir) / "scalars.txt"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def add_scalar(self, name, value, step):
        with self.path.open("a") as stream:
            stream.write(f"{name} {step}\\n")

    def add_text(self, *arguments):
        pass

    add_hparams = flush = close = add_text
"""


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="the real one would be used")
def test_an_installed_tracker_gets_every_step(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module with the interface of tensorboardX, which transformers takes for TensorBoard."""
    package = tmp_path / "site" / "tensorboardX"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(WRITER)
    monkeypatch.syspath_prepend(str(package.parent))
    for name in ("TENSORBOARD_LOGGING_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    config = SftConfig(report_to=("tensorboard",), max_steps=2, alarms=AlarmConfig(probe_prompts=0))
    check_trackers(config)
    result = train(config, [sft_row(i) for i in range(8)])
    (written,) = (result.model_dir.parent / "tensorboard").rglob("scalars.txt")
    assert {"train/loss 1", "train/loss 2"} <= set(written.read_text().splitlines())


class Broken:
    """A tracker's callback that fails at one event."""

    def __init__(self, event: str) -> None:
        self.event = event
        self.calls: list[str] = []

    def __getattr__(self, event: str) -> Any:
        def call(*arguments: Any, **fields: Any) -> None:
            self.calls.append(event)
            if event == self.event:
                raise ConnectionError("no\nroute")

        return call


def test_a_tracker_that_fails_later_loses_no_training(capsys: pytest.CaptureFixture[str]) -> None:
    inner = Broken("on_log")
    tracker = Tracker(inner, "mlflow")
    for event in ("on_train_begin", "on_log", "on_log", "on_train_end"):
        getattr(tracker, event)(None, None, None)
    assert inner.calls == ["on_train_begin", "on_log"]
    assert capsys.readouterr().out == "note: mlflow gets nothing more (no route)\n"


def test_a_tracker_that_cannot_begin_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"'wandb', which cannot begin \(no route\); correct"):
        Tracker(Broken("on_train_begin"), "wandb").on_train_begin(None, None, None)


def test_settings_of_named_trackers_alone_reach_the_worker(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "x")
    found = []
    for names in ((), ("mlflow",)):
        config = SftConfig(report_to=names)
        job = TrainingJob(config=config, model=tiny_model, dataset=tmp_path, output_dir=tmp_path)
        found.append({"MLFLOW_TRACKING_URI", "WANDB_API_KEY"} & _environment(job).keys())
    assert found == [set(), {"MLFLOW_TRACKING_URI"}]
