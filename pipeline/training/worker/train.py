"""One training, whatever the method and the device: a job in, `result.json` out.

Rows are encoded and checked, the model is loaded, TRL trains it, the model is written, and
`result.json` comes last.
"""

import importlib.metadata
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import datasets
import transformers

from pipeline.config.training import DpoConfig, ReferenceSection, RewardModelTrainingConfig
from pipeline.engines.fingerprint import file_hashes, model_fingerprint
from pipeline.ids import content_hash
from pipeline.store.files import write_json
from pipeline.training.job import JobFile, RowCounts, TrainingResult, write_result
from pipeline.training.metrics import MetricsLog
from pipeline.training.worker.alarms import find_alarms, tail_mean
from pipeline.training.worker.arguments import adapter_config, place, trl_arguments
from pipeline.training.worker.encoding import ReplyEncoder, training_columns
from pipeline.training.worker.first_loss import check_plain, compare
from pipeline.training.worker.heldout import measure, split
from pipeline.training.worker.kto_rows import Columns, Ids
from pipeline.training.worker.loading import (
    check_adapter,
    check_embeddings,
    load_encoder,
    load_model,
    load_reference,
    stored_dtype,
)
from pipeline.training.worker.methods import method_of
from pipeline.training.worker.optimize import check_first_batch, optimize
from pipeline.training.worker.probe import (
    choose_prompts,
    familiarity,
    mean_logps,
    run_probe,
    sample_texts,
)
from pipeline.training.worker.reference import PAIR_COLUMNS, UNPAIRED_COLUMNS, ReferenceCache
from pipeline.training.worker.rewards import Rewards, load_rewards
from pipeline.training.worker.saving import save_model, stage_tokenizer

LIBRARIES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft")


def run(file: JobFile, started: float) -> TrainingResult:
    """Train one job in this process and write everything that it leaves behind.

    Args:
        started: `time.perf_counter()` at the start of the process.

    Raises:
        UserError: settings, data or machine do not allow this training.
        TrainingError: the loss became infinite or not a number.
    """
    job, config = file.job, file.job.config
    phase("preparing")
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(job.output_dir / "tensorboard"))
    # MLflow no longer writes plain files.
    database = (job.output_dir / "mlflow.db").absolute()
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    placement = place(config)
    _silence_progress_bars()
    encoder = load_encoder(job)
    columns, rows = training_columns(job.dataset, config, encoder, job.feedback)
    heldout: Columns | None = None
    if isinstance(config, RewardModelTrainingConfig):
        columns, heldout = split(columns, config.heldout_share, config.seed)
        held = len(heldout["row_id"])
        rows = rows.model_copy(update={"used": rows.used - held, "heldout": held})
    model, placement = load_model(job.model, placement, config)
    check_embeddings(model, encoder, columns)
    check_adapter(model, config)
    arguments = trl_arguments(config, rows, placement, job.checkpoint_dir)
    num_prompts = config.alarms.probe_prompts if config.trains_policy else 0
    unprobed = ""
    if num_prompts and placement.sharded:
        num_prompts, unprobed = 0, "its weights are spread over several GPUs"
    prompts = choose_prompts(columns, num_prompts, config.seed) if num_prompts else []
    end_ids, pad_id = encoder.end_ids, encoder.tokenizer.pad_token_id
    limit = config.alarms.probe_tokens
    before = run_probe(model, prompts, end_ids, pad_id, limit)
    own = sample_texts(model, prompts, end_ids, pad_id, limit, config.seed)
    stage_tokenizer(job)
    cache = reference_cache(file, compute_dtype=placement.compute_dtype)
    reference = load_reference(job, placement, config) if job.reference else None
    trainer = build_trainer(file, model, arguments, columns, encoder, cache, reference)
    own_means = mean_logps(trainer.model, own, trainer.accelerator.autocast())
    log = MetricsLog(job.metrics_path)
    left_out = f"{rows.too_long} too long{_of_replies(rows)}"
    phase(f"optimizing on {rows.used} of {rows.read} rows ({left_out})")
    method = method_of(config)
    if method.plain_loss is not None and not placement.sharded:
        check_plain(trainer, method, config, placement.compute_dtype)
    # A policy that begins away from its reference has no loss that is known beforehand.
    known = method.first_loss if job.reference is None else None
    first = known(config, rows) if known else (-math.inf, math.inf)
    optimized = optimize(
        trainer,
        job.checkpoint_dir,
        log,
        lambda loss: compare(loss, *first, placement.compute_dtype),
    )
    model = trainer.accelerator.unwrap_model(trainer.model)
    measured = after = divergence = None
    try:
        after = run_probe(model, prompts, end_ids, pad_id, limit)
        if own:
            means = mean_logps(model, own, trainer.accelerator.autocast())
            divergence = _divergence(own, own_means, means)
        if heldout is not None and not placement.sharded:
            phase(f"measuring on {rows.heldout} held-out pairs")
            measured = measure(model, heldout, pad_id, config.batch_size)
    except Exception as error:
        # A measurement is worth less than the training before it.
        print(f"the model is not measured after training: {error!r}", flush=True)
        unprobed = repr(error) if prompts else ""
    familiar = None
    asks = method.shape == "pairs" and "chosen_weights" not in columns and job.reference is None
    if cache is not None and asks:
        logps = {name: trainer.train_dataset[name][:] for name in cache.columns}
        familiar = familiarity(own_means, columns, logps)
    chosen_tokens = _chosen_tokens(columns)
    alarms = find_alarms(
        config, log.rows, rows, before, after, chosen_tokens, divergence, familiar, unprobed
    )
    phase("saving")
    is_adapter = save_model(trainer, job, stored_dtype(job.model))
    weights = method.arguments(config, rows)
    result = TrainingResult(
        method=config.method,
        job_hash=file.job_hash,
        model_dir=job.model_dir,
        is_adapter=is_adapter,
        num_steps=trainer.state.global_step,
        train_s=round(optimized.seconds, 2),
        total_s=round(time.perf_counter() - started, 2),
        final_loss=tail_mean(log.rows, "loss") or 0.0,
        reward_margin=tail_mean(log.rows, "reward_margin"),
        rows=rows,
        desirable_weight=weights.get("desirable_weight"),
        undesirable_weight=weights.get("undesirable_weight"),
        reference_cache=cache.state if cache else "unused",
        heldout=measured,
        alarms=tuple(alarms),
        probe_before=before,
        probe_after=after,
        divergence=divergence,
        familiarity=familiar,
        device=placement.device,
        num_processes=trainer.accelerator.num_processes,
        resumed_from_step=optimized.resumed_from_step,
        versions={"python": sys.version.split()[0]}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
        dataset_sha256=file.dataset_sha256,
        feedback_sha256=file.feedback_sha256,
        reward_hash=file.reward_hash,
        model_hash=file.model_hash,
        reference_hash=file.reference_hash,
        trained_hash=model_fingerprint(job.model_dir, dtype="stored"),
        files=file_hashes(job.model_dir),
    )
    if trainer.accelerator.is_main_process:
        write_json(job.rows_path, used_rows(columns))
        write_result(job, result)
        shutil.rmtree(job.checkpoint_dir, ignore_errors=True)
    return result


def used_rows(columns: Columns) -> list[str]:
    """Ids of the rows of the data set that the encoded ones are of, each once; KTO has two of a
    pair.
    """
    ids = (name.removesuffix(":chosen").removesuffix(":rejected") for name in columns["row_id"])
    return sorted(set(ids))


def reference_cache(file: JobFile, *, compute_dtype: str) -> ReferenceCache | None:
    """The cache that belongs to a job, or None for a method without a reference.

    `compute_dtype` is part of the key: bfloat16 and float32 give different log-probabilities.
    """
    config = file.job.config
    if not isinstance(config, ReferenceSection):
        return None
    method = method_of(config)
    unpaired = method.shape == "unpaired"
    determinants: list[Any] = [
        file.reference_hash or file.model_hash,
        file.dataset_sha256,
        config.max_length,
        compute_dtype,
        method.shape,
    ]
    if unpaired:
        # The mismatched replies depend on the rows, their order and the batches.
        determinants += [config.seed, config.batch_size, *method.smallest(config)]
        determinants += [file.feedback_sha256]
        determinants += [config.max_rows] if config.max_rows is not None else []
    if isinstance(config, DpoConfig) and config.turns:
        determinants.append(config.turns.model_dump(mode="json"))
    return ReferenceCache(
        path=file.job.cache_dir / f"{content_hash(determinants)[:24]}.parquet",
        columns=UNPAIRED_COLUMNS if unpaired else PAIR_COLUMNS,
    )


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
    reference: Any = None,
) -> Any:
    """The method's TRL trainer over the encoded rows, its first batch checked.

    Args:
        reference: the reference model, where it is not the model itself.
    """
    config = file.job.config
    method = method_of(config)
    own_replies = method.shape == "prompts"
    trainer_class, _ = method.classes()
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=method.dataset(columns, config),
        processing_class=encoder.tokenizer,
        peft_config=adapter_config(config),
        **({"reference": cache, "ref_model": reference} if cache else {}),
        **({"reward_funcs": _rewards(file, arguments, encoder)} if own_replies else {}),
    )
    if reference is not None:
        # Its log-probabilities are in the rows; nothing asks it again.
        trainer.ref_model = None
    if not method.scores and not own_replies:
        check_first_batch(trainer, encoder.end_ids)
    return trainer


def _rewards(file: JobFile, arguments: Any, encoder: ReplyEncoder) -> Rewards:
    source = file.job.reward_model
    assert source is not None  # `check_job` refuses such a job
    return load_rewards(source, encoder, arguments.device, file.job.config.batch_size)


def _of_replies(rows: RowCounts) -> str:
    """What KTO adds about its replies."""
    counts = rows.replies
    if counts is None:
        return ""
    return (
        f"; {counts.desirable} good and {counts.undesirable} bad replies, {counts.contradicted} "
        f"labeled both ways and {counts.repeated} repeated left out"
    )


def _divergence(
    own: Sequence[tuple[Ids, Ids]], before: Sequence[float], after: Sequence[float]
) -> float:
    """Nats that a token of the sampled replies lost, over all their tokens."""
    lost = zip(own, before, after, strict=True)
    total = sum((old - new) * len(reply) for (_, reply), old, new in lost)
    return total / sum(len(reply) for _, reply in own)


def _chosen_tokens(columns: Columns) -> float:
    replies = columns.get("chosen_ids") or columns.get("labels")
    if "messages" in columns:
        return 0.0  # the policy writes its replies itself
    if replies is None:
        labeled = zip(columns["completion_ids"], columns["label"], strict=True)
        replies = [ids for ids, good in labeled if good]
    return fmean(sum(token != -100 for token in reply) for reply in replies)


def _silence_progress_bars() -> None:
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
