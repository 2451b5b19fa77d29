"""A training whose first loss is not what its formula says is stopped."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.config.alarms import AlarmConfig
from pipeline.config.training import (
    DpoConfig,
    IpoConfig,
    KtoConfig,
    OrpoConfig,
    RewardModelTrainingConfig,
    SftConfig,
)
from pipeline.errors import ConfigError, TrainingError
from pipeline.training.job import ReplyCounts, RowCounts, TrainingJob
from pipeline.training.launch import _mistake, check_job
from pipeline.training.metrics import MetricsLog
from pipeline.training.worker.first_loss import (
    Row,
    Text,
    check_plain,
    compare,
    orpo_loss,
    reward_loss,
    sft_loss,
    simpo_loss,
)
from pipeline.training.worker.methods import METHODS, method_of
from pipeline.training.worker.optimize import Recorder
from tests.training.builders import build_model, pair_row, read_metrics, sft_row
from tests.training.losses import soft_dpo_loss


def row(chosen: float, rejected: float, soft_label: float = 1.0) -> Row:
    """Replies of two tokens after a prompt of which one token is predicted, at -3 nats."""
    texts = [Text(2 * mean, 2, 2 * mean - 3, 3) for mean in (chosen, rejected)]
    return Row(texts[0], texts[1], soft_label)


def test_plain_formulas() -> None:
    """SimPO of equal means at gamma 1 is log(1 + e); ORPO's odds term of means -.5 and -1 is
    .320300, and the likelihood (1 + 3) / 3; a reward gap of 2 at p = .9 costs .126928 + .2.
    """
    assert sft_loss([row(-0.5, 0), row(-1.5, 0)]) == pytest.approx(1.0)
    assert simpo_loss([row(-1, -1)], beta=2, gamma=1) == pytest.approx(1.313262, abs=1e-6)
    assert orpo_loss([row(-0.5, -1)], beta=0.1) == pytest.approx(4 / 3 + 0.0320300, abs=1e-6)
    assert reward_loss([row(1, 0, 0.9)]) == pytest.approx(0.326928, abs=1e-6)


def test_known_first_losses() -> None:
    """IPO at tau .1 begins at (1 / .2)^2; KTO of 1 good and 3 bad replies weighs the good one 3."""
    counts = RowCounts(
        read=4, replies=ReplyCounts(read=4, contradicted=0, repeated=0, desirable=1, undesirable=3)
    )
    first = {name: method.first_loss for name, method in METHODS.items() if method.first_loss}
    assert first.keys() == {"dpo", "ipo", "robust_dpo", "kto"}
    unknown = [n for n, m in METHODS.items() if not (m.first_loss or m.plain_loss)]
    assert unknown == [name for name, m in METHODS.items() if m.shape == "prompts"]
    assert first["ipo"](IpoConfig(beta=0.1), counts) == pytest.approx((25.0, 25.0))
    assert first["dpo"](DpoConfig(), counts) == (math.log(2), math.log(2))
    assert first["kto"](KtoConfig(), counts) == (0.5, 1.5)


@pytest.mark.parametrize("value", [0.69325, 0.6930, math.nan])
def test_a_wrong_first_loss_says_why(value: float) -> None:
    compare(math.log(2) + 9e-5, math.log(2), math.log(2), "float32")
    compare(0.71, math.log(2), math.log(2), "bfloat16")
    compare(25.002, 25.0, 25.0, "float32")
    with pytest.raises(TrainingError, match=r"has to be 0.693147, within 0.0001: .* dropout"):
        compare(value, math.log(2), math.log(2), "float32")


def test_a_reference_of_another_model_stops_the_training(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    """Three nats on every chosen reply: z is -.3, and softplus(.3) = .854."""
    config = DpoConfig(
        max_steps=1,
        labels="hard",
        batch_size=4,
        alarms=AlarmConfig(probe_prompts=2, probe_tokens=4),
    )
    rows, cache = [pair_row(i) for i in range(4)], tmp_path / "cache"
    result = train(config, rows, reference_cache=cache, name="first")
    assert result.familiarity.own_least <= result.familiarity.own < 0
    (file,) = cache.iterdir()
    table = pq.read_table(file).to_pydict()
    table["ref_chosen_logps"] = [value + 3 for value in table["ref_chosen_logps"]]
    pq.write_table(pa.table(table), file)
    with pytest.raises(TrainingError, match=r"first step is 0\.854355 and has to be 0\.693147"):
        train(config, rows, reference_cache=cache, name="second")
    assert not (tmp_path / "second" / "model").exists()


def test_a_fixed_reference_is_another_model(train: Callable[..., Any], tmp_path: Path) -> None:
    """Its log-probabilities are those of a training that starts from it, and the first loss is the
    formula's with them: z = beta times the gap of the two models.
    """
    other = build_model(tmp_path / "other", seed=1)
    rows = [pair_row(i) for i in range(4)]
    few: dict[str, Any] = {
        "max_steps": 1,
        "batch_size": 4,
        "learning_rate": 1e-9,
        "alarms": AlarmConfig(probe_prompts=2, probe_tokens=4),
    }
    folders = {name: tmp_path / f"cache-{name}" for name in ("start", "other", "fixed")}
    train(DpoConfig(**few), rows, reference_cache=folders["start"], name="start")
    train(DpoConfig(**few), rows, reference_cache=folders["other"], name="other", model=other)
    fixed = train(
        DpoConfig(**few, beta=2.0, reference="fixed"),
        rows,
        reference_cache=folders["fixed"],
        reference=other,
        name="fixed",
    )
    logps = {}
    for name, folder in folders.items():
        (file,) = folder.iterdir()
        logps[name] = pq.read_table(file).to_pydict()
    assert file.name == next(folders["other"].iterdir()).name
    assert logps["fixed"] == logps["other"] != logps["start"]
    assert fixed.reference_hash and fixed.familiarity is None and fixed.divergence is not None
    start, away = (
        torch.tensor(logps[name]["ref_chosen_logps"])
        - torch.tensor(logps[name]["ref_rejected_logps"])
        for name in ("start", "other")
    )
    expected = soft_dpo_loss(start - away, torch.full((4,), 0.9), beta=2.0)
    assert read_metrics(fixed)[0]["loss"] == pytest.approx(float(expected.mean()), abs=1e-4)
    assert abs(float(expected.mean()) - math.log(2)) > 1e-3


def test_a_reference_that_nothing_asks_for_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    fields = {"model": tiny_model, "dataset": tmp_path / "none", "output_dir": tmp_path / "job"}
    for config in (DpoConfig(), OrpoConfig()):
        with pytest.raises(ConfigError, match=r"do not say `reference: fixed`"):
            check_job(TrainingJob(config=config, reference=tiny_model, **fields))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SftConfig(), "labels"),
        (OrpoConfig(), "chosen_labels"),
        (RewardModelTrainingConfig(), "input_ids"),
    ],
)
def test_a_batch_that_changes_its_rows_stops_the_training(
    config: Any, name: str, make_trainer: Callable[..., Any]
) -> None:
    make = sft_row if config.method == "sft" else pair_row
    trainer = make_trainer(config, [make(i) for i in range(4)])
    check_plain(trainer, method_of(config), config, "float32")
    collate = trainer.data_collator

    def cut(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = collate(rows)
        batch[name][0] = -100 if "labels" in name else 7
        return batch

    trainer.data_collator = cut
    with pytest.raises(TrainingError, match=r"by its formula on the same 4 rows"):
        check_plain(trainer, method_of(config), config, "float32")


def test_broken_weights_never_become_the_last_checkpoint(tmp_path: Path) -> None:
    recorder = Recorder(MetricsLog(tmp_path / "metrics.jsonl"), lambda loss: None)
    args = SimpleNamespace(output_dir=str(tmp_path), learning_rate=1.0, max_grad_norm=2.0)
    model = torch.nn.Linear(1, 1)
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state = SimpleNamespace(global_step=step, is_world_process_zero=True)
        if step == 1:
            recorder.on_save(args, state, None, model=model)
    torch.nn.init.constant_(model.weight, math.nan)
    with pytest.raises(TrainingError, match=r"weights .* last good checkpoint is .*/checkpoint-1"):
        recorder.on_save(args, state, None, model=model)
    with pytest.raises(TrainingError, match=r"weights are infinite or not numbers at step 2"):
        recorder.on_train_end(args, state, None, model=model)  # no loss shows what a last step did
    assert [path.parent.name for path in tmp_path.glob("*/complete")] == ["checkpoint-1"]


def test_a_stopped_training_is_one_line() -> None:
    error = _mistake("error TrainingError: the loss is nan at step 3")
    assert type(error) is TrainingError and str(error) == "the loss is nan at step 3"
    assert _mistake("error KeyError: x") is None
