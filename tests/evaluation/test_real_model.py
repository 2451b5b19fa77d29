"""`benchmarks.real_model` reads what a run leaves; its recipes are that of `make demo-real`."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.real_model import RECIPE, failed_checks, figures, judged, summary, with_seed
from pipeline.config import RunConfig
from pipeline.config.labeling import JudgeConfig
from pipeline.store import RunDir, write_json


def recipe() -> dict[str, object]:
    values = yaml.safe_load(RECIPE.read_text())
    assert isinstance(values, dict)
    return values


def share(value: float) -> dict[str, float]:
    return {"share": value, "low": value - 0.1, "high": value + 0.1, "n": 171}


def finding(name: str, status: str, scope: str = "") -> dict[str, object]:
    return {"name": name, "status": status, "value": 0.9, "n": 22, "scope": scope}


def policy(value: float, words: float) -> dict[str, object]:
    return {
        "checks_all": share(value),
        "checks": {"short": share(value), "calm": None},
        "mean_words": words,
        "truncated_share": 0.25,
    }


def test_seeds_change_nothing_else() -> None:
    first, second = (with_seed(recipe(), seed) for seed in (0, 3))
    assert (first["seed"], second["seed"]) == (0, 3)
    assert [second[phase]["train"]["seed"] for phase in ("supervised", "preference")] == [3, 3]
    same = json.dumps(second).replace("laptop-3", "laptop-0").replace('"seed": 3', '"seed": 0')
    assert json.loads(same) == first


def test_judged_run_trains_nothing_and_asks_as_shipped() -> None:
    config = RunConfig.model_validate(judged(recipe()))
    assert config.preference.train is None and not config.supervised.enabled
    assert config.preference.judge == JudgeConfig() and config.prompts.limit == 48
    assert config.preference.audit.canaries == Path("prompts/canaries/general.yaml")


def test_figures_of_a_run(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    policies = {"initial": policy(0.25, 88.04), "tuned": policy(0.75, 31.0)}
    write_json(run.metrics, {"policies": policies})
    judge = {"findings": [finding("known", "failed"), finding("known", "failed", "short")]}
    collapse = {
        "passed": False,
        "findings": [finding("loops", "failed"), finding("emoji", "passed")],
    }
    write_json(tmp_path / "preference/audit.json", {"judges": [judge], "collapse": collapse})
    pairs = {"path": "dataset/preference.parquet", "sha256": "0", "rows": 57}
    write_json(tmp_path / "dataset/manifest.json", {"run_id": "r", "sets": {"preference": pairs}})
    found = figures(run, 1, 18.04)
    assert failed_checks(run) == ["known 0.900, n 22", "loops 0.900, n 22"]
    assert found["minutes"] == 18.0 and found["pairs"] == 57 and found["collapse_passed"] is False
    assert found["checks_all_tuned"] == {"share": 0.75, "low": 0.65, "high": 0.85, "n": 171}
    assert found["words_per_reply_initial"] == 88.0 and found["checks_initial"]["calm"] is None
    assert found["gain"] == pytest.approx(0.5)
    both = summary([found, {"minutes": 20.0, "pairs": 0}])
    assert both["gain"] == {"mean": 0.5, "min": 0.5, "max": 0.5}
    assert both["minutes"] == {"mean": 19.0, "min": 18.0, "max": 20.0}


def test_run_that_its_audit_stopped_has_no_policies(tmp_path: Path) -> None:
    found = figures(RunDir(tmp_path), 0, 5.0)
    assert found["pairs"] == 0 and "gain" not in found and found["failed_checks"] == []
