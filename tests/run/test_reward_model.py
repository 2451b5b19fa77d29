"""A recipe that trains a reward model tunes no policy, and says how good it is."""

import json
from pathlib import Path

from pipeline.config.paths import PROJECT_ROOT
from pipeline.evaluation import collect_metrics
from pipeline.report.source import read_run
from pipeline.report.tables import training_table
from pipeline.run.context import open_context
from pipeline.run.phases import policies, tuned_model
from pipeline.run.start import start_run
from tests.run.builders import write_recipe

POCKET = {"type": "vllm", "model": str(PROJECT_ROOT / "models/pocket"), "device": "cpu"}
HELDOUT = {"pairs": 50, "prompts": 40, "accuracy": 0.8, "low": 0.66, "high": 0.89, "log_loss": 0.5}


def test_reward_model_is_no_policy(tmp_path: Path) -> None:
    found = {}
    for method in ("reward_model", "dpo"):
        recipe = write_recipe(
            tmp_path / method, policy=POCKET, preference={"train": {"method": method}}
        )
        run = start_run(recipe, run_id=method, runs_root_folder=tmp_path / "runs")
        ctx = open_context(run)
        found[method] = list(policies(ctx))
        assert (tuned_model(ctx) is None) == (method == "reward_model")
    assert found == {"reward_model": ["initial"], "dpo": ["initial", "tuned"]}


def test_held_out_accuracy_is_in_metrics_and_report(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "in")
    run = start_run(recipe, run_id="r", runs_root_folder=tmp_path / "runs")
    folder = run.training("preference")
    folder.mkdir(parents=True)
    result = {
        "method": "reward_model",
        "job_hash": "h",
        "model_dir": str(folder / "model"),
        "num_steps": 9,
        "train_s": 1.0,
        "total_s": 2.0,
        "final_loss": 0.5,
        "rows": {"read": 250, "heldout": 50, "used": 200},
        "heldout": HELDOUT,
        "device": "cpu",
        "dataset_sha256": "",
        "model_hash": "",
        "trained_hash": "",
    }
    (folder / "result.json").write_text(json.dumps(result))
    metrics = collect_metrics(run, open_context(run).config, None)
    assert metrics.reward_model is not None
    assert metrics.reward_model.model_dump() == HELDOUT
    (row,) = training_table(read_run(run)).rows
    assert row["held-out accuracy"] == "80\u00a0% (66 to 89\u00a0%), 50 pairs"
