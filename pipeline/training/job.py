"""What goes into a training subprocess and what comes out: TrainingJob and TrainingResult.

A job is one JSON file, `job.json`, in the folder that it names; its hash covers everything that
determines the trained weights (settings, model files, data, chat template) and nothing else. A
result is `result.json`, written last: where it exists with the same hash, the work is done.

    <output_dir>/job.json  train.log  metrics.jsonl  checkpoints/  model/  rows.json  result.json
"""

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, JsonValue

from pipeline.config.alarms import AlarmName
from pipeline.config.section import Section
from pipeline.config.training import REPORTING_FIELDS, ReferenceSection, TrainingConfig
from pipeline.engines.base import StartingModel
from pipeline.engines.fingerprint import file_hash, model_fingerprint
from pipeline.ids import content_hash
from pipeline.store.files import read_json, write_json


class TrainingJob(Section):
    """One training, to be run in `output_dir`."""

    config: TrainingConfig
    """The method and its settings."""
    model: Path
    """Folder of the model to start from; for DPO and its relatives also the reference."""
    reference: Path | None = Field(None, exclude_if=lambda folder: folder is None)
    """Folder of another reference, for `reference: fixed`."""
    dataset: Path
    """Parquet file: `row_id, messages, completion`, or `row_id, messages, chosen, rejected,
    soft_label`; a `status` column, if there is one, selects the rows that are `ok`."""
    feedback: Path | None = None
    """KTO only, a second Parquet file: `row_id, messages, completion, label, weight`."""
    output_dir: Path
    """Folder of this job alone."""
    reference_cache: Path | None = None
    """Folder of reference log-probabilities, shared by jobs; nothing: inside `output_dir`."""
    chat_template: Path | None = None
    """Jinja file with a chat template, for a model that has none of its own."""
    chat_template_args: dict[str, JsonValue] = Field(default_factory=dict)
    """Extra variables for the chat template; give the engine's."""
    reward_model: StartingModel | None = Field(None, exclude_if=lambda model: model is None)
    """Online methods only: the reward model, with its own chat template."""

    @property
    def model_dir(self) -> Path:
        """Where the trained model or adapter appears, complete or not at all."""
        return self.output_dir / "model"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line, in the order of the steps."""
        return self.output_dir / "metrics.jsonl"

    @property
    def rows_path(self) -> Path:
        """Ids of the rows that were trained on, a JSON list."""
        return self.output_dir / "rows.json"

    @property
    def log_path(self) -> Path:
        """All that the subprocess printed."""
        return self.output_dir / "train.log"

    @property
    def checkpoint_dir(self) -> Path:
        """Optimizer states of an unfinished training."""
        return self.output_dir / "checkpoints"

    @property
    def cache_dir(self) -> Path:
        """Folder of the reference log-probabilities."""
        return self.reference_cache or self.output_dir / "reference"


class JobFile(Section):
    """`job.json`: the job with the hashes that the parent has computed."""

    job: TrainingJob
    job_hash: str
    model_hash: str
    """Fingerprint of the starting model's files and chat template."""
    dataset_sha256: str
    feedback_sha256: str = ""
    """Empty without feedback."""
    reference_hash: str = Field("", exclude_if=lambda value: not value)
    """Fingerprint of another reference than the starting model; empty without one."""
    reward_hash: str = Field("", exclude_if=lambda value: not value)
    """Fingerprint of the reward model; empty without one."""


class Alarm(Section):
    """One thing about a training that a person should look at."""

    # A training that diverges ends in NaN, and says so.
    model_config = ConfigDict(allow_inf_nan=True)

    name: AlarmName
    """What it is about."""
    value: float
    """What was measured."""
    limit: float
    """What it was compared with."""
    message: str
    """Both in a sentence, with what to do."""


class Probe(Section):
    """How the model answers a few training prompts, greedily."""

    # A training that diverges ends in NaN, and says so.
    model_config = ConfigDict(allow_inf_nan=True)

    num_prompts: int
    mean_length: float
    """Tokens a reply, the end-of-turn token included."""
    missing_end_share: float
    """Share of replies that ran into the token limit, in [0, 1]."""
    repeated_share: float = 0.0
    """Share of runs of four tokens that stood in their reply before, in [0, 1]."""


class Familiarity(Section):
    """How likely the replies to train on are under the model before the training, in nats per
    token, beside replies that it sampled itself.
    """

    own: float
    """Mean over its own replies."""
    own_least: float
    """The least likely of them."""
    chosen: float
    """Mean over the chosen replies."""
    rejected: float
    """Mean over the rejected replies."""
    chosen_beyond: float
    """Share of the chosen replies that are less likely than `own_least`, in [0, 1]."""
    rejected_beyond: float
    """That share of the rejected replies."""


class ReplyCounts(Section):
    """KTO: the replies of the used rows, two of a pair and one of a row of feedback:
    read = contradicted + repeated + desirable + undesirable.
    """

    read: int
    contradicted: int
    """Good in one row and bad in another: trained on neither side."""
    repeated: int
    """Further rows of a reply with the same label: a reply is trained once."""
    desirable: int
    undesirable: int


class RowCounts(Section):
    """What became of the rows of the data set, feedback included:
    read = not_ok + undrawn + too_long + unclear + weak + beaten + repeated + heldout + used.
    """

    read: int
    not_ok: int = 0
    """Status other than `ok`."""
    undrawn: int = 0
    """Beyond `max_rows`."""
    too_long: int = 0
    """More tokens than `max_length`; left out, since a cut reply has no end."""
    unclear: int = 0
    """KTO only: soft label below `min_soft_label`."""
    weak: int = 0
    """KTO only: feedback with a weight below `min_weight`."""
    beaten: int = 0
    """RFT only: pairs beyond the one that has the best reply of their prompt."""
    repeated: int = 0
    """Online methods only: further rows of a prompt, which is in training once."""
    heldout: int = 0
    """Reward model only: pairs kept to measure on."""
    used: int = 0
    feedback: int = 0
    """Of the used rows, those of feedback."""
    replies: ReplyCounts | None = None
    """KTO only."""


class HeldoutPairs(Section):
    """A reward model on pairs of prompts that it was not trained on."""

    # A training that diverges ends in NaN, and says so.
    model_config = ConfigDict(allow_inf_nan=True)

    pairs: int
    """Pairs whose two replies were scored."""
    prompts: int
    """Prompts that they belong to."""
    accuracy: float
    """Share of the pairs whose chosen reply has the higher score, in [0, 1]; equal scores count
    half."""
    low: float
    """Lower end of Wilson's 95 % interval, clustered by prompt."""
    high: float
    """Upper end of it."""
    log_loss: float
    """Mean of -ln sigmoid(score of chosen - score of rejected), in nats; 0.693 says nothing."""


class TrainingResult(Section):
    """A finished training."""

    # A training that diverges ends in NaN, and says so.
    model_config = ConfigDict(allow_inf_nan=True)

    status: str = "ok"
    method: str
    job_hash: str
    model_dir: Path
    is_adapter: bool = False
    """True when `model_dir` holds a LoRA adapter instead of a whole model."""
    num_steps: int
    train_s: float
    """Seconds of optimization alone."""
    total_s: float
    """Seconds of the worker, imports included."""
    final_loss: float
    """Mean over the last tenth of the logged steps."""
    reward_margin: float | None = None
    """TRL's implicit reward of chosen minus rejected, over the last tenth of the steps."""
    rows: RowCounts
    desirable_weight: float | None = None
    """KTO only: the weight of the good replies, balanced if the settings say so."""
    undesirable_weight: float | None = None
    """KTO only: that of the bad ones."""
    reference_cache: str = "unused"
    """`hit`, `miss`, or `unused` for methods without a reference."""
    heldout: HeldoutPairs | None = None
    """Reward model only."""
    alarms: tuple[Alarm, ...] = ()
    probe_before: Probe | None = None
    probe_after: Probe | None = None
    divergence: float | None = None
    """Estimate of KL(model before || trained model), in nats per token, on replies that the model
    before sampled to the probe prompts; None without them."""
    familiarity: Familiarity | None = None
    """Methods with a reference and pairs only."""
    device: str
    num_processes: int = 1
    resumed_from_step: int = 0
    versions: dict[str, str] = Field(default_factory=dict)
    dataset_sha256: str
    feedback_sha256: str = ""
    """Empty without feedback."""
    reward_hash: str = Field("", exclude_if=lambda value: not value)
    """Fingerprint of the reward model of an online method; empty for the others."""
    model_hash: str
    """Fingerprint of the model that training started from."""
    reference_hash: str = Field("", exclude_if=lambda value: not value)
    """Fingerprint of the reference, where it is another model."""
    trained_hash: str
    """Fingerprint of what training wrote."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file of `model_dir`, by path below it."""


def describe(job: TrainingJob) -> JobFile:
    """Compute the hashes of a job; reads the model's and the data's files once."""
    fingerprint = partial(
        model_fingerprint,
        dtype="stored",
        chat_template=job.chat_template,
        chat_template_args=dict(job.chat_template_args),
    )
    model_hash = fingerprint(job.model)
    dataset_sha256 = file_hash(job.dataset)
    # Without padding the same loss is computed. SFT had the field before hashes left it out.
    unhashed = REPORTING_FIELDS | (
        {"padding_free"} if isinstance(job.config, ReferenceSection) else set()
    )
    determinants: dict[str, Any] = {
        "config": job.config.model_dump(mode="json", exclude=set(unhashed)),
        "model": model_hash,
        "dataset": dataset_sha256,
    }
    feedback_sha256 = reference_hash = reward_hash = ""
    if job.feedback is not None:
        determinants["feedback"] = feedback_sha256 = file_hash(job.feedback)
    if job.reference is not None:
        determinants["reference"] = reference_hash = fingerprint(job.reference)
    if (reward := job.reward_model) is not None:
        determinants["reward_model"] = reward_hash = model_fingerprint(
            reward.folder,
            dtype="stored",
            chat_template=reward.chat_template,
            chat_template_args=dict(reward.chat_template_args),
        )
    return JobFile(
        job=job,
        job_hash=content_hash(determinants),
        model_hash=model_hash,
        dataset_sha256=dataset_sha256,
        feedback_sha256=feedback_sha256,
        reference_hash=reference_hash,
        reward_hash=reward_hash,
    )


def write_job(file: JobFile) -> Path:
    """Write `job.json`, whole or not at all; returns its path."""
    path = file.job.output_dir / "job.json"
    write_json(path, file.model_dump(mode="json"))
    return path


def read_job(path: Path) -> JobFile:
    """Read `job.json`. Raises pydantic.ValidationError for a damaged one."""
    return JobFile.model_validate_json(path.read_text("utf-8"))


def finished_result(file: JobFile) -> TrainingResult | None:
    """The result of an earlier run of the same job, if it is complete."""
    result = read_json(file.job.output_dir / "result.json")
    if not isinstance(result, dict) or result.get("job_hash") != file.job_hash:
        return None
    return TrainingResult.model_validate(result) if file.job.model_dir.is_dir() else None


def write_result(job: TrainingJob, result: TrainingResult) -> None:
    """Write `result.json`, the completion mark."""
    write_json(job.output_dir / "result.json", result.model_dump(mode="json"))
