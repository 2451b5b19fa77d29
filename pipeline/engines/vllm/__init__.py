"""Models that vLLM runs here, on the CPU or on GPUs; the only kinds whose weights can be trained.

`VLLM` writes replies and scores options; `REWARD_MODEL` gives a conversation one score.
"""

from dataclasses import replace
from pathlib import Path

from pipeline.config.engines import VllmConfig
from pipeline.config.paths import resolve_path
from pipeline.engines.base import Engine, EngineKind, Identity, StartingModel
from pipeline.engines.checks import check_vllm, dtype_for, model_folder
from pipeline.engines.fingerprint import model_fingerprint
from pipeline.engines.reward_checks import check_reward_model


async def _open(config: VllmConfig) -> Engine:
    from pipeline.engines.vllm.engine import open_vllm

    return await open_vllm(config)


def identity(config: VllmConfig) -> Identity:
    """Name and fingerprint, from the model's files and the number format alone."""
    fingerprint = model_fingerprint(
        model_folder(config),
        dtype=dtype_for(config),
        adapter=config.adapter,
        chat_template=config.chat_template,
        chat_template_args=config.chat_template_args,
    )
    return Identity(config.model, fingerprint)


def _resolved(config: VllmConfig) -> VllmConfig:
    folder = resolve_path(Path(config.model))
    return config.model_copy(
        update={
            "model": str(folder) if folder.is_dir() else config.model,
            "adapter": config.adapter and resolve_path(config.adapter),
            "chat_template": config.chat_template and resolve_path(config.chat_template),
        }
    )


def _starting_model(config: VllmConfig) -> StartingModel:
    return StartingModel(
        model_folder(config), config.chat_template, dict(config.chat_template_args)
    )


def _with_trained(config: VllmConfig, folder: Path) -> VllmConfig:
    return config.model_copy(update={"model": str(folder), "revision": None, "adapter": None})


VLLM = EngineKind(
    check=check_vllm,
    open=_open,
    identify=identity,
    resolve=_resolved,
    starting_model=_starting_model,
    with_trained=_with_trained,
)
REWARD_MODEL = replace(VLLM, check=check_reward_model)
