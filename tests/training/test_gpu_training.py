"""`benchmarks.gpu_training --dry-run`: every variant of a part with tiny shapes, on the CPU."""

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.gpu_meter import Meter, flops_of_attention
from benchmarks.gpu_models import mean_tokens, pairs
from benchmarks.gpu_training import LIMITS, summary
from pipeline.config.paths import PROJECT_ROOT

# What a GPU machine with torch's own libraries and TRL does not have.
HIDDEN = """
import runpy, sys
for name in ("vllm", "prefect", "duckdb", "openai", "datasketch", "sqlalchemy", "pytest", "gguf"):
    sys.modules[name] = None
for part in ("8b", "parity"):
    sys.argv = ["gpu_training", "--one", part, "--dry-run"]
    runpy.run_module("benchmarks.gpu_training", run_name="__main__")
"""


@pytest.fixture(scope="module")
def dry_run() -> dict[str, dict[str, Any]]:
    """The results of two parts by variant, from one process that lacks most of our libraries."""
    run = subprocess.run(
        [sys.executable, "-c", HIDDEN], capture_output=True, text=True, cwd=PROJECT_ROOT
    )
    assert run.returncode == 0, run.stderr[-2000:]
    results: dict[str, dict[str, Any]] = {"8b": {}, "parity": {}}
    for line in run.stdout.splitlines():
        part, _, rest = line.partition(" ")
        if part in results:
            name, _, result = rest.partition(" ")
            results[part][name] = json.loads(result)
    return results


@pytest.mark.slow
def test_every_variant_of_a_part(dry_run: dict[str, dict[str, Any]]) -> None:
    """TRL ignores its switch for joined rows, and says so; ours has no padding and starts at
    log 2, whatever the labels.
    """
    results = dry_run["8b"]
    assert set(results) == {"ours", "trl"}
    for result in results.values():
        assert "error" not in result and result["tokens_per_s"] > 0 and result["mfu"] is None
        assert result["first_loss"] == pytest.approx(0.693147, abs=1e-4)
    assert results["ours"]["padding"] == 0 < results["trl"]["padding"]


@pytest.mark.slow
def test_parity(dry_run: dict[str, dict[str, Any]]) -> None:
    results = dry_run["parity"]
    assert results["float32"]["loss"] == pytest.approx(results["float32"]["loss_float64"], abs=1e-6)
    assert results["float32"]["gradient_error"] < 1e-5 < results["bfloat16"]["gradient_error"]
    assert results["bfloat16"]["first_loss"] == pytest.approx(0.693147, abs=1e-4)


def test_figures_by_hand() -> None:
    """Width 2, one layer, a row of 3 tokens: 6 * 2 * 9 = 108 operations. Steps end at 1, 3 and 6
    seconds; the first is not counted: 5 seconds, and the sums of the other two batches.
    """
    assert flops_of_attention(9, width=2, layers=1) == 108
    meter = Meter([(9, 9, 9, 9), (10, 16, 4, 52), (12, 16, 5, 74), (1, 1, 1, 1)], [1.0, 3.0, 6.0])
    assert meter.measured(1) == (5.0, [22, 32, 9, 126])


def test_rows_have_real_lengths() -> None:
    columns = pairs(256, vocab=100, seed=1)
    tokens = sum(
        2 * len(p) + len(c) + len(r)
        for p, c, r in zip(*(columns[f"{k}_ids"] for k in ("prompt", "chosen", "rejected")))  # noqa: B905
    )
    assert tokens / 256 == pytest.approx(mean_tokens(), rel=0.01)
    assert sum(LIMITS.values()) < 480


def test_ratio_counts_the_reference_pass() -> None:
    found = {"1b": {"ours": {"with_reference": 30}, "trl": {"with_reference": 15}}}
    assert summary(found)["ratios"] == {"1b_over_trl": 2.0}
