"""Model folder -> tokenizer, end-of-turn tokens and weights, as the engine would read them."""

import os
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import trl.trainer.utils
from torch.nn import Linear
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    set_seed,
)

from pipeline.config.training import TrainingSection
from pipeline.errors import ConfigError
from pipeline.training.job import TrainingJob
from pipeline.training.worker.arguments import Placement
from pipeline.training.worker.compiled import compile_layers
from pipeline.training.worker.encoding import ReplyEncoder
from pipeline.training.worker.joined_rows import prove_rows_apart
from pipeline.training.worker.kto_rows import Columns
from pipeline.training.worker.methods import method_of

TILE = 1024
"""Tokens of the vocabulary whose logits TRL's head computes at once on the CPU. Its 32,768 make
tiles of hundreds of megabytes, and fresh memory takes longer than the multiplication."""
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def load_encoder(job: TrainingJob) -> ReplyEncoder:
    """The tokenizer with the job's chat template and the tokens that end a turn.

    Raises:
        ConfigError: there is no chat template, or generation_config.json is unusable.
    """
    return encoder_of(job.model, job.chat_template, job.chat_template_args)


def encoder_of(
    folder: Path, chat_template: Path | None, template_args: dict[str, Any]
) -> ReplyEncoder:
    """The tokenizer of a model folder; see `load_encoder`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if chat_template is not None:
        tokenizer.chat_template = chat_template.read_text("utf-8")
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"model '{folder}' has no chat template; name a Jinja file in `chat_template`"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return ReplyEncoder(tokenizer, _end_ids(tokenizer, folder), dict(template_args))


def load_model(
    folder: Path, placement: Placement, config: TrainingSection
) -> tuple[Any, Placement]:
    """The model that the method trains, on this process's device, and how it is computed; remote
    code stays off.

    A model that will be sharded stays where it was loaded: no single GPU may hold it.

    Raises:
        ConfigError: as `ready`, or config.json cannot be saved again.
    """
    model = _load(folder, placement, config)
    prove_savable(model, folder)
    if placement.device == "cuda" and not placement.sharded:
        model.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return ready(model, placement, config)


def check_embeddings(model: Any, encoder: ReplyEncoder, columns: Columns) -> None:
    """Look for a token without an embedding, such as padding that was added to a tokenizer alone:
    torch would find it in the middle of a batch, and CUDA without saying which.

    Raises:
        ConfigError: there is one.
    """
    size = getattr(model.get_input_embeddings(), "num_embeddings", None)
    highest = encoder.tokenizer.pad_token_id
    for name, rows in columns.items():
        if name.endswith("_ids"):
            highest = max([highest, *(max(ids, default=0) for ids in rows)])
    if size is not None and highest >= size:
        raise ConfigError(
            f"token {highest} ({encoder.tokenizer.convert_ids_to_tokens(highest)!r}) has no "
            f"embedding: the model has {size}, and its tokenizer {len(encoder.tokenizer)} tokens; "
            "use the tokenizer that it was trained with, or resize the embedding"
        )


def check_adapter(model: Any, config: TrainingSection) -> None:
    """Raises ConfigError when the adapter's settings name a layer that the model does not have."""
    targets = config.lora.target_modules if config.lora else []
    if isinstance(targets, str):
        return
    modules = dict(model.named_modules())
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in modules):
            layers = {n.rpartition(".")[2] for n, m in modules.items() if isinstance(m, Linear)}
            raise ConfigError(
                f"lora.target_modules names '{target}', which the model does not have; its layers "
                f"are {', '.join(sorted(layers - {'lm_head'}))}"
            )


def load_reference(job: TrainingJob, placement: Placement, config: TrainingSection) -> Any:
    """The reference of a job that names another one than its model.

    Raises:
        ConfigError: it has another tokenizer.
    """
    assert job.reference is not None
    own, other = (AutoTokenizer.from_pretrained(path) for path in (job.model, job.reference))
    if own.get_vocab() != other.get_vocab():
        raise ConfigError(
            f"the reference '{job.reference}' has another tokenizer than '{job.model}', so its "
            "log-probabilities are of other tokens; name a model of the same family"
        )
    model, _ = load_model(job.reference, replace(placement, compiled=False), config)
    return model


def ready(model: Any, placement: Placement, config: TrainingSection) -> tuple[Any, Placement]:
    """The model with attention, tiles and compiled layers of its placement, proved to keep joined
    rows apart. Where the recipe leaves it open, a model that would mix them has padded rows.

    Raises:
        ConfigError: the recipe asks for joined rows, and they would change each other.
    """
    own_attention = model.config._attn_implementation
    if placement.attention:
        model.set_attn_implementation(placement.attention)
    if placement.padding_free and not placement.sharded:
        try:
            prove_rows_apart(model)
        except ConfigError as error:
            if method_of(config).padding_free(config) != "auto":
                raise
            reason, _, _ = str(error).rpartition(";")
            print(f"note: rows are padded ({reason})", flush=True)
            model.set_attn_implementation(own_attention)
            placement = replace(placement, padding_free=False)
    if placement.device == "cpu":
        trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE = TILE
    if placement.compiled:
        compile_layers(model)
    return model, placement


def prove_savable(model: Any, folder: Path) -> None:
    """Validate the configurations as saving will, when all is paid for, and repair what can be.

    Many folders set a temperature without `do_sample`, or what a later version no longer takes:
    such a generation_config.json loads and cannot be saved.

    Raises:
        ConfigError: config.json itself cannot be saved.
    """
    generation = model.generation_config
    if generation is not None and (problem := _problem(generation)):
        print(f"note: '{folder}': generation_config.json is repaired ({problem})", flush=True)
        sampling = GenerationConfig.from_dict(generation.to_dict() | {"do_sample": True})
        tokens = {name: getattr(generation, name) for name in _TOKENS}
        model.generation_config = GenerationConfig(**tokens) if _problem(sampling) else sampling
    try:
        with TemporaryDirectory() as aside:
            model.config.save_pretrained(aside)
            if model.generation_config is not None:
                model.generation_config.save_pretrained(aside)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"model folder '{folder}': its config.json loads and cannot be saved "
            f"({str(error).splitlines()[0]}); correct the file before training"
        ) from None


def load_generation_config(folder: Path) -> GenerationConfig:
    """The folder's generation_config.json, or an empty one. Raises ConfigError for an odd one."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return GenerationConfig()
    try:
        return GenerationConfig.from_pretrained(folder)
    except Exception as error:  # whatever an odd value makes the library raise
        reason = re.sub(r"\s+", " ", str(error))[:200] or type(error).__name__
        raise ConfigError(
            f"'{path}' cannot be loaded ({reason}); correct it, or remove the file"
        ) from None


def _problem(generation: GenerationConfig) -> str:
    """Why a generation config could not be saved; empty when it could."""
    try:
        generation.validate(strict=True)
    except ValueError as error:
        return re.sub(r"\s+", " ", str(error))[:200]
    return ""


def _load(folder: Path, placement: Placement, config: TrainingSection) -> Any:
    scores = method_of(config).scores
    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    settings: dict[str, Any] = {"dtype": placement.weights} | ({"num_labels": 1} if scores else {})
    if scores:
        # A new head is drawn here, before the trainer sets its seed.
        set_seed(config.seed)
    if placement.sharded:
        model = kind.from_pretrained(folder, **settings)  # all but one process get no weights
    else:
        model = load_weights(kind, folder, new_head=scores, **settings)
    if scores:
        # transformers sets it only on a model that writes.
        model.generation_config = None
    return model


def load_weights(kind: Any, folder: Path, *, new_head: bool = False, **settings: Any) -> Any:
    """A model with all of its weights from a folder; transformers would draw those that lack.

    Args:
        kind: a class of transformers.
        new_head: what is on top of the base model may be drawn.

    Raises:
        ConfigError: the folder cannot be loaded, or weights lack or are no numbers.
    """
    try:
        model, report = kind.from_pretrained(folder, output_loading_info=True, **settings)
    except Exception as error:  # whatever a damaged file makes the library raise
        if isinstance(error, MemoryError) or "out of memory" in str(error):
            raise
        reason = re.sub(r"\s+", " ", str(error))[:200] or type(error).__name__
        raise ConfigError(
            f"model folder '{folder}' cannot be loaded ({reason}); download it again"
        ) from error
    base = f"{model.base_model_prefix}."
    lacking = sorted(n for n in report["missing_keys"] if n.startswith(base) or not new_head)
    if lacking:
        raise ConfigError(
            f"model folder '{folder}' lacks {len(lacking)} of its weights, such as {lacking[0]}, "
            "which would be random numbers; download it again"
        )
    broken = (name for name, weights in model.named_parameters() if not weights.isfinite().all())
    if (name := next(broken, None)) is not None:
        raise ConfigError(
            f"model folder '{folder}': {name} has weights that are infinite or not numbers, so the "
            "training before it broke; begin with another model"
        )
    return model


def stored_dtype(folder: Path) -> torch.dtype:
    """Number format that the folder's weights are stored in, float32 if it does not say."""
    dtype = AutoConfig.from_pretrained(folder).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _end_ids(tokenizer: Any, folder: Path) -> frozenset[int]:
    """Tokens at which an engine stops: the tokenizer's and those of generation_config.json."""
    ids = {tokenizer.eos_token_id}
    more = load_generation_config(folder).eos_token_id
    ids |= set(more) if isinstance(more, list) else {more}
    return frozenset(token for token in ids if token is not None)
