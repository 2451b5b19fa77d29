"""The folder of a promoted policy."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.evaluation.decision import GateFinding, GateResult
from pipeline.evaluation.results import Metrics
from pipeline.run.context import open_context
from pipeline.run.promoted import write_promoted
from pipeline.run.start import start_run
from pipeline.store import read_json, write_json
from pipeline.training.job import Alarm, RowCounts, TrainingResult
from tests.evaluation.test_gate import policy
from tests.run.builders import write_recipe


def test_the_folder_has_the_model_and_names_its_rows(tmp_path: Path) -> None:
    run = start_run(write_recipe(tmp_path / "in"), runs_root_folder=tmp_path / "runs")
    model = run.training("sft") / "model"
    (model / "sub").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "sub/more.json"):
        (model / name).write_text(name)
    result = TrainingResult(
        method="sft",
        job_hash="j",
        model_dir=model,
        num_steps=7,
        train_s=1.0,
        total_s=2.0,
        final_loss=0.5,
        rows=RowCounts(read=3, not_ok=1, used=2),
        alarms=(Alarm(name="divergence", value=2.0, limit=1.0, message="far | away"),),
        device="cpu",
        dataset_sha256="d" * 64,
        feedback_sha256="f" * 64,
        reward_hash="w" * 64,
        model_hash="m" * 64,
        trained_hash="t" * 64,
    )
    write_json(run.training("sft") / "result.json", result.model_dump(mode="json"))
    job = {"job": {"config": {"method": "sft", "learning_rate": 1e-4, "alarms": {}}}}
    write_json(run.training("sft") / "job.json", job)
    run.dataset.mkdir()
    pq.write_table(pa.table({"row_id": ["r1", "r2"]}), run.dataset / "sft.parquet")
    pq.write_table(pa.table({"row_id": ["r3"]}), run.dataset / "feedback.parquet")
    finding = GateFinding(rule="max_empty", holds=True, value=0.0, needed=0.1, text="empty is 0")
    gate = GateResult(decision="promoted", policy="sl_cai", findings=(finding,))
    metrics = Metrics(policies={"initial": policy(), "sl_cai": policy()}, gate=gate)
    for rows in (["r1", "r2", "r3"], ["r2"]):
        if rows == ["r2"]:  # as trainings write it: what was left out is not in it
            write_json(run.training("sft") / "rows.json", rows)
        folder = write_promoted(open_context(run), metrics)
        weights = folder / "model.safetensors"
        assert weights.stat().st_ino == (model / "model.safetensors").stat().st_ino
        assert (folder / "sub" / "more.json").read_text() == "sub/more.json"
        assert read_json(folder / "rows.json") == {"sft": rows}
        assert {path.name for path in run.root.glob("promoted*")} == {"promoted"}
    card = (folder / "README.md").read_text()
    assert "- empty is 0" in card and "`learning_rate=0.0001`" in card
    assert "2 of 3 rows of `dataset/sft.parquet` and `dataset/feedback.parquet`" in card
    assert "d" * 64 in card and "f" * 64 in card and "`divergence` (far" in card
    assert "- scored by the reward model `wwww" in card
