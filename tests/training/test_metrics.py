"""Metrics on disk, progress lines, and the alarms that are read off them."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.alarms import AlarmConfig
from pipeline.config.training import DpoConfig, OrpoConfig, SftConfig
from pipeline.training.job import Familiarity, Probe, RowCounts
from pipeline.training.metrics import MetricsLog, TrainingStep, parse_progress, read_metrics
from pipeline.training.worker.alarms import chosen_change, find_alarms, tail_mean
from pipeline.training.worker.probe import familiarity, repeated_share

CLEAN = RowCounts(read=10, used=10)


def probe(length: float = 20.0, missing: float = 0.0, repeated: float = 0.0) -> Probe:
    return Probe(
        num_prompts=4, mean_length=length, missing_end_share=missing, repeated_share=repeated
    )


def steps(**series: list[float]) -> list[dict[str, Any]]:
    return [dict(zip(series, values, strict=True)) for values in zip(*series.values(), strict=True)]


def names(*args: Any) -> list[str]:
    return [alarm.name for alarm in find_alarms(*args)]


def test_trl_names_become_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add(1, 9, {"loss": 0.5, "rewards/margins": 0.25, "num_tokens": 100, "foreign": 1}, 0.5)
    log.add(2, 9, {"loss": 0.4, "rewards/margins": 0.50, "num_tokens": 300}, 1.0)
    rows = read_metrics(log.path)
    assert rows == log.rows and "foreign" not in rows[0]
    assert [row["reward_margin"] for row in rows] == [0.25, 0.5]
    assert [row["tokens_per_s"] for row in rows] == [200.0, 400.0]
    printed = capsys.readouterr().out.splitlines()
    assert [parse_progress(line) for line in printed] == [
        TrainingStep(1, 9, 0.5),
        TrainingStep(2, 9, 0.4),
    ]


def test_resume_forgets_later_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2, 3)]
    path.write_text("\n".join(lines) + '\n{"step": 4, "lo')
    log = MetricsLog(path)
    log.resume(2)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("line", ["phase saving", "step", "step 1 of 3", "step a/b loss=x", ""])
def test_other_lines_are_no_progress(line: str) -> None:
    assert parse_progress(line) is None


def test_quiet_training_has_no_alarm() -> None:
    metrics = steps(loss=[1.0, 0.5], reward_margin=[0.0, 1.0], reward_chosen=[0.0, 0.4])
    assert names(DpoConfig(), metrics, CLEAN, probe(), probe(22), 10.0) == []


def test_falling_chosen_replies_raise_alarm() -> None:
    """Reward -.6 at beta .1 is -6 nats, over 10 tokens -.6 a token, beyond the limit of .2."""
    metrics = steps(loss=[1.0, 0.5], reward_margin=[0.0, 1.0], reward_chosen=[0.0, -0.6])
    assert chosen_change(DpoConfig(), metrics, 10.0) == pytest.approx(-0.6)
    assert names(DpoConfig(), metrics, CLEAN, None, None, 10.0) == ["chosen_falls"]
    away = steps(loss=[1.0, 0.5], reward_margin=[0.0, 1.0], reward_chosen=[-0.2, -0.8])
    assert chosen_change(DpoConfig(reference="fixed"), away, 10.0) == pytest.approx(-0.6)
    falling_margin = steps(loss=[1.0, 0.5], reward_margin=[1.0, 0.0], reward_chosen=[0.0, -0.6])
    assert names(DpoConfig(), falling_margin, CLEAN, None, None, 10.0) == []


def test_chosen_change_without_reference() -> None:
    metrics = steps(logp_chosen=[-1.0, -1.75], reward_margin=[0.0, 1.0])
    assert chosen_change(OrpoConfig(), metrics, 10.0) == pytest.approx(-0.75)
    assert chosen_change(SftConfig(), steps(loss=[1.0, 0.5]), 10.0) is None


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (probe(31), ["length_drift"]),
        (probe(13), ["length_drift"]),
        (probe(20, 0.5), ["missing_end"]),
        (probe(29, 0.2), []),
        (probe(repeated=0.25), ["repeated_phrases"]),
        (probe(repeated=0.2), []),
    ],
)
def test_probe_alarms(after: Probe, expected: list[str]) -> None:
    assert names(SftConfig(), steps(loss=[1.0]), CLEAN, probe(20), after, 10.0) == expected


def test_a_model_that_moved_far_raises_an_alarm() -> None:
    rest = (DpoConfig(), steps(loss=[1.0]), CLEAN, None, None, 10.0)
    assert names(*rest, 1.01) == ["divergence"] and names(*rest, 1.0) == []


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.7, 0.5, 2.2, 0.5], ["loss_spike"]),  # beyond 3 x 0.7, where the training began
        ([0.7, 0.1, 0.1, 0.4], []),  # four times the median, and below the first
        ([0.7, 1.0, 1.0, 1.0, 2.5], []),  # the median of those before is 1: 3 is the limit
    ],
)
def test_a_spike_stands_out_of_the_steps_before(losses: list[float], expected: list[str]) -> None:
    metrics = steps(step=[1.0, 2, 3, 4, 5][: len(losses)], loss=losses)
    assert names(SftConfig(), metrics, CLEAN, None, None, 10.0) == expected


def test_familiarity_compares_with_own_replies() -> None:
    """Own replies at -1 and -2 nats a token; of the chosen ones, -6 over 2 tokens is -3: beyond."""
    columns = {"chosen_ids": [[1, 2], [1, 2, 3, 4]], "rejected_ids": [[1], [1]]}
    reference = {"ref_chosen_logps": [-6.0, -4.0], "ref_rejected_logps": [-2.0, -1.5]}
    found = familiarity([-1.0, -2.0], columns, reference)
    assert found == Familiarity(
        own=-1.5,
        own_least=-2.0,
        chosen=-2.0,
        rejected=-1.75,
        chosen_beyond=0.5,
        rejected_beyond=0.0,
    )
    assert familiarity([], columns, reference) is None
    rest = (DpoConfig(), steps(loss=[1.0]), CLEAN, None, None, 10.0, None)
    assert names(*rest, found) == []
    far = found.model_copy(update={"chosen_beyond": 0.51})
    assert names(*rest, far) == ["unlike_reference"]


def test_repeated_runs_are_counted() -> None:
    """1 2 3 4 1 2 3 4 has five runs of four tokens, and the last is the first again."""
    assert repeated_share([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(0.2)
    assert repeated_share([1, 2, 3]) == 0.0


def test_new_limits_leave_the_hash_of_old_jobs() -> None:
    before = {
        "chosen_logp_drop", "length_ratio", "missing_end_share", "dropped_share",
        "probe_prompts", "probe_tokens",
    }  # fmt: skip
    assert AlarmConfig().model_dump(mode="json").keys() == before
    assert AlarmConfig(divergence=2).model_dump(mode="json").keys() == before | {"divergence"}


def test_many_long_rows_raise_alarm() -> None:
    rows = RowCounts(read=10, too_long=2, used=8)
    assert names(SftConfig(), steps(loss=[1.0]), rows, None, None, 10.0) == ["rows_dropped"]


def test_tail_is_the_last_tenth() -> None:
    metrics = steps(loss=[float(i) for i in range(20)])
    assert tail_mean(metrics, "loss") == 18.5 and tail_mean(metrics, "missing") is None
