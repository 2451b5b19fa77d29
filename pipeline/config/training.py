"""What a recipe says about training: `SftConfig`, and one class per preference method.

    method: dpo          soft labels reach the loss (`labels: soft`), or rounded ones (`hard`)
    method: ipo          Azar et al. 2023, length-normalized as in TRL
    method: robust_dpo   Chowdhury et al. 2024: known share of flipped labels
    method: kto          Ethayarajh et al. 2024: single replies, of pairs and of users' feedback
    method: orpo         Hong et al. 2024: no reference model
    method: simpo        Meng et al. 2024: no reference model, length-normalized
    method: rft          rejection sampling: SFT on the best reply of each prompt
    method: rloo         Ahmadian et al. 2024: the policy's own replies, scored by a reward model
    method: p3o          Wu et al. 2023: pairs of them
    method: dpa          Wang et al. 2024: the best reply in each of several directions
    method: reward_model a classification head instead of a policy (Bradley and Terry 1952)

Pure values: nothing here looks at the disk or the machine; `pipeline.training.launch` does.
`auto` means: batches without padding; bfloat16 and gradient checkpointing on CUDA; float32 on the
CPU.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from pipeline.config.alarms import AlarmConfig
from pipeline.config.section import Section

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16"]
Scheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "inverse_sqrt"]
Switch = bool | Literal["auto"]

# Where and how often a job reports, not what it computes: left out of the job hash.
REPORTING_FIELDS = frozenset(
    {"log_steps", "save_steps", "accelerate_config", "device", "compile", "report_to"}
)
"""Fields that do not change the trained model; a job that differs in these only is reused."""


Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]
"""A program that shows training metrics, by the name that transformers has for it."""


class LoraConfig(Section):
    """Train a low-rank adapter instead of all weights."""

    r: int = Field(16, ge=1)
    """Rank of the adapter."""
    alpha: int = Field(32, ge=1)
    """Scale of the adapter; its output is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of adapter inputs that are zeroed during training."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an adapter; never `lm_head`."""
    merge: bool = True
    """Write a whole model (true), or the adapter alone (false)."""


LearningRate = Annotated[float, Field(gt=0, description="Peak learning rate of AdamW.")]


class TrainingSection(Section):
    """What the settings of every training method have in common."""

    takes_feedback: ClassVar[bool] = False
    """True for a method that learns from single replies that users judged."""
    directs: ClassVar[bool] = False
    """True for a method that asks the policy for a direction in its system message."""
    trains_policy: ClassVar[bool] = True
    """False for a method whose model gives scores and writes no replies."""
    learns_online: ClassVar[bool] = False
    """True for a method that learns from replies which the policy writes during the training."""
    learns_from: ClassVar[str] = "preference"
    """The data set that it is trained on."""

    method: str
    """Training method: a key of `METHODS`."""
    learning_rate: LearningRate = 1e-6
    epochs: float = Field(1.0, gt=0)
    """Passes over the data; without effect when `max_steps` is given."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps; null for as many as `epochs` needs."""
    batch_size: int = Field(8, ge=1)
    """Rows (SFT, KTO) or pairs per device and forward pass."""
    gradient_accumulation: int = Field(1, ge=1)
    """Forward passes per optimizer step."""
    max_rows: int | None = Field(None, ge=1, exclude_if=lambda value: value is None)
    """Rows of the data set to learn from, drawn by seed; a larger number has those of a smaller one
    too. Null for all."""
    max_length: int = Field(1024, ge=8)
    """Most tokens of prompt and reply; longer rows are left out and counted, never cut."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    scheduler: Scheduler = "cosine"
    """How the learning rate falls after the warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    seed: int = Field(0, ge=0)
    """Seed of the row order, the dropout and the adapter's first weights."""
    device: Device = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where the machine has it, else the CPU."""
    dtype: Dtype = "auto"
    """Number format of the computation; the model is saved in the format it came in."""
    gradient_checkpointing: Switch = "auto"
    """Compute activations twice to save memory; `auto`: on CUDA."""
    compile: bool = False
    """Compile the layers: some ten seconds once, then faster steps; for long training on CUDA."""
    group_by_length: bool = True
    """Put rows of similar length into one batch, where it saves padding; KTO ignores it, since it
    needs a fixed order, and so do methods that write their own replies."""
    lora: LoraConfig | None = None
    """Adapter training; null to train all weights."""
    accelerate_config: Path | None = None
    """File written by `accelerate config`, for several GPUs, DeepSpeed or FSDP."""
    log_steps: int = Field(1, ge=1)
    """Steps between two lines of metrics."""
    report_to: tuple[Tracker, ...] = ()
    """Trackers that get the metrics too; none by default, and each has to be installed. TensorBoard
    and MLflow write below the job's folder; where the others send them is their own setting."""
    save_steps: int | None = Field(None, ge=1)
    """Steps between two checkpoints; null for none: a killed job starts from the beginning."""
    alarms: AlarmConfig = AlarmConfig()
    """When the result counts as suspicious."""


class JoinableSection(TrainingSection):
    """A method whose rows can be joined into one sequence, without padding between them."""

    padding_free: Switch = "auto"
    """Join the rows of a batch without padding; `auto`: on the CPU, and on CUDA in bfloat16, which
    has a kernel for it, unless the model would mix the rows. Elsewhere attention takes a mask over
    the whole batch: exact, and slow for many rows."""


class SftConfig(JoinableSection):
    """Supervised fine-tuning on the revisions; the loss is on the reply alone."""

    learns_from: ClassVar[str] = "sft"

    method: Literal["sft"] = "sft"
    """Supervised method; the only one."""
    learning_rate: LearningRate = 2e-5
    packing: bool = False
    """Fill each sequence up to `max_length` with several rows; implies `padding_free`."""


class ReferenceSection(TrainingSection):
    """A method with log-probabilities of a reference model in its loss."""

    learning_rate: LearningRate = 5e-7
    beta: float = Field(0.1, gt=0)
    """Weight of the reference: the reward is beta times the log-ratio. Higher stays closer."""
    reference: Literal["moving", "fixed"] = Field(
        "moving", exclude_if=lambda value: value == "moving"
    )
    """The reference of a later round or night: the model that its training starts from (`moving`),
    or the one that the first promoted policy of the series was trained from (`fixed`)."""
    precompute_reference_batch_size: int = Field(32, ge=1)
    """Pairs per forward pass when the reference log-probabilities are computed, once."""


class TurnsConfig(Section):
    """How the assistant's turns of a trajectory weigh in the loss; other turns never count."""

    learn: Literal["all", "last"] = "all"
    """`last`: the turns before the last one are context."""
    gamma: float | None = Field(None, gt=0, le=1)
    """DMPO (Shi et al. 2024): turn t of T weighs gamma^t (1 - gamma^(T - t)) / (1 - gamma^T), so
    early turns count most and lengths do not; at 1 it is (T - t) / T. Null: every turn weighs 1."""


class DpoConfig(ReferenceSection, JoinableSection):
    """Direct preference optimization (Rafailov et al. 2023), with per-row soft labels."""

    method: Literal["dpo"] = "dpo"
    """Preference method."""
    labels: Literal["soft", "hard"] = "soft"
    """`soft`: the judge's probability weighs both directions; `hard`: the chosen reply wins."""
    turns: TurnsConfig | None = Field(None, exclude_if=lambda value: value is None)
    """For a data set whose `chosen` and `rejected` are lists of turns; null for single replies."""


class IpoConfig(ReferenceSection, JoinableSection):
    """Identity preference optimization; `beta` is the paper's tau."""

    method: Literal["ipo"] = "ipo"
    """Preference method."""


class RobustDpoConfig(ReferenceSection, JoinableSection):
    """DPO that is unbiased when a known share of the labels is flipped."""

    method: Literal["robust_dpo"] = "robust_dpo"
    """Preference method."""
    label_smoothing: float = Field(0.1, gt=0, lt=0.5)
    """Assumed share of flipped labels, such as one minus the judge's accuracy."""


class KtoConfig(ReferenceSection):
    """Good and bad replies on their own: two of each pair, and those that users judged."""

    takes_feedback: ClassVar[bool] = True

    method: Literal["kto"] = "kto"
    """Preference method."""
    learning_rate: LearningRate = 1e-6
    batch_size: int = Field(8, ge=2)
    """Rows per device and forward pass; the estimate of the divergence needs at least two."""
    desirable_weight: float = Field(1.0, gt=0)
    """Weight of the good replies."""
    undesirable_weight: float = Field(1.0, gt=0)
    """Weight of the bad replies."""
    balance: bool = True
    """Raise the weight of the smaller side by the ratio of the counts, so that both sides weigh
    the same."""
    min_soft_label: float = Field(0.55, ge=0.5, le=1)
    """Pairs below this are left out: near 0.5 neither reply is good or bad."""
    min_weight: float = Field(0.0, ge=0, le=1)
    """Feedback with weaker evidence is left out; above 0.5, a regenerate event alone is too
    weak."""


class OrpoConfig(TrainingSection):
    """Odds-ratio preference optimization: likelihood of the chosen reply plus an odds term."""

    method: Literal["orpo"] = "orpo"
    """Preference method."""
    learning_rate: LearningRate = 5e-6
    beta: float = Field(0.1, gt=0)
    """Weight of the odds term (the paper's lambda)."""


class SimpoConfig(TrainingSection):
    """Reference-free, length-normalized preference optimization."""

    method: Literal["simpo"] = "simpo"
    """Preference method."""
    learning_rate: float = Field(5e-7, gt=0)
    """Peak learning rate of AdamW; the authors report that 1e-5 destroys a 7 B model."""
    beta: float = Field(2.0, gt=0)
    """Scale of the mean log-probability."""
    gamma: float = Field(1.0, ge=0)
    """Target reward margin, absolute; the paper's tables give gamma / beta."""


class RftConfig(JoinableSection):
    """Rejection-sampling fine-tuning: SFT on the reply of each prompt that its pairs prefer most,
    the best of n by whatever labeled them, checks included.
    """

    method: Literal["rft"] = "rft"
    """Preference method."""
    learning_rate: LearningRate = 2e-5


NUM_MEASURED = 5
"""Directions in which the evaluation samples a policy of `method: dpa`."""


class DpaConfig(JoinableSection):
    """Directional preference alignment: SFT on the reply that is best in a drawn direction of two
    attributes, with the direction in the system message. One policy then serves every trade-off.
    """

    directs: ClassVar[bool] = True
    learns_from: ClassVar[str] = "directed"

    method: Literal["dpa"] = "dpa"
    """Preference method."""
    learning_rate: LearningRate = 2e-5
    attributes: tuple[str, str] = ("helpful", "harmless")
    """Ids of two principles, whose ratings are the attributes."""
    angles: tuple[float, float] = (0.0, 90.0)
    """Least and largest angle of the drawn directions, in degrees from -90 to 180: at 0 the first
    attribute counts alone, at 90 the second; outside, one of them counts against."""
    directions: int = Field(4, ge=1, le=64)
    """Directions drawn for each prompt."""

    @property
    def measured_angles(self) -> tuple[float, ...]:
        """The angles at which the evaluation samples the policy, in degrees, evenly spaced."""
        low, high = self.angles
        return tuple(low + (high - low) * i / (NUM_MEASURED - 1) for i in range(NUM_MEASURED))

    @model_validator(mode="after")
    def _spans_a_plane(self) -> Self:
        if self.attributes[0] == self.attributes[1]:
            raise ValueError(
                f"attributes names '{self.attributes[0]}' twice, which leaves no direction to "
                "choose; name two principles"
            )
        low, high = self.angles
        if not -90 <= low < high <= 180:
            raise ValueError(
                f"angles [{low:g}, {high:g}] must rise and lie from -90 to 180 degrees, such as "
                "[0, 90]"
            )
        return self


class RewardModelTrainingConfig(TrainingSection):
    """A reward model: one score per reply, such that sigmoid(score of chosen - score of rejected)
    is P(chosen preferred). It starts from the policy's weights with a new head and tunes no policy.
    Name it in `preference.reward_model.engine` of another recipe.
    """

    trains_policy: ClassVar[bool] = False

    method: Literal["reward_model"] = "reward_model"
    """Preference method."""
    learning_rate: LearningRate = 1e-5
    labels: Literal["soft", "hard"] = "soft"
    """`soft`: the label's probability weighs both directions; `hard`: the chosen reply wins."""
    heldout_share: float = Field(0.2, ge=0, lt=1)
    """Share of the prompts whose pairs are not trained on: the accuracy is measured there. 0 for no
    measurement."""

    @field_validator("lora")
    @classmethod
    def _merged(cls, lora: LoraConfig | None) -> LoraConfig | None:
        if lora is not None and not lora.merge:
            raise ValueError(
                "a reward model is read without adapters, so its adapter must be merged; leave out "
                "`merge: false`"
            )
        return lora


class OnlineSection(TrainingSection):
    """A method that learns from replies which the policy writes during the training, to the prompts
    of the data set. A reply is worth the score of `preference.reward_model`, less beta times its
    log-ratio to the policy before the training.
    """

    learns_online: ClassVar[bool] = True

    batch_size: int = Field(8, ge=2)
    """Replies per device and forward pass; a multiple of `num_samples`."""
    num_samples: int = Field(4, ge=2)
    """Replies to each prompt, which are compared with each other."""
    max_tokens: int = Field(128, ge=1)
    """Token limit of a reply. One that reaches it has no end: it gets no score, and nothing is
    learned from it."""
    beta: float = Field(0.05, gt=0)
    """Weight of the reference: score that one nat of log-ratio costs. Higher stays closer."""
    updates: int = Field(1, ge=1)
    """Optimizer steps on the same replies before new ones are written."""
    clip: float = Field(0.2, gt=0, lt=1)
    """With several updates, how far a reply's probability may move from that at which it was
    written, as a share of it."""

    @model_validator(mode="after")
    def _batches_hold_whole_prompts(self) -> Self:
        if self.batch_size % self.num_samples:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of num_samples "
                f"{self.num_samples}, and the replies to a prompt are compared with each other; "
                f"set batch_size to {self.num_samples * (self.batch_size // self.num_samples + 1)}"
            )
        return self


class RlooConfig(OnlineSection):
    """REINFORCE leave-one-out (Ahmadian et al. 2024): a reply is compared with the mean of the
    other replies to its prompt.
    """

    method: Literal["rloo"] = "rloo"
    """Preference method."""


class P3oConfig(OnlineSection):
    """Pairwise proximal policy optimization (Wu et al. 2023): two replies to a prompt, of which
    only the difference of their scores counts.
    """

    method: Literal["p3o"] = "p3o"
    """Preference method."""
    num_samples: Literal[2] = 2
    """Replies to each prompt: a pair."""
    form: Literal["separate", "joint"] = "separate"
    """What is clipped: the ratio of each reply (the paper's V1), or that of the pair (V2)."""


PreferenceMethod = (
    DpoConfig
    | IpoConfig
    | RobustDpoConfig
    | KtoConfig
    | OrpoConfig
    | SimpoConfig
    | RftConfig
    | RlooConfig
    | P3oConfig
    | DpaConfig
    | RewardModelTrainingConfig
)

PreferenceTrainingConfig = Annotated[PreferenceMethod, Field(discriminator="method")]
"""One of the preference methods, told apart by `method`."""

TrainingConfig = Annotated[SftConfig | PreferenceMethod, Field(discriminator="method")]
"""The settings of any training method, told apart by `method`."""


def learns_from(method: str) -> str:
    """Name of the data set that the training method of this name learns from."""
    sections = (SftConfig, *get_args(PreferenceMethod))
    names: dict[str, str] = {s.model_fields["method"].default: s.learns_from for s in sections}
    return names.get(method, TrainingSection.learns_from)


def takes_feedback(method: str) -> bool:
    """Whether the preference method of this name learns from users' feedback."""
    sections = get_args(PreferenceMethod)
    return any(s.takes_feedback for s in sections if s.model_fields["method"].default == method)
