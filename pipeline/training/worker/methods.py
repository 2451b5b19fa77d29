"""Which trainer, loss and dataset shape belong to each method: one table.

A new method needs its settings (`pipeline/config/training.py`), its behavior (a module with a
`Method`) and a line in `METHODS`.

Facts of TRL 1.16 that the table settles:

- `DPOTrainer` with `sigmoid` ignores `label_smoothing` without a word, and knows no per-row
  probability; `SoftDpoTrainer` adds one. `robust` does read `label_smoothing`.
- `ipo` divides each log-ratio by the length of the reply.
- KTO is stable API. It pairs each row with its neighbor's reply inside the batch, so it needs a
  fixed order, at least two rows a batch, and data shuffled beforehand (`unpaired_columns`).
- ORPO and CPO are experimental. ORPO's likelihood term covers prompt and reply. SimPO is CPO
  with `loss_type="simpo"` and `cpo_alpha=0`, and takes gamma itself, not gamma / beta.
- Padding-free batches exist in SFT only; in DPO TRL's switch warns and does nothing, and
  `SoftDpoTrainer` does it.
- `RLOOTrainer` keeps dropout on while it samples, and imports vLLM where it is installed.
- `RewardTrainer` knows a margin per row and no probability; `SoftRewardTrainer` adds one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from datasets import Dataset
from trl import DPOConfig as TrlDpoConfig
from trl import KTOConfig as TrlKtoConfig
from trl import RewardConfig as TrlRewardConfig
from trl import RLOOConfig as TrlRlooConfig
from trl import SFTConfig as TrlSftConfig
from trl import SFTTrainer, import_utils

from pipeline.config.training import (
    DpaConfig,
    DpoConfig,
    IpoConfig,
    KtoConfig,
    OnlineSection,
    OrpoConfig,
    P3oConfig,
    RewardModelTrainingConfig,
    RftConfig,
    RlooConfig,
    RobustDpoConfig,
    SftConfig,
    SimpoConfig,
    Switch,
    TrainingSection,
)
from pipeline.training.job import RowCounts
from pipeline.training.worker.first_loss import Row, orpo_loss, reward_loss, sft_loss, simpo_loss
from pipeline.training.worker.kto_rows import Columns, side_weights
from pipeline.training.worker.trainers import (
    SoftDpoTrainer,
    SoftRewardTrainer,
    UnpairedTrainer,
    packed_dataset,
    tokenized,
)

Shape = Literal["completion", "best", "pairs", "unpaired", "conversations", "prompts"]
Settings = TypeVar("Settings", bound=TrainingSection)
Classes = tuple[Any, Any]


@dataclass(frozen=True)
class Method(Generic[Settings]):
    """How one value of `method` is trained."""

    classes: Callable[[], Classes]
    """The trainer and TRL's argument class; TRL's experimental modules are imported here."""
    shape: Shape
    """What a training row is: prompt and reply, the best reply of a prompt's pairs, a pair, a reply
    that is good or bad, a pair of whole conversations, which a reward model reads, or a prompt
    alone, to which the policy writes the replies."""
    arguments: Callable[[Settings, RowCounts], dict[str, Any]] = lambda config, rows: {}
    """TRL arguments that only this method has, from its settings and the rows to train on."""
    dataset: Callable[[Columns, Settings], Dataset] = lambda columns, config: Dataset.from_dict(
        columns
    )
    """The encoded rows as the trainer takes them."""
    soft_labels: Callable[[Settings], bool] = lambda config: False
    """True when the rows' soft labels go into the loss instead of being rounded to 1."""
    smallest: Callable[[Settings], tuple[float, float]] = lambda config: (0.0, 0.0)
    """Smallest soft label of a pair and smallest weight of feedback that are trained on."""
    first_loss: Callable[[Settings, RowCounts], tuple[float, float]] | None = None
    """Least and largest loss of a batch while the policy is its reference; None without one."""
    plain_loss: Callable[[Settings, Sequence[Row]], float] | None = None
    """The loss of rows that were read one at a time, for a method without a reference. One that
    writes its own replies has neither: their advantages add up to 0, and so does its first loss,
    whatever is wrong."""
    padding_free: Callable[[Settings], Switch] = lambda config: False
    """Whether the rows of a batch are joined without padding."""
    rewards_are_means: bool = False
    """True when TRL's `logps/chosen` is a mean over tokens instead of a sum."""
    stable: bool = True
    """False for TRL's experimental trainers."""

    @property
    def scores(self) -> bool:
        """Whether the model gives one score instead of writing replies."""
        return self.shape == "conversations"


def _soft_dpo() -> Classes:
    return SoftDpoTrainer, TrlDpoConfig


def _orpo() -> Classes:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return tokenized(ORPOTrainer), ORPOConfig


def _cpo() -> Classes:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    return tokenized(CPOTrainer), CPOConfig


@contextmanager
def _without_vllm() -> Iterator[None]:
    """TRL's trainers that sample do not import vLLM, which takes seconds and is not used here."""
    original = import_utils.is_vllm_available
    import_utils.is_vllm_available = lambda *_, **__: False
    try:
        yield
    finally:
        import_utils.is_vllm_available = original


def _rloo() -> Classes:
    with _without_vllm():
        from pipeline.training.worker.online import RlooTrainer

    return RlooTrainer, TrlRlooConfig


def _p3o() -> Classes:
    with _without_vllm():
        from pipeline.training.worker.online import P3oArguments, P3oTrainer

    return P3oTrainer, P3oArguments


def _online_arguments(config: OnlineSection) -> dict[str, Any]:
    return {
        "num_generations": config.num_samples,
        "max_completion_length": config.max_tokens,
        "beta": config.beta,
        "num_iterations": config.updates,
        "epsilon": config.clip,
        # Else replies would be drawn from other models than the one that is trained.
        "disable_dropout": True,
    }


def _prompt_dataset(columns: Columns, config: OnlineSection) -> Dataset:
    """TRL's name for the prompts."""
    return Dataset.from_dict(columns).rename_column("prompt_ids", "prompt")


def _kto_first(config: KtoConfig, rows: RowCounts) -> tuple[float, float]:
    """Every reply costs half its side's weight, and a batch has any share of each side."""
    weights = side_weights(config, rows.replies).values()
    return min(weights) / 2, max(weights) / 2


LN2 = (math.log(2), math.log(2))

SFT = Method[SftConfig](
    classes=lambda: (SFTTrainer, TrlSftConfig),
    shape="completion",
    dataset=packed_dataset,
    plain_loss=lambda c, rows: sft_loss(rows),
    padding_free=lambda c: c.packing or c.padding_free,
)
DPO = Method[DpoConfig](
    classes=_soft_dpo,
    shape="pairs",
    arguments=lambda c, rows: {"loss_type": ["sigmoid"], "beta": c.beta},
    first_loss=lambda c, rows: LN2,
    soft_labels=lambda c: c.labels == "soft",
    padding_free=lambda c: c.padding_free,
)
IPO = Method[IpoConfig](
    classes=_soft_dpo,
    shape="pairs",
    arguments=lambda c, rows: {"loss_type": ["ipo"], "beta": c.beta},
    first_loss=lambda c, rows: ((2 * c.beta) ** -2, (2 * c.beta) ** -2),
    padding_free=lambda c: c.padding_free,
)
ROBUST_DPO = Method[RobustDpoConfig](
    classes=_soft_dpo,
    shape="pairs",
    arguments=lambda c, rows: {
        "loss_type": ["robust"],
        "beta": c.beta,
        "label_smoothing": c.label_smoothing,
    },
    first_loss=lambda c, rows: LN2,
    padding_free=lambda c: c.padding_free,
)
KTO = Method[KtoConfig](
    classes=lambda: (UnpairedTrainer, TrlKtoConfig),
    shape="unpaired",
    arguments=lambda c, rows: {"beta": c.beta, **side_weights(c, rows.replies)},
    smallest=lambda c: (c.min_soft_label, c.min_weight),
    first_loss=_kto_first,
)
ORPO = Method[OrpoConfig](
    classes=_orpo,
    shape="pairs",
    arguments=lambda c, rows: {"beta": c.beta},
    plain_loss=lambda c, rows: orpo_loss(rows, c.beta),
    rewards_are_means=True,
    stable=False,
)
SIMPO = Method[SimpoConfig](
    classes=_cpo,
    shape="pairs",
    arguments=lambda c, rows: {
        "loss_type": "simpo",
        "beta": c.beta,
        "simpo_gamma": c.gamma,
        "cpo_alpha": 0.0,
    },
    plain_loss=lambda c, rows: simpo_loss(rows, c.beta, c.gamma),
    rewards_are_means=True,
    stable=False,
)

RFT = Method[RftConfig](
    classes=lambda: (SFTTrainer, TrlSftConfig),
    shape="best",
    plain_loss=lambda c, rows: sft_loss(rows),
    padding_free=lambda c: c.padding_free,
)
RLOO = Method[RlooConfig](
    classes=_rloo,
    shape="prompts",
    arguments=lambda c, rows: _online_arguments(c),
    dataset=_prompt_dataset,
)
P3O = Method[P3oConfig](
    classes=_p3o,
    shape="prompts",
    arguments=lambda c, rows: _online_arguments(c) | {"form": c.form},
    dataset=_prompt_dataset,
)
DPA = Method[DpaConfig](
    classes=lambda: (SFTTrainer, TrlSftConfig),
    shape="completion",
    plain_loss=lambda c, rows: sft_loss(rows),
    padding_free=lambda c: c.padding_free,
)
REWARD_MODEL = Method[RewardModelTrainingConfig](
    classes=lambda: (SoftRewardTrainer, TrlRewardConfig),
    shape="conversations",
    soft_labels=lambda c: c.labels == "soft",
    plain_loss=lambda c, rows: reward_loss(rows),
)

METHODS: dict[str, Method[Any]] = {
    "sft": SFT,
    "dpo": DPO,
    "ipo": IPO,
    "robust_dpo": ROBUST_DPO,
    "kto": KTO,
    "orpo": ORPO,
    "simpo": SIMPO,
    "rft": RFT,
    "rloo": RLOO,
    "p3o": P3O,
    "dpa": DPA,
    "reward_model": REWARD_MODEL,
}
"""Methods by the name that a recipe gives them."""


def method_of(config: TrainingSection) -> Method[Any]:
    """The table entry of a training section."""
    return METHODS[config.method]
