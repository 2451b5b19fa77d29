"""Which trainer, loss and dataset shape belong to each method: one table, no code paths.

Facts of TRL 1.16 that the table settles:

- `DPOTrainer` with `sigmoid` ignores `label_smoothing` without a word, and knows no per-row
  probability; `soft_dpo.SoftDpoTrainer` adds one. `robust` does read `label_smoothing`.
- `ipo` divides each log-ratio by the length of the reply.
- KTO is stable API. It pairs each row with its neighbor's reply inside the batch, so it needs a
  fixed order, at least two rows a batch, and data shuffled beforehand (`unpaired.unpaired_columns`).
- ORPO and CPO are experimental. ORPO's likelihood term covers prompt and reply. SimPO is CPO
  with `loss_type="simpo"` and `cpo_alpha=0`, and takes gamma itself, not gamma / beta.
- Padding-free batches exist in SFT only; in DPO the switch warns and does nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.training import TrainingConfig

Shape = Literal["completion", "pairs", "unpaired"]


@dataclass(frozen=True)
class Method:
    """How one value of `method` is trained."""

    trainer: str
    """Class in `pipeline.training.worker.trainers`."""
    trl_config: str
    """`module:class` of TRL's argument class."""
    shape: Shape
    """What a training row is: prompt and reply, a pair, or a reply that is good or bad."""
    arguments: Callable[[Any], dict[str, Any]]
    """TRL arguments that only this method has, from its section of the recipe."""
    uses_reference: bool = False
    """True when log-probabilities of the reference model enter the loss."""
    uses_soft_label: bool = False
    """True when the per-row probability can reach the loss."""
    rewards_are_means: bool = False
    """True when TRL's `logps/chosen` is a mean over tokens instead of a sum."""
    stable: bool = True
    """False for TRL's experimental trainers."""


METHODS: dict[str, Method] = {
    "sft": Method(
        trainer="SftTrainer", trl_config="trl:SFTConfig", shape="completion", arguments=lambda c: {}
    ),
    "dpo": Method(
        trainer="SoftDpoTrainer",
        trl_config="trl:DPOConfig",
        shape="pairs",
        arguments=lambda c: {"loss_type": ["sigmoid"], "beta": c.beta},
        uses_reference=True,
        uses_soft_label=True,
    ),
    "ipo": Method(
        trainer="SoftDpoTrainer",
        trl_config="trl:DPOConfig",
        shape="pairs",
        arguments=lambda c: {"loss_type": ["ipo"], "beta": c.beta},
        uses_reference=True,
    ),
    "robust_dpo": Method(
        trainer="SoftDpoTrainer",
        trl_config="trl:DPOConfig",
        shape="pairs",
        arguments=lambda c: {
            "loss_type": ["robust"],
            "beta": c.beta,
            "label_smoothing": c.label_smoothing,
        },
        uses_reference=True,
    ),
    "kto": Method(
        trainer="UnpairedTrainer",
        trl_config="trl:KTOConfig",
        shape="unpaired",
        arguments=lambda c: {
            "beta": c.beta,
            "desirable_weight": c.desirable_weight,
            "undesirable_weight": c.undesirable_weight,
        },
        uses_reference=True,
    ),
    "orpo": Method(
        trainer="OddsRatioTrainer",
        trl_config="trl.experimental.orpo:ORPOConfig",
        shape="pairs",
        arguments=lambda c: {"beta": c.beta},
        rewards_are_means=True,
        stable=False,
    ),
    "simpo": Method(
        trainer="SimpoTrainer",
        trl_config="trl.experimental.cpo:CPOConfig",
        shape="pairs",
        arguments=lambda c: {
            "loss_type": "simpo",
            "beta": c.beta,
            "simpo_gamma": c.gamma,
            "cpo_alpha": 0.0,
        },
        rewards_are_means=True,
        stable=False,
    ),
}
"""Every method that a recipe can name."""


def method_of(config: TrainingConfig) -> Method:
    """The table entry of a training section."""
    return METHODS[config.method]


def wants_soft_labels(config: TrainingConfig) -> bool:
    """True when the rows' probabilities go into the loss instead of being rounded to one."""
    return method_of(config).uses_soft_label and config.labels == "soft"
