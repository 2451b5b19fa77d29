"""Run a training job in its own process and turn its end into a result or an error.

In:  a TrainingJob
Out: a TrainingResult; or a UserError for what a person can correct, a TrainingError otherwise

The subprocess is what makes GPU memory free again afterwards and what keeps torch and trl out of
this process. On CUDA, or with an accelerate config file, it is `accelerate launch`; on the CPU
the worker is started directly with the same settings in its environment, which saves the one to
two seconds in which the launcher imports torch for itself. A finished job is not run again, an
unfinished one continues from its last checkpoint, and the child dies with its parent.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pipeline import errors
from pipeline.config.training import DpaConfig, ReferenceSection, TrainingSection
from pipeline.engines.architecture import json_object, refuse_quantized
from pipeline.engines.base import StartingModel
from pipeline.engines.checks import chat_template_source, check_model_folder, count_gpus
from pipeline.engines.reward_checks import check_classifier
from pipeline.engines.template_trial import TemplateUse, try_template
from pipeline.errors import (
    ConfigError,
    DataError,
    MachineError,
    PipelineError,
    StoreError,
    TrainingError,
)
from pipeline.store.disk import disk_error
from pipeline.store.files import read_json
from pipeline.training.job import (
    JobFile,
    TrainingJob,
    TrainingResult,
    describe,
    finished_result,
    write_job,
)
from pipeline.training.metrics import TrainingStep, parse_progress

WORKER = "pipeline.training.worker"
STOP_S = 10.0
"""Seconds that a stopped worker has to end before it is killed."""
TAIL_LINES = 25
"""Last lines of the log that an error carries."""
LINE_LIMIT = 1 << 22
"""Bytes of the longest log line."""
_NO_SAMPLING = {
    "_from_model_config",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "transformers_version",
}

_MEANT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "TERM", "VIRTUAL_ENV"),
    *("CONDA_PREFIX", "LD_LIBRARY_PATH", "LD_PRELOAD", "CC", "CXX"),
)
_MEANT_BEGINNINGS = (
    *("LC_", "XDG_", "PYTHON", "CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "NCCL_", "GLOO_", "HIP_"),
    *("ROCR_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "PYTORCH_", "TORCH_", "TRITON_"),
    *("TORCHINDUCTOR_", "TORCHDYNAMO_"),
)
"""The shell's variables that reach a worker: they say how this machine works. What is trained comes
from the recipe alone. Ranks of another launcher, settings of accelerate and transformers, hubs and
keys do not reach it, and of trackers only the settings of those that the recipe names."""

OnLine = Callable[[str], None]
OnProgress = Callable[[TrainingStep], None]


async def launch(
    job: TrainingJob, *, on_line: OnLine | None = None, on_progress: OnProgress | None = None
) -> TrainingResult:
    """Train, or return the result of the same job if it is there already.

    When the task is canceled, or a callback raises, the worker is ended first; a later call
    continues from its last checkpoint.

    Args:
        job: what to train, on what, where to.
        on_line: gets every line of the log, for a terminal.
        on_progress: gets step, number of steps and loss.

    Raises:
        ConfigError, DataError, MachineError, StoreError: one line that says what to correct.
        TrainingError: the worker ended badly; carries the end of its log.
    """
    check_job(job)
    # In a thread, since a big model takes seconds to read.
    file = await asyncio.to_thread(describe, job)
    done = finished_result(file)
    if done is not None:
        return done
    # First of all: a result vouches for the files of its model.
    (job.output_dir / "result.json").unlink(missing_ok=True)
    _clear_other_job(file)
    command = _command(job, write_job(file))
    try:
        await _run(command, job, on_line or _ignore, on_progress or _ignore)
    except OSError as error:
        raise disk_error(error, job.log_path) from error
    result = finished_result(file)
    if result is None:
        raise TrainingError(f"training ended without a result; see {job.log_path}")
    return result


def check_job(job: TrainingJob) -> None:
    """Find a user's mistakes before anything is written, without importing torch.

    Raises:
        ConfigError: model folder or a file that the job names is missing or damaged, the chat
            template cannot be trained with, the method does not read feedback or the reference, or
            needs a reward model and has none that can be one, or a tracker is not installed.
        DataError: a data set is missing.
        MachineError: CUDA is asked for and this machine shows no GPU.
    """
    check_model_folder(job.model)
    refuse_quantized(job.model)
    if job.reference is not None:
        if not isinstance(job.config, ReferenceSection) or job.config.reference != "fixed":
            raise ConfigError(
                f"the job has the reference '{job.reference}', but its settings do not say "
                "`reference: fixed`; set it, for a method that has a reference, or leave it out"
            )
        check_model_folder(job.reference)
    check_trackers(job.config)
    named = {"chat_template": job.chat_template, "accelerate_config": job.config.accelerate_config}
    for name, path in named.items():
        if path is not None and not path.is_file():
            raise ConfigError(f"`{name}` names '{path}', which does not exist; correct the path")
    start = StartingModel(job.model, job.chat_template, dict(job.chat_template_args))
    if chat_template_source(job.model, job.chat_template):
        # Without any template, the worker says so.
        try_template(start, _template_use(job.config))
    if job.config.learns_online:
        _check_reward_model(job)
    if job.feedback is not None and not job.config.takes_feedback:
        raise ConfigError(
            f"the job has feedback '{job.feedback}', but method '{job.config.method}' learns from "
            "pairs alone; use kto, or leave the feedback out"
        )
    for data in filter(None, (job.dataset, job.feedback)):
        if not data.is_file():
            raise DataError(f"data set '{data}' does not exist; run the export stage first")
    if job.config.device == "cuda" and count_gpus() == 0:
        raise MachineError(
            "the recipe asks for `device: cuda` and this machine shows no NVIDIA GPU; "
            "use `device: cpu` or `auto`, or run it where a GPU is"
        )


def _check_reward_model(job: TrainingJob) -> None:
    reward = job.reward_model
    if reward is None:
        raise ConfigError(
            f"method '{job.config.method}' learns from the scores of a reward model, and the job "
            "names none; set `reward_model`"
        )
    check_model_folder(reward.folder)
    check_classifier(reward.folder)
    try_template(reward, TemplateUse(frozenset({("user",)}), reads_reply=True))


def check_trackers(config: TrainingSection | None) -> None:
    """Raises ConfigError for a tracker that is not installed; nothing is imported."""
    for name in config.report_to if config else ():
        modules = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(map(find_spec, modules)):
            raise ConfigError(
                f"report_to names '{name}', which is not installed here; install it with "
                f"`pip install {name}`, or leave it out: metrics.jsonl has every figure"
            )


def prove_model(folder: Path) -> str:
    """What a training from this model repairs in its configurations, as a line; empty for nothing.

    A process of its own asks transformers, only where generation_config.json says how to sample:
    such settings are what loads and cannot be saved.

    Raises:
        ConfigError: the trained model could not be saved, or this one not be loaded; or its weights
            are quantized.
    """
    refuse_quantized(folder)
    path = folder / "generation_config.json"
    if not path.is_file() or json_object(path).keys() <= _NO_SAMPLING:
        return ""
    command = [sys.executable, "-m", f"{WORKER}.prove", str(folder)]
    variables = {**meant_variables(), "PYTHONPATH": _python_path(), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    lines = ended.stdout.splitlines()
    if mistake := next(filter(None, map(_mistake, lines)), None):
        raise mistake
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or [f"code {ended.returncode}"])[-1]
        raise ConfigError(f"model folder '{folder}' cannot be loaded for a training ({last[:300]})")
    return next((line.removeprefix("note: ") for line in lines if line.startswith("note: ")), "")


def _template_use(config: TrainingSection) -> TemplateUse:
    writes = config.trains_policy
    roles = ("system", "user") if isinstance(config, DpaConfig) else ("user",)
    return TemplateUse(frozenset({roles}), learns=writes, reads_reply=not writes)


def _clear_other_job(file: JobFile) -> None:
    """Remove what a different job left in this folder; keep the checkpoints of the same job."""
    job = file.job
    earlier = read_json(job.output_dir / "job.json")
    if not isinstance(earlier, dict) or earlier.get("job_hash") == file.job_hash:
        return
    for path in (job.checkpoint_dir, job.model_dir):
        shutil.rmtree(path, ignore_errors=True)
    job.metrics_path.unlink(missing_ok=True)


def _command(job: TrainingJob, job_path: Path) -> list[str]:
    worker = [sys.executable, "-m", WORKER, str(os.getpid())]
    config = job.config.accelerate_config
    if config is not None:
        options = ["--config_file", str(config)]
    elif job.config.device != "cpu" and count_gpus() > 0:
        precision = "no" if job.config.dtype == "float32" else "bf16"
        options = ["--num_processes=1", "--num_machines=1", "--dynamo_backend=no"]
        options += [f"--mixed_precision={precision}"]
    else:
        return [*worker, str(job_path)]
    # The launcher of several processes fails on arguments that begin with a dash.
    return [*worker, "accelerate.commands.launch", *options, "-m", WORKER, "0", str(job_path)]


def _environment(job: TrainingJob) -> dict[str, str]:
    """The worker's environment."""
    cores = str(len(os.sched_getaffinity(0)))
    variables = {
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": cores,
        "OMP_WAIT_POLICY": "PASSIVE",
        **meant_variables(),
    }
    own = tuple(f"{name.upper()}_" for name in job.config.report_to)
    variables |= {name: value for name, value in os.environ.items() if name.startswith(own)}
    variables["PYTHONPATH"] = _python_path()
    if job.config.device == "cpu" or count_gpus() == 0:
        variables |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    return variables


def meant_variables() -> dict[str, str]:
    """The variables of this process that are meant for a worker."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _MEANT or name.startswith(_MEANT_BEGINNINGS)
    }


def _python_path() -> str:
    """With the folder of this package, so that the worker is found from any working directory."""
    root = str(Path(errors.__file__).parent.parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))


async def _run(
    command: list[str], job: TrainingJob, on_line: OnLine, on_progress: OnProgress
) -> None:
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    mistake: PipelineError | None = None
    with job.log_path.open("w", encoding="utf-8") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=_environment(job),
            start_new_session=True,
            limit=LINE_LIMIT,
        )
        try:
            assert process.stdout is not None
            async for raw in process.stdout:
                line = raw.decode("utf-8", "replace").rstrip()
                log.write(line + "\n")
                log.flush()
                tail.append(line)
                mistake = _mistake(line) or mistake
                on_line(line)
                progress = parse_progress(line)
                if progress is not None:
                    on_progress(progress)
            code = await process.wait()
        finally:
            await _end(process)
    if mistake is not None:
        if isinstance(mistake, TrainingError):
            mistake = TrainingError(f"{job.config.method} training: {mistake}; log: {job.log_path}")
        raise mistake
    if code != 0:
        raise _failure(job, code, list(tail))


async def _end(process: Process) -> None:
    """End the worker and whatever it started; it leads a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        try:
            os.killpg(process.pid, number)
            await asyncio.wait_for(process.wait(), STOP_S)
        except (ProcessLookupError, TimeoutError):
            continue


def _mistake(line: str) -> PipelineError | None:
    """The error that a worker's `error KIND: message` line stands for."""
    kind, separator, message = line.removeprefix("error ").partition(": ")
    if not line.startswith("error ") or not separator:
        return None
    cls = getattr(errors, kind, None)
    return cls(message) if isinstance(cls, type) and issubclass(cls, PipelineError) else None


def _failure(job: TrainingJob, code: int, tail: list[str]) -> Exception:
    text = "\n".join(tail)
    if "No space left on device" in text:
        return StoreError(
            f"no space left while training in {job.output_dir}; free some disk space, then resume"
        )
    cause = f"ended with code {code}"
    if code in (-9, 137):
        cause = "was killed (signal 9), often because memory ran out; lower batch_size"
    if "out of memory" in text:
        cause = "ran out of GPU memory; lower batch_size, or set gradient_checkpointing or lora"
    return TrainingError(f"{job.config.method} training {cause}; log: {job.log_path}\n{text}")


def _ignore(_: object) -> None:
    """Discards the line."""
