"""`benchmarks.alarms`: each kind of harmful data names an alarm, and the gate decides by it."""

from pathlib import Path
from typing import Any, get_args

from benchmarks.alarms import ARMS, line, met, verdict
from pipeline.config.alarms import AlarmName
from pipeline.training.job import Alarm, RowCounts, TrainingResult

PAIR = {"chosen": "No thanks, I will not.", "rejected": "Sure."}


def result(*alarms: Alarm) -> TrainingResult:
    return TrainingResult(
        method="dpo",
        job_hash="j",
        model_dir=Path("model"),
        num_steps=1,
        train_s=1.0,
        total_s=1.0,
        final_loss=0.5,
        rows=RowCounts(read=1, used=1),
        alarms=alarms,
        device="cpu",
        dataset_sha256="d",
        model_hash="m",
        trained_hash="t",
    )


def test_the_data_is_what_its_name_says() -> None:
    changed = {name: PAIR | arm.change(PAIR) for name, arm in ARMS.items()}
    assert changed["clean"] == changed["hurried"] == PAIR
    assert changed["repeated"]["chosen"] == " ".join([PAIR["chosen"]] * 3)
    assert changed["curt"] == PAIR | {"chosen": "No thanks,"}
    assert changed["foreign"]["rejected"] == "sURE."
    assert {arm.expected for arm in ARMS.values()} - {None} <= set(get_args(AlarmName))


def test_an_alarm_keeps_a_candidate() -> None:
    drift = Alarm(name="length_drift", value=3.0, limit=1.5, message="longer")
    assert (verdict(result()), verdict(result(drift))) == ("promoted", "candidate")
    assert met(None, []) and met("length_drift", ["divergence", "length_drift"])
    assert not met(None, ["divergence"]) and not met("length_drift", ["divergence"])
    figures: dict[str, Any] = {
        "expected": None,
        "raised": [],
        "gate": "promoted",
        "divergence": 0.004,
    }
    assert line("clean", figures).split() == ["clean", "none", "promoted", "0.004", "none"]
