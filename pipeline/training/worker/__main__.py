"""The training subprocess: `python -m pipeline.training.worker job.json`.

One path for every method and device: rows are encoded and checked, the model is loaded, TRL
trains it, the model is written, and `result.json` comes last. Only the modules that this file
imports touch torch, transformers and trl; `launch.py` and the rest of the package do not.

Lines on standard output that `launch.py` understands:
    phase ...              what is being done
    step 3/60 loss=...     progress (`metrics.py`)
    error KIND: message    a mistake of the user, in one line; exit code 2
"""

import os
import sys
import time

STARTED = time.perf_counter()
# Before the libraries are imported, since they read these once: nothing is looked up on a hub,
# nothing is reported to anyone. OpenMP threads sleep instead of spinning while they wait: on a
# machine whose cores are shared, spinning made a step 50 times slower.
for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}.items():
    os.environ.setdefault(_name, _value)

import importlib.metadata
import re
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import transformers

from pipeline.engines.fingerprint import model_fingerprint
from pipeline.errors import EXIT_OK, StoreError, UserError
from pipeline.training.job import JobFile, RowCounts, TrainingResult, read_job, write_result
from pipeline.training.methods import method_of
from pipeline.training.metrics import MetricsLog
from pipeline.training.worker.alarms import find_alarms, tail_mean
from pipeline.training.worker.arguments import adapter_config, place, trl_arguments
from pipeline.training.worker.child import die_with_parent
from pipeline.training.worker.encoding import Columns, ReplyEncoder, training_columns
from pipeline.training.worker.kto_rows import balanced
from pipeline.training.worker.loading import load_encoder, load_model, stored_dtype
from pipeline.training.worker.optimize import Optimized, check_first_batch, optimize
from pipeline.training.worker.probe import choose_prompts, run_probe
from pipeline.training.worker.reference import ReferenceCache, reference_cache
from pipeline.training.worker.saving import is_disk_full, save_model
from pipeline.training.worker.trainers import collator_for, trainer_class, training_dataset

LIBRARIES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft")


def run(file: JobFile) -> TrainingResult:
    """Train one job in this process and write everything that it leaves behind.

    Raises:
        UserError: settings, data or machine do not allow this training.
        TrainingError: the loss became infinite or not a number.
    """
    job, config = file.job, file.job.config
    phase("preparing")
    placement = place(config)
    _silence_progress_bars()
    encoder = load_encoder(job)
    columns, rows = training_columns(job.dataset, config, encoder, job.feedback)
    config = balanced(config, rows.replies)
    arguments = trl_arguments(config, placement, job.checkpoint_dir)
    model = load_model(job.model, placement)
    num_prompts = 0 if placement.sharded else config.alarms.probe_prompts
    prompts = choose_prompts(columns, num_prompts, config.seed)
    end_ids, pad_id = encoder.end_ids, encoder.tokenizer.pad_token_id
    before = run_probe(model, prompts, end_ids, pad_id, config.alarms.probe_tokens)
    cache = reference_cache(file, compute_dtype=placement.compute_dtype)
    trainer = build_trainer(file, model, arguments, columns, encoder, cache)
    log = MetricsLog(job.metrics_path)
    phase(
        f"optimizing on {rows.used} of {rows.read} rows ({rows.too_long} too long{_of_replies(rows)})"
    )
    optimized = optimize(trainer, job.checkpoint_dir, log)
    model = trainer.accelerator.unwrap_model(trainer.model)
    after = run_probe(model, prompts, end_ids, pad_id, config.alarms.probe_tokens)
    alarms = find_alarms(config, log.rows, rows, before, after, _chosen_tokens(columns))
    phase("saving")
    is_adapter = save_model(trainer, job, stored_dtype(job.model))
    result = TrainingResult(
        is_adapter=is_adapter,
        reference_cache=cache.state if cache else "unused",
        alarms=alarms,
        probe_before=before,
        probe_after=after,
        device=placement.device,
        desirable_weight=getattr(config, "desirable_weight", None),
        undesirable_weight=getattr(config, "undesirable_weight", None),
        **_facts(file, trainer, log, rows, optimized),
    )
    if trainer.accelerator.is_main_process:
        write_result(job, result)
        shutil.rmtree(job.checkpoint_dir, ignore_errors=True)
    return result


def phase(text: str) -> None:
    """Say what comes next; one of several processes speaks for all."""
    if os.environ.get("RANK", "0") == "0":
        print(f"phase {text}", flush=True)


def build_trainer(
    file: JobFile,
    model: Any,
    arguments: Any,
    columns: Columns,
    encoder: ReplyEncoder,
    cache: ReferenceCache | None,
) -> Any:
    """The method's TRL trainer over the encoded rows, its first batch checked."""
    method = method_of(file.job.config)
    trainer = trainer_class(method)(
        model=model,
        args=arguments,
        train_dataset=training_dataset(columns, file.job.config),
        processing_class=encoder.tokenizer,
        data_collator=collator_for(method, encoder.tokenizer.pad_token_id),
        peft_config=adapter_config(file.job.config),
        **({"reference": cache} if cache else {}),
    )
    check_first_batch(trainer, encoder.end_ids)
    return trainer


def _facts(
    file: JobFile, trainer: Any, log: MetricsLog, rows: RowCounts, optimized: Optimized
) -> dict[str, Any]:
    """The part of a result that is read off: counts, times, hashes and versions."""
    return {
        "method": file.job.config.method,
        "job_hash": file.job_hash,
        "model_dir": file.job.model_dir,
        "num_steps": trainer.state.global_step,
        "train_s": round(optimized.seconds, 2),
        "total_s": round(time.perf_counter() - STARTED, 2),
        "final_loss": tail_mean(log.rows, "loss") or 0.0,
        "reward_margin": tail_mean(log.rows, "reward_margin"),
        "rows": rows,
        "num_processes": trainer.accelerator.num_processes,
        "resumed_from_step": optimized.resumed_from_step,
        "versions": {
            "python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "dataset_sha256": file.dataset_sha256,
        "feedback_sha256": file.feedback_sha256,
        "model_hash": file.model_hash,
        "trained_hash": model_fingerprint(file.job.model_dir, dtype="stored"),
    }


def _of_replies(rows: RowCounts) -> str:
    """What KTO adds about its replies."""
    found = rows.replies
    return (
        ""
        if found is None
        else (
            f"; {found.desirable} good and {found.undesirable} bad replies, {found.contradicted} labeled "
            f"both ways and {found.repeated} repeated left out"
        )
    )


def _chosen_tokens(columns: Columns) -> float:
    replies = columns.get("chosen_ids") or columns.get("labels")
    if replies is None:
        replies = [ids for ids, good in zip(columns["completion_ids"], columns["label"]) if good]
    return fmean(sum(token != -100 for token in reply) for reply in replies)


def _silence_progress_bars() -> None:
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def main(argv: list[str]) -> int:
    """Run the job file named in `argv`; prints a user's mistake in one line and returns 2."""
    try:
        run(read_job(Path(argv[0])))
    except UserError as error:
        return _report(error)
    except Exception as error:
        if not is_disk_full(error):
            raise
        return _report(
            StoreError("no space left while training; free some disk space, then resume")
        )
    return EXIT_OK


def _report(error: UserError) -> int:
    message = re.sub(r"\s+", " ", str(error))
    print(f"error {type(error).__name__}: {message}", flush=True)
    return error.exit_code


if __name__ == "__main__":
    die_with_parent(os.getppid())
    sys.exit(main(sys.argv[1:]))
