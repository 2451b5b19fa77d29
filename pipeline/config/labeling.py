"""The preference phase's section of a recipe: how comparisons are labeled, audited and paired.

    judge      compares two responses in both orders (Bai et al. 2022; Lee et al. 2023)
    score      rates each response on its own, under one principle or under all of them
    follow_up  asks how likely a pleased or a displeased user's next message is
    reward_model  reads each response once and gives it the score of a classification head
    assumed    asks no model: the recipe states how often the first side is better
    pair       which labels become pairs

Pure values: nothing here looks at the disk.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.audits import CollapseConfig, LabelAuditConfig
from pipeline.config.engines import AnyEngine, RewardModelEngine
from pipeline.config.sampling import SampleConfig
from pipeline.config.section import Section, Words
from pipeline.config.training import DpaConfig, PreferenceTrainingConfig
from pipeline.soft_labels import is_tie, margin

SIGNS = " ().[]:\n"
"""Characters around an option that a template does not show."""

MAX_CHARACTERS = 20_000
"""Default bound of a text that a judge reads: about 5,000 tokens of English."""

LabelerName = Literal["judge", "score", "follow_up", "reward_model", "assumed"]
"""Keys of `pipeline.labeling.labelers.LABELERS`, each with a section of its own."""
Comparisons = Literal["samples", "revision_vs_initial", "best_vs_worst", "delta", "all"]
ORIGIN_COMPARISONS: tuple[Comparisons, ...] = ("revision_vs_initial", "delta")
"""Comparisons whose first side is better by its origin, if the assumption holds."""


class ChainOfThoughtConfig(Section):
    """Two steps: the judge writes a rationale, then its verdict is scored after it."""

    request: Words = (
        "Before you answer, say what response ({a}) and response ({b}) do in this respect."
    )
    """Follows the sample and asks for the rationale; `{a}` and `{b}` become the options' letters.
    """
    ending: Words = "So which response is better, ({a}) or ({b})?"
    """The turn after the rationale."""
    max_tokens: int = Field(512, ge=1)
    """Longest rationale, in tokens; it is written at temperature 0."""
    clamp: tuple[float, float] | None = (0.4, 0.6)
    """Bounds of the probability of each order, before their mean; null for none. A judge that has
    written its verdict is far too confident (Bai et al. 2022, section 4.1)."""

    @field_validator("request", "ending")
    @classmethod
    def _placeholders(cls, text: str) -> str:
        try:
            text.format(a="A", b="B")
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(
                f"it has a placeholder that is not {{a}} or {{b}} ({error}); write braces twice"
            ) from None
        return text

    @model_validator(mode="after")
    def _symmetric(self) -> Self:
        if self.clamp is not None:
            low, high = self.clamp
            if not 0 <= low < 0.5 or abs(low + high - 1) > 1e-9:
                raise ValueError(
                    f"clamp [{low}, {high}] must be symmetric around 0.5, such as [0.4, 0.6]; "
                    "other bounds would prefer a slot"
                )
        return self


class JudgeConfig(Section):
    """How the judge labels a comparison."""

    options: tuple[Words, Words] = ("A", "B")
    """Strings that name slot A and slot B at the start of the judge's reply. The judge template
    must show the same letters or digits."""
    reply_prefix: str = ""
    """Text before the option in the judge's reply, such as `The answer is (`."""
    min_option_mass: float = Field(0.05, ge=0, lt=1)
    """Least probability of both options together. Below it the verdict is unparsed: when the judge
    would rather say something else, the rest of the probability is noise."""
    preamble: str = ""
    """Task and instructions, before the first sample."""
    ending: str = ""
    """Text after each sample, such as `Preferred response:`."""
    exemplars: Path | None = None
    """YAML file with solved comparisons."""
    num_exemplars: int = Field(0, ge=0, le=8)
    """Exemplars before each sample (0-shot, 1-shot, ...); drawn by seed, each with a principle of
    its own."""
    chain_of_thought: ChainOfThoughtConfig | None = None
    """Ask for a rationale first; two more calls per label."""
    num_principles: int = Field(1, ge=1, le=64)
    """Different principles per comparison; their labels are averaged."""
    calibration: Path | None = None
    """File that `rlaif judge-eval --calibrate` wrote for this recipe's labeler; applied to each
    label."""
    defend: bool = True
    """Neutralize delimiters, turn headers and turn tokens in the texts that the judge reads. Set it
    to false only to measure the effect of this defense."""
    max_characters: int = Field(MAX_CHARACTERS, ge=100)
    """Characters of each text that the judge reads, so that none pushes the question out of sight.
    A longer turn of the conversation is cut there, with a note in the prompt and in the row, and
    counted in the metrics. A comparison with a longer response is unparsed: a verdict on the
    beginning of a response is none on the whole.
    """

    @model_validator(mode="after")
    def _options_differ(self) -> Self:
        if len({letter.casefold() for letter in self.letters}) < 2:
            raise ValueError(
                f"judge options {list(self.options)} both spell '{self.letters[0]}', so the slots "
                "cannot be told apart; use two letters"
            )
        return self

    @model_validator(mode="after")
    def _exemplars_are_named(self) -> Self:
        if self.num_exemplars and self.exemplars is None:
            raise ValueError(
                f"judge.num_exemplars is {self.num_exemplars}, but judge.exemplars names no file; "
                "name one, such as prompts/exemplars/general.yaml"
            )
        return self

    @property
    def letters(self) -> tuple[str, str]:
        """What the templates show for the two options: ` (A)` gives `A`."""
        return tuple(option.strip(SIGNS) or option for option in self.options)  # type: ignore[return-value]


class ScoreConfig(Section):
    """Direct scores (Lee et al. 2023, d-RLAIF): a rating of each response on its own."""

    options: tuple[Words, ...] = tuple(str(number) for number in range(1, 11))
    """The ratings, worst first; the score is the mean of 1, 2, ... under their probabilities. A
    reply counts for the longest rating that it begins with, so that 10 is not also a 1."""
    reply_prefix: str = ""
    """Text before the rating in the reply, such as `Rating: `."""
    min_option_mass: float = Field(0.05, ge=0, lt=1)
    """Least probability of all ratings together; below it the score is unparsed."""
    principles: Literal["drawn", "all"] = "drawn"
    """`drawn`: one principle per prompt, shared by all its responses. `all`: one rating for each
    principle; the score is their mean by the principles' weights."""
    max_characters: int = Field(MAX_CHARACTERS, ge=100)
    """Characters of each text that the rater reads; as `judge.max_characters`."""
    scale: float = Field(1.0, gt=0)
    """Score difference, in points, that means a log-odds of 1 nat in the soft label (a link of this
    project)."""

    @property
    def shown(self) -> tuple[str, ...]:
        """What a template shows for the ratings: ` (1)` gives `1`."""
        return tuple(option.strip(SIGNS) or option for option in self.options)

    @model_validator(mode="after")
    def _ratings_differ(self) -> Self:
        if len(self.options) < 2 or len({s.casefold() for s in self.shown}) < len(self.options):
            raise ValueError(
                f"score.options {list(self.options)} must be two or more different strings"
            )
        return self


class FollowUpConfig(Section):
    """Follow-up likelihood as reward (Zhang et al. 2024)."""

    follow_ups: Path = Path("prompts/follow_ups/helpfulness.yaml")
    """YAML file with the next messages of pleased and displeased users, by category."""
    neutral_reply: Words | None = None
    """Reply such as `Okay.`: the likelihood after it is subtracted from the likelihood after the
    response, which leaves what the response adds. Since all responses to a prompt share it, scores
    change and labels do not. Null for the plain likelihood."""
    scale: float = Field(0.1, gt=0)
    """Score difference, in nats per token, that means a log-odds of 1 nat in the soft label (a link
    of this project)."""
    deduplicate: bool = True
    """Count a sentence only once when its list repeats it; the report gives the number of repeats.
    """


class RewardModelConfig(Section):
    """A reward model: a classification head that gives each response one score."""

    engine: RewardModelEngine
    """The reward model, `{type: reward_model, model: FOLDER}`: a sequence classifier with one
    label, published or trained with `method: reward_model`. The judge stays what it is."""
    scale: float = Field(1.0, gt=0)
    """Score difference that means a log-odds of 1 nat in the soft label. 1 for a model that was
    trained on pairs with the loss of Bradley and Terry, as nearly all are."""


class AssumedConfig(Section):
    """Labels without a judge: the side that ought to be better by its origin is preferred."""

    label_accuracy: float = Field(gt=0.5, le=1)
    """Probability that the revision, or the stronger policy's response, is the better one: the soft
    label of every comparison. It is your assumption; measure it on a few comparisons first."""


class PairConfig(Section):
    """Which judgments become pairs."""

    tie_width: float = Field(0.02, ge=0, lt=0.5)
    """A soft label this close to 0.5 is a tie: the pair is dropped, and counted."""
    min_margin: float = Field(0.0, ge=0, le=100)
    """Least log-odds of the preferred response, in nats."""
    require_orders_agree: bool = False
    """Drop pairs for which the two orders prefer different responses."""
    drop_truncated: bool = True
    """Drop pairs in which a response was cut by `max_tokens`."""
    max_length_difference: int | None = Field(None, ge=0)
    """Largest difference of the two responses, in words separated by white space; longer and
    shorter ones are dropped alike. Olmo 3 keeps chat pairs within 100 tokens, about 75 English
    words. Null for no limit."""
    max_error: float | None = Field(None, gt=0, lt=0.5)
    """Largest share of wrong pairs: the least label that keeps it is chosen on `known_labels`. Null
    for no bound."""
    error_confidence: float = Field(0.9, gt=0.5, lt=1)
    """Probability that the bound of `max_error` holds."""
    known_labels: Path | None = None
    """What this recipe's judge said about labeled comparisons, written by
    `rlaif judge-eval --known-labels`; needed by `max_error`."""

    @model_validator(mode="after")
    def _bound_is_complete(self) -> Self:
        if (self.max_error is None) != (self.known_labels is None):
            raise ValueError(
                "`max_error` and `known_labels` belong together: the bound is chosen on labels "
                "whose truth is known; give both, or neither"
            )
        return self

    def thresholds(self) -> dict[str, Any]:
        """What decides about a pair, apart from the bound of the error."""
        unused = {"max_length_difference"} if self.max_length_difference is None else set()
        return self.model_dump(
            mode="json", exclude={"max_error", "error_confidence", "known_labels", *unused}
        )


class PreferenceConfig(Section):
    """Preference phase: comparisons, soft labels, pairs, then training."""

    enabled: bool = True
    """False ends the run after the supervised phase."""
    comparisons: Comparisons = "samples"
    """What to compare: samples of the SL-CAI policy (the published method) and of `policies`, each
    revision with its initial response (a shortcut of open recipes), the best with the worst sample
    by their mean label, each sample of the stronger policy with one of the weaker (`delta`), or the
    first two together (`all`)."""
    sample: SampleConfig = SampleConfig(num_samples=2)
    """Responses to compare; unused with `revision_vs_initial`, and with `delta` where `policies`
    names both sides."""
    labeler: LabelerName = "judge"
    """`judge` compares two responses, `score` rates each one, `follow_up` asks how likely a pleased
    user's next message is, `reward_model` reads each one once, `assumed` asks no model; the section
    of that name has its settings."""
    judge: JudgeConfig = JudgeConfig()
    """How the judge compares."""
    score: ScoreConfig = ScoreConfig()
    """How responses are rated."""
    follow_up: FollowUpConfig = FollowUpConfig()
    """How follow-ups are scored."""
    reward_model: RewardModelConfig | None = None
    """Which reward model gives the scores; needed by `labeler: reward_model`, and by the training
    methods `rloo` and `p3o`."""
    assumed: AssumedConfig | None = None
    """What `labeler: assumed` assumes; needed by it."""
    audit: LabelAuditConfig = LabelAuditConfig(enabled=False)
    """Thresholds that the labels must meet before they are exported."""
    collapse: CollapseConfig | None = None
    """Thresholds that the texts must meet before they are exported; null for no check."""
    pair: PairConfig = PairConfig()
    """From labels to pairs."""
    sources: Path | None = None
    """YAML list of further label sources, such as people's labels, to mix into the preference set.
    """
    train: PreferenceTrainingConfig | None = None
    """Training settings; without them the phase ends with the data set."""

    @model_validator(mode="after")
    def _reward_model_is_named(self) -> Self:
        if self.labeler == "reward_model" and self.reward_model is None:
            raise ValueError(
                "labeler 'reward_model' needs reward_model.engine: the model that gives the "
                "scores, such as {type: reward_model, model: FOLDER}"
            )
        engine, train = self.reward_model.engine if self.reward_model else None, self.train
        if train and train.learns_online and (engine is None or engine.type != "reward_model"):
            raise ValueError(
                f"method '{train.method}' needs reward_model.engine, the model whose score "
                "its replies are to raise: {type: reward_model, model: FOLDER}; train one with "
                "`method: reward_model`"
            )
        return self

    @model_validator(mode="after")
    def _attributes_are_rated(self) -> Self:
        rates_all = self.labeler == "score" and self.score.principles == "all"
        if isinstance(self.train, DpaConfig) and not rates_all:
            raise ValueError(
                "method 'dpa' needs a rating under each principle; set labeler to score and "
                "score.principles to all"
            )
        return self

    @property
    def reward_engine(self) -> RewardModelEngine | None:
        """The reward model, where the labeler or the training reads it."""
        online = self.train is not None and self.train.learns_online
        reads = self.labeler == "reward_model" or online
        return self.reward_model.engine if reads and self.reward_model else None

    @property
    def own_engine(self) -> AnyEngine | None:
        """The engine of a labeler that does not ask the judge; None for one that does."""
        if self.labeler != "reward_model" or self.reward_model is None:
            return None
        return self.reward_model.engine

    @model_validator(mode="after")
    def _assumption_is_stated(self) -> Self:
        if self.labeler != "assumed":
            return self
        if self.comparisons not in ORIGIN_COMPARISONS:
            raise ValueError(
                f"labeler 'assumed' needs comparisons whose better side is known by its origin, "
                f"but comparisons is '{self.comparisons}'; set comparisons to "
                f"{' or '.join(ORIGIN_COMPARISONS)}, or another labeler"
            )
        if self.assumed is None:
            raise ValueError(
                "labeler 'assumed' needs assumed.label_accuracy: how often the first side is "
                "better, such as 0.8"
            )
        accuracy = self.assumed.label_accuracy
        if is_tie(accuracy, self.pair.tie_width) or margin(accuracy) < self.pair.min_margin:
            raise ValueError(
                f"assumed.label_accuracy {accuracy:g} is a tie under pair.tie_width "
                f"{self.pair.tie_width:g}, or below pair.min_margin {self.pair.min_margin:g} nats, "
                "so that no pair would be left; raise it, or lower them"
            )
        return self
