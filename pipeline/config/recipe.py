"""A recipe: one YAML file with all settings of a run.

In:  flows/configs/*.yaml
Out: RunConfig

Unknown keys are refused, with file and line. Paths are relative to the folder where the command
runs, else to the project root (`resolve_path`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.budget import BudgetConfig, PricesConfig
from pipeline.config.engines import AnyEngine, EngineConfig, OpenAIConfig, VllmConfig
from pipeline.config.gate import GateConfig
from pipeline.config.labeling import PreferenceConfig
from pipeline.config.nightly import NightlyConfig
from pipeline.config.overrides import override
from pipeline.config.prompts import PromptsConfig
from pipeline.config.sampling import DrawConfig, SampleConfig
from pipeline.config.section import Section, Words
from pipeline.config.training import SftConfig
from pipeline.config.workers import WorkersConfig
from pipeline.config.yaml_file import parse_model, read_text

JUDGE, SECOND_JUDGE, REWARDS = "judge", "judge of the evaluation", "reward model"
"""Roles of the models of a recipe that write no responses."""

RevisionFault = Literal["critique", "request", "meta", "copy", "evasion"]


class TemplatesConfig(Section):
    """The Jinja files."""

    critique: Path = Path("prompts/critique.jinja")
    """Turn that asks for a critique."""
    revise: Path = Path("prompts/revise.jinja")
    """Turn that asks for a revision."""
    judge: Path = Path("prompts/judge.jinja")
    """Turn that asks which of two responses is better."""
    score: Path = Path("prompts/score.jinja")
    """Turn that asks for a rating of one response."""


class ReviseConfig(Section):
    """The critique and revision chain."""

    rounds: int = Field(1, ge=0, le=16)
    """Critique-revision rounds per response; each draws its own principle."""
    critique: DrawConfig = DrawConfig()
    """How critiques are drawn."""
    revision: DrawConfig = DrawConfig()
    """How revisions are drawn."""
    with_critique: bool = True
    """False skips the critique and revises under the principle's revision request alone."""
    skip_phrases: tuple[Words, ...] = ()
    """Phrases that mean a critique found no fault: the text is then kept as it is, without a call.
    """
    reject: tuple[RevisionFault, ...] = ("critique", "request", "meta")
    """Faults for which a revision is dropped: it continues the critique (`critique`), repeats a
    request (`request`), talks about the response or announces it (`meta`), equals the text before
    it (`copy`), or only refuses (`evasion`). The report counts all five."""
    efficacy: bool = False
    """Have the judge compare each revision with the text before it, under the same principle."""


class SupervisedConfig(Section):
    """Supervised phase: revisions of the initial policy's responses, then SFT."""

    enabled: bool = True
    """False leaves the phase out; the preference phase then samples the initial policy."""
    sample: SampleConfig = SampleConfig()
    """Initial responses."""
    revise: ReviseConfig = ReviseConfig()
    """Critiques and revisions."""
    sft_rows: Literal["all", "last"] = "all"
    """Learn from every revision of a chain (the published method) or from the last one only."""
    sft_thoughts: bool = False
    """Put what the policy thought before a reply into the SFT set too, as a `<think>` block before
    it. Before a revision these are thoughts on the request to revise."""
    train: SftConfig | None = None
    """SFT settings; without them the phase ends with the data set."""


class OtherPolicyConfig(Section):
    """A further policy whose responses are compared."""

    engine: EngineConfig
    """Its model."""
    sample: SampleConfig | None = None
    """How its responses are sampled; null for the settings of `preference.sample`."""


class PoliciesConfig(Section):
    """Further policies that write responses for the preference phase, beside the one being trained.
    The pairs differ more where the policies do. None of them is trained or evaluated.
    """

    weaker: OtherPolicyConfig | None = None
    """A policy that writes worse responses than `policy`."""
    stronger: OtherPolicyConfig | None = None
    """A policy that writes better responses than `policy`."""

    @property
    def named(self) -> dict[str, OtherPolicyConfig]:
        """Those that the recipe names."""
        both = {"weaker": self.weaker, "stronger": self.stronger}
        return {name: policy for name, policy in both.items() if policy is not None}


class EvaluationConfig(Section):
    """Evaluation on held-out prompts."""

    enabled: bool = True
    """False leaves the evaluation out."""
    sample: SampleConfig = SampleConfig()
    """How each policy's responses are sampled."""
    bootstrap_draws: int = Field(2000, ge=100, le=1_000_000)
    """Draws of the cluster bootstrap."""
    judge: EngineConfig | None = Field(None, exclude_if=lambda value: value is None)
    """A judge that decides the win rates instead of the one that labels, which favors what it has
    taught. It is asked as `preference.judge` says, without the calibration, which is the labeling
    judge's. Metrics, report and gate name it, and say whether it labeled all the same."""
    oracle: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    """`module:name` of an oracle with `read(messages, response)`, for tasks with a known truth."""
    gate: GateConfig | None = None
    """Rules that decide whether the last trained policy is promoted; null for no decision."""


class ExecutionConfig(Section):
    """Batching, retries and limits; these settings do not change any row."""

    shard_size: int = Field(64, ge=1)
    """Prompts per shard."""
    shards_in_flight: int = Field(4, ge=1)
    """Shards that share the engine at the same time."""
    max_failed_share: float = Field(0.1, ge=0, le=1)
    """Stop when more than this share of the rows has failed; checked after each shard from the
    fifth failed row on, and at the end."""
    retries: int = Field(2, ge=0, le=10)
    """Retries of a failed call, and of a shard whose worker died without a new row."""
    workers: WorkersConfig = WorkersConfig()
    """The machines that make the rows."""


class RunConfig(Section):
    """A recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Short name; run folders begin with it."""
    description: str = ""
    """One sentence for the report."""
    seed: int = 0
    """Another seed draws other texts and principles."""
    rounds: int = Field(1, ge=1, le=100)
    """Runs that `rlaif run` makes one after the other, each from the policy that the one before
    promoted, with prompts that none before it had; it ends early when a policy stays a candidate.
    """
    constitution: Path
    """The principles."""
    templates: TemplatesConfig = TemplatesConfig()
    """The Jinja files."""
    prompts: PromptsConfig
    """Training and held-out prompts."""
    policy: EngineConfig
    """The initial policy."""
    judge: EngineConfig | None = None
    """The judge; by default the initial policy."""
    panel: tuple[EngineConfig, ...] = ()
    """Further judges; each labels every comparison, and the labels are averaged."""
    policies: PoliciesConfig = PoliciesConfig()
    """Further policies whose responses are compared, one weaker and one stronger at most."""
    supervised: SupervisedConfig = SupervisedConfig()
    """Supervised phase."""
    preference: PreferenceConfig = PreferenceConfig()
    """Preference phase."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""
    execution: ExecutionConfig = ExecutionConfig()
    """Execution."""
    budget: BudgetConfig = BudgetConfig()
    """What the run may spend."""
    prices: PricesConfig | None = None
    """What its tokens and hours cost."""
    nightly: NightlyConfig = NightlyConfig()
    """Nights and rounds."""
    webhook_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable with the address of a webhook, which gets a JSON message
    (`event`, `run`, `text`, `report`) when the run fails, stops at its audit or promotes its
    policy."""

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        needs_revisions = self.preference.enabled and self.preference.comparisons in (
            "revision_vs_initial",
            "all",
        )
        if needs_revisions and not (self.supervised.enabled and self.supervised.revise.rounds):
            raise ValueError(
                f"comparisons '{self.preference.comparisons}' need revisions, but the supervised "
                "phase makes none; enable it with revise.rounds of 1 or more"
            )
        if self.panel and self.preference.labeler in ("assumed", "reward_model"):
            raise ValueError(
                f"labeler '{self.preference.labeler}' asks no judge, but the recipe names a panel; "
                "remove `panel`"
            )
        trains = self.supervised.train or self.preference.train
        if trains and not self.policy.trainable:
            raise ValueError(
                f"the recipe trains, but policy.type is '{self.policy.type}'; only a local model "
                "(type: vllm) can be trained: remove the `train` sections or change the policy"
            )
        return self

    @model_validator(mode="after")
    def _prices_are_of_models(self) -> Self:
        if self.budget.money is not None and self.prices is None:
            raise ValueError(
                "budget.money needs prices, but the recipe has none; add `prices`, or limit tokens "
                "or hours instead"
            )
        engines = [engine for _, engine in self.engines]
        models = [e.model for e in engines if isinstance(e, VllmConfig | OpenAIConfig)]
        # A script names its model itself.
        known = len(models) == len(engines)
        for name in self.prices.models if self.prices else ():
            if known and name not in models:
                raise ValueError(
                    f"prices.models names {name!r:.80}, but no engine of the recipe has that "
                    f"model; name one of {', '.join(sorted({*models}))}"
                )
        return self

    @model_validator(mode="after")
    def _target_can_be_met(self) -> Self:
        if self.prompts.target_pairs is not None and not self.preference.enabled:
            raise ValueError(
                "prompts.target_pairs orders preference pairs, but preference.enabled is false; "
                "enable the phase, or remove the target"
            )
        return self

    @model_validator(mode="after")
    def _evaluation_has_figures(self) -> Self:
        section = self.evaluation
        if section.gate is None and self.rounds > 1:
            raise ValueError(
                "rounds need evaluation.gate, which says whether a round made the policy "
                "better; add it, or leave `rounds` out"
            )
        needy = "gate" if section.gate else "judge" if section.judge else ""
        if not needy:
            return self
        if self.rounds > 1 and self.nightly.min_new_share:
            raise ValueError(
                "each of several rounds trains, but nightly.min_new_share would leave some out; "
                "remove it, or leave `rounds` out"
            )
        tunes = self.preference.train is not None and self.preference.train.trains_policy
        trains = (self.supervised.enabled and self.supervised.train) or (
            self.preference.enabled and tunes
        )
        lacking = {
            "a trained policy, but the recipe trains none": not trains,
            "the evaluation, but evaluation.enabled is false": not section.enabled,
            "held-out prompts, but prompts.heldout names no file": not self.prompts.heldout,
        }
        for problem in (problem for problem, found in lacking.items() if found):
            raise ValueError(
                f"evaluation.{needy} needs {problem}; change that, or remove the {needy}"
            )
        if section.gate and section.gate.review and not self.preference.enabled:
            raise ValueError(
                "evaluation.gate.review waits for labels of pairs, but preference.enabled is "
                "false, so there will be none; enable the phase, or remove the rule"
            )
        return self

    @model_validator(mode="after")
    def _responses_can_be_compared(self) -> Self:
        mode, others = self.preference.comparisons, self.policies.named
        if not self.preference.enabled:
            return self
        if mode == "revision_vs_initial" and others:
            raise ValueError(
                f"policies.{next(iter(others))} writes responses that comparisons '{mode}' never "
                "compare; remove it, or set comparisons to samples, best_vs_worst, delta or all"
            )
        for name, policy in others.items():
            alike = policy.engine == self.policy and self.samples_of(name) == self.preference.sample
            if alike and not self.supervised.train:
                raise ValueError(
                    f"policies.{name} is the policy itself, sampled alike; name another model, or "
                    "give it a `sample` section of its own"
                )
        if mode == "delta":
            return self._check_delta()
        number = sum(self.samples_of(name).num_samples for name in ("", *others))
        if mode != "revision_vs_initial" and number < 2:
            raise ValueError(
                f"comparisons '{mode}' need two samples per prompt, but "
                f"preference.sample.num_samples is {number}; set it to 2 or more"
            )
        return self

    def _check_delta(self) -> Self:
        if not self.policies.named:
            raise ValueError(
                "comparisons 'delta' need a second policy, but the recipe names none; add "
                "policies.weaker or policies.stronger"
            )
        better, worse = self.delta_sides
        numbers = [self.samples_of(name).num_samples for name in (better, worse)]
        if numbers[0] != numbers[1]:
            raise ValueError(
                "comparisons 'delta' compare sample by sample, but the stronger policy has "
                f"num_samples {numbers[0]} and the weaker {numbers[1]}; make them equal"
            )
        return self

    @property
    def delta_sides(self) -> tuple[str, str]:
        """The stronger and the weaker side of `delta`: names in `policies`, empty for `policy`."""
        named = self.policies.named
        return "stronger" if "stronger" in named else "", "weaker" if "weaker" in named else ""

    def samples_of(self, name: str) -> SampleConfig:
        """How the preference phase samples a policy: a name in `policies`, empty for `policy`."""
        other = self.policies.named[name].sample if name else None
        return other or self.preference.sample

    @property
    def judge_engine(self) -> EngineConfig:
        """The judge, or the policy where the recipe names none."""
        return self.judge or self.policy

    @property
    def engines(self) -> list[tuple[str, AnyEngine]]:
        """Every model of the recipe with its role."""
        named: list[tuple[str, AnyEngine]] = [("policy", self.policy)]
        named += [(f"{name} policy", each.engine) for name, each in self.policies.named.items()]
        named += [(JUDGE, engine) for engine in (self.judge_engine, *self.panel)]
        own = {REWARDS: self.preference.reward_engine, SECOND_JUDGE: self.evaluation.judge}
        return named + [(role, engine) for role, engine in own.items() if engine is not None]

    @property
    def label_engines(self) -> tuple[AnyEngine, ...]:
        """What labels comparisons: the judge and the rest of the panel, or the reward model."""
        own = self.preference.own_engine
        return (own,) if own is not None else (self.judge_engine, *self.panel)


def load_config(path: Path) -> RunConfig:
    """Read and validate a recipe. Raises ConfigError with file and line."""
    return read_recipe(path)[0]


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[RunConfig, str]:
    """A validated recipe and its text.

    Args:
        overrides: values to replace in the file's text, as `override` takes them.

    Raises:
        ConfigError: the first mistake, with file and line.
    """
    where = f"recipe {path}"
    text = read_text(path, where)
    if overrides:
        text = override(text, overrides, where)
        # The lines that a message names are those of the changed text.
        where += " with its overrides"
    return parse_model(text, RunConfig, where), text
