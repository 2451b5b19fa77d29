"""The training subprocess: its end becomes a result or an error, and it never outlives us."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.alarms import AlarmConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.config.training import DpoConfig, SftConfig, TrainingConfig
from pipeline.errors import ConfigError, DataError, MachineError, StoreError, TrainingError
from pipeline.training import TrainingJob, launch
from pipeline.training import launch as launch_function
from pipeline.training.job import describe, write_job
from pipeline.training.launch import check_job, prove_model
from tests.training.builders import pair_row, write_rows

launch_module = sys.modules[launch_function.__module__]
CPU: dict[str, Any] = {"device": "cpu", "alarms": AlarmConfig(probe_prompts=0)}


def make_job(
    tmp_path: Path, folder: Path, config: TrainingConfig | None = None, **fields: Any
) -> TrainingJob:
    dataset = write_rows(tmp_path / "pairs.parquet", [pair_row(i) for i in range(16)])
    given = {"config": config or DpoConfig(**CPU), "model": folder, "dataset": dataset}
    return TrainingJob(**given | {"output_dir": tmp_path / "job"} | fields)


def run_instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(launch_module, "_command", lambda job, path: [sys.executable, "-c", code])


FOREIGN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "192.0.2.1",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RUN_ID": "x",
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_MIXED_PRECISION": "fp8",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Nothing",
    "HF_HUB_OFFLINE": "0",
    "HF_TOKEN": "hf_secret",
    "TRANSFORMERS_VERBOSITY": "nonsense",
    "WANDB_PROJECT": "theirs",
    "MLFLOW_TRACKING_URI": "http://192.0.2.1",
    "OPENAI_API_KEY": "sk-secret",
}
"""What a shell may hold that another launcher, a tracker or a hub left there."""


def test_only_what_is_meant_reaches_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = {"CUDA_VISIBLE_DEVICES": "1", "NCCL_DEBUG": "INFO", "LC_ALL": "C", "TORCH_LOGS": "+x"}
    for name, value in {**FOREIGN, **machine, "LD_LIBRARY_PATH": "/cuda"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch_module, "count_gpus", lambda: 2)
    variables = launch_module._environment(make_job(tmp_path, tmp_path, DpoConfig(device="auto")))
    assert not FOREIGN.keys() & variables.keys()
    assert machine.items() <= variables.items() and variables["LD_LIBRARY_PATH"] == "/cuda"
    assert {"PATH", "PYTHONPATH", "OMP_NUM_THREADS"} <= variables.keys()


@pytest.mark.slow
async def test_killed_parent_then_resume(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill the parent after a checkpoint: the worker goes too, and a second launch continues.

    The shell of both has the variables of another launcher, which would make a worker wait for
    others or leave its model unsaved.
    """
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    config = DpoConfig(**CPU, max_steps=45, save_steps=15, batch_size=2)
    job = make_job(tmp_path, tiny_model, config)
    path = write_job(describe(job))
    code = (
        "import sys; from pathlib import Path; from pipeline.training import launch; "
        "from pipeline.training.job import read_job; import asyncio; "
        "asyncio.run(launch(read_job(Path(sys.argv[1])).job))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(path)])
    wait_for(lambda: any(job.checkpoint_dir.glob("checkpoint-*/complete")), parent)
    (worker,) = children_of(parent.pid)
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_alive(worker))
    assert not (job.output_dir / "result.json").exists() and not job.model_dir.exists()

    seen: list[int] = []
    result = await launch(job, on_progress=lambda progress: seen.append(progress.step))
    assert result.resumed_from_step >= 15 and result.num_steps == 45
    assert seen[0] == result.resumed_from_step + 1 and seen[-1] == 45
    assert result.reference_cache == "hit" and not job.checkpoint_dir.exists()
    lines = job.metrics_path.read_text("utf-8").splitlines()
    assert len(lines) == 45
    assert await launch(job, on_line=pytest.fail) == result


def wait_for(condition: Any, process: subprocess.Popen[bytes] | None = None) -> None:
    for _ in range(1200):
        if condition():
            return
        assert process is None or process.poll() is None, "the process ended too early"
        time.sleep(0.05)
    raise AssertionError("waited for a minute")


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_finished_job_is_not_repeated(tmp_path: Path, tiny_model: Path) -> None:
    """Where it is done, how often it reports and on which device do not make another job."""
    job = make_job(tmp_path, tiny_model)
    other_report = job.model_copy(update={"config": DpoConfig(**CPU, log_steps=5)})
    other_rate = job.model_copy(update={"config": DpoConfig(**CPU, learning_rate=1e-3)})
    other_place = job.model_copy(update={"output_dir": tmp_path / "elsewhere"})
    assert (
        describe(other_report).job_hash == describe(other_place).job_hash == describe(job).job_hash
    )
    assert describe(other_rate).job_hash != describe(job).job_hash


async def test_other_job_clears_the_folder(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, tiny_model)
    write_job(describe(job))
    (job.checkpoint_dir / "checkpoint-3").mkdir(parents=True)
    job.metrics_path.write_text("{}")
    run_instead(monkeypatch, "raise SystemExit(1)")
    with pytest.raises(TrainingError):
        await launch(job)
    assert job.checkpoint_dir.exists()
    with pytest.raises(TrainingError):
        await launch(job.model_copy(update={"config": DpoConfig(**CPU, seed=9)}))
    assert not job.checkpoint_dir.exists() and not job.metrics_path.exists()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (
            "print('error DataError: row 3 is empty'); raise SystemExit(2)",
            DataError,
            "^row 3 is empty$",
        ),
        (
            "raise OSError(28, 'No space left on device')",
            StoreError,
            "^no space left while training",
        ),
        ("import os; os.kill(os.getpid(), 9)", TrainingError, "signal 9.*lower batch_size"),
        ("raise RuntimeError('CUDA out of memory')", TrainingError, "GPU memory; lower batch_size"),
        ("print('last words'); raise SystemExit(3)", TrainingError, "code 3; log: .*\nlast words"),
        ("pass", TrainingError, "without a result"),
    ],
)
async def test_worker_end_becomes_error(
    code: str,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_instead(monkeypatch, code)
    with pytest.raises(error, match=message):
        await launch(make_job(tmp_path, tiny_model))


async def test_cancel_ends_the_worker(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    pids: list[int] = []
    job = make_job(tmp_path, tiny_model)
    task = asyncio.create_task(launch(job, on_line=lambda line: pids.append(int(line))))
    while not pids:
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pids[0])


async def test_callback_error_ends_the_worker(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that ignores SIGTERM is killed."""
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    run_instead(monkeypatch, code)
    monkeypatch.setattr(launch_module, "STOP_S", 0.2)
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line))
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await launch(make_job(tmp_path, tiny_model), on_line=on_line)
    assert not is_alive(pids[0])


def test_mistakes_are_found_first(tmp_path: Path, tiny_model: Path) -> None:
    missing = tmp_path / "nothing"
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"model": missing}, ConfigError, "model folder .* has no config.json"),
        ({"dataset": missing}, DataError, "data set .* does not exist"),
        ({"chat_template": missing}, ConfigError, "`chat_template` names"),
        (
            {"config": SftConfig(accelerate_config=missing)},
            ConfigError,
            "`accelerate_config` names",
        ),
    ]
    for change, error, message in cases:
        with pytest.raises(error, match=message):
            check_job(make_job(tmp_path, tiny_model, **change))
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="but their header says"):
        check_job(make_job(tmp_path, folder))
    shutil.copyfile(tiny_model / weights.name, weights)
    settings = (tiny_model / "config.json").read_text()
    quantized = json.loads(settings) | {"quantization_config": {"quant_method": "awq"}}
    (folder / "config.json").write_text(json.dumps(quantized))
    for check in (lambda: check_job(make_job(tmp_path, folder)), lambda: prove_model(folder)):
        with pytest.raises(ConfigError, match=r"are quantized \(awq\), .*name the original model"):
            check()
    (folder / "config.json").write_text(settings)
    template = tmp_path / "thinks.jinja"
    template.write_text("{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}")
    with pytest.raises(ConfigError, match=r"chat template .*; name a template"):
        check_job(make_job(tmp_path, folder, chat_template=template))
    assert not (tmp_path / "job").exists()


async def test_cuda_must_be_there(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "count_gpus", lambda: 0)
    with pytest.raises(MachineError, match="device: cuda"):
        await launch(make_job(tmp_path, tiny_model, SftConfig(device="cuda")))


def test_accelerate_launches_on_cuda(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a GPU or a config file it is accelerate's launcher, else the worker itself."""
    path = tmp_path / "job.json"
    monkeypatch.setattr(launch_module, "count_gpus", lambda: 1)
    auto = launch_module._command(make_job(tmp_path, tiny_model, DpoConfig()), path)
    assert "accelerate.commands.launch" in auto and "--mixed_precision=bf16" in auto
    plain = launch_module._command(make_job(tmp_path, tiny_model, DpoConfig(device="cpu")), path)
    assert plain[1:] == ["-m", "pipeline.training.worker", str(os.getpid()), str(path)]
    config = DpoConfig(device="cpu", accelerate_config=Path("fsdp.yaml"))
    several = launch_module._command(make_job(tmp_path, tiny_model, config), path)
    assert several[several.index("--config_file") + 1] == "fsdp.yaml"


def test_shipped_accelerate_file_is_understood() -> None:
    """Accelerate drops keys of `fsdp_config` that it does not know without a word."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(PROJECT_ROOT / "flows/accelerate/fsdp.yaml"))
    known = vars(launch_command_parser().parse_args(["script"]))
    assert config.distributed_type.value == "FSDP" and config.mixed_precision == "bf16"
    assert config.fsdp_config and set(config.fsdp_config) <= set(known)


def test_package_leaves_torch_alone() -> None:
    heavy = "('torch', 'transformers', 'trl', 'datasets')"
    code = f"import sys, pipeline.training; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
