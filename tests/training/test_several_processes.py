"""Two processes with half the batch each train as one process does with the whole batch.

The files are those that accelerate reads for several GPUs; without one, the processes meet over
gloo. Accelerate shards on GPUs alone, so those of FSDP believe they have some. DPO has soft labels
and SFT replies of several lengths, so that a mean over the rows or tokens of each process would
differ from the mean over all.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from pipeline.config.paths import PROJECT_ROOT
from pipeline.config.training import DpoConfig, SftConfig
from pipeline.training.job import TrainingJob
from pipeline.training.launch import launch
from tests.training.builders import pair_row, read_metrics, sft_row, write_rows

FSDP = yaml.safe_load((PROJECT_ROOT / "flows/accelerate/fsdp.yaml").read_text(encoding="utf-8"))
DDP = {name: value for name, value in FSDP.items() if name != "fsdp_config"}
WITH_GPUS = """
import atexit, os
if "RANK" in os.environ and os.environ.get("ACCELERATE_USE_FSDP") == "true":
    from accelerate import state
    begin = state.PartialState.__init__
    def pretend(self, *arguments, **options):
        begin(self, *arguments, **options)
        if self.distributed_type == state.DistributedType.MULTI_CPU:
            self.distributed_type = state.DistributedType.MULTI_GPU
    state.PartialState.__init__ = pretend
    atexit.register(lambda: print(state.AcceleratorState().distributed_type, flush=True))
"""
"""Python runs it at the start of each process that finds it as sitecustomize.py."""
KINDS = {
    "ddp": (
        DDP | {"distributed_type": "MULTI_GPU"},
        SftConfig,
        [sft_row(i, completion="A" * (1 + i)) for i in range(24)],
    ),
    "fsdp": (
        FSDP,
        DpoConfig,
        [pair_row(i, soft_label=0.6 + 0.05 * (i % 8), chosen="A" * (1 + i)) for i in range(24)],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_two_processes_train_as_one(
    kind: str,
    tiny_model: Path,
    train: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, section, rows = KINDS[kind]
    (tmp_path / "sitecustomize.py").write_text(WITH_GPUS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(settings | {"num_processes": 2, "mixed_precision": "no"}))
    common = {"device": "cpu", "dtype": "float32", "learning_rate": 1e-2, "max_steps": 3}
    common |= {"log_steps": 1, "max_length": 128}
    alone = train(section(**common, batch_size=8), rows, name="alone")
    job = TrainingJob(
        config=section(**common, batch_size=4, accelerate_config=path),
        model=tiny_model,
        dataset=write_rows(tmp_path / "rows.parquet", rows),
        output_dir=tmp_path / "together",
    )
    together = await launch(job)
    assert ("DistributedType.FSDP" in job.log_path.read_text()) == (kind == "fsdp")
    for name in ("loss", "grad_norm", "epoch", "tokens"):
        steps = [[row[name] for row in read_metrics(result)] for result in (alone, together)]
        assert steps[1] == pytest.approx(steps[0], rel=1e-4), name
    one, two, start = (
        load_file(folder / "model.safetensors")
        for folder in (alone.model_dir, together.model_dir, tiny_model)
    )
    assert one.keys() == two.keys()
    for name in one:
        moved, apart = (one[name] - start[name]).float(), (one[name] - two[name]).float()
        assert moved.abs().max() > 1e-3 and apart.norm() < 0.1 * moved.norm(), name
