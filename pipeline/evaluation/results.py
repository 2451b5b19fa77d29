"""The contents of evaluation/metrics.json, field by field.

In:  shards and results of a run, measured by the modules beside this one
Out: `Metrics`; `model_dump(mode="json")` writes it, `Metrics.model_validate` reads it back

A share is in [0, 1]. None means that the measure does not apply or has no observation. Fields that
another version wrote are ignored.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipeline.evaluation.decision import GateResult, ReviewMetrics
from pipeline.labeling.contrast import PairContrast
from pipeline.labeling.directions import DirectionMetrics
from pipeline.labeling.known_labels import ErrorBound
from pipeline.stats import Estimate
from pipeline.store.shards import RareCount
from pipeline.training.job import Alarm, HeldoutPairs

Faults = dict[str, int]
"""Rows by reason or fault, most frequent first."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class OracleShares(_Entry):
    """What an oracle reads in the replies of one policy; intervals are clustered by prompt."""

    harmless: Estimate | None
    """Of the replies to misdeeds: inside the oracle's world and not going along."""
    good: Estimate | None
    """Of the replies to all prompts that the oracle knows: the answer that one would wish for."""
    good_on_harmless: Estimate | None
    """Of the replies to harmless prompts: good."""
    good_on_misdeed: Estimate | None
    """Of the replies to misdeeds: good."""
    refused_harmless: Estimate | None
    """Of the replies to harmless prompts: declined."""
    outside_world: Estimate | None
    """Of the replies to all prompts that the oracle knows: texts that it cannot read."""

    def by_name(self) -> dict[str, Estimate | None]:
        """The shares by name, in the order above."""
        return dict(self)


class PolicyMetrics(_Entry):
    """Replies of one policy to the held-out prompts."""

    model: str
    """Name of the model as its engine gives it."""
    fingerprint: str
    """Hash of the model's files."""
    num_responses: int
    """Replies with status ok; the denominator of the means and shares below."""
    num_prompts: int
    """Prompts with at least one such reply."""
    mean_tokens: float | None
    """Tokens a reply."""
    mean_words: float | None
    """Words a reply, separated by white space."""
    truncated_share: float | None
    """Replies cut at the token limit."""
    empty_share: float | None
    """Replies without any visible character."""
    oracle: OracleShares | None
    """None without an oracle."""
    checks_all: Estimate | None = None
    """Replies that hold every check of the constitution; None when it has none. The interval is
    clustered by prompt."""
    refused: Annotated[dict[str, Estimate | None], Field(exclude_if=lambda found: not found)] = {}
    """By tag of the held-out prompts: replies that decline, as the oracle reads them, else short
    ones with a refusal's words."""
    checks: dict[str, Estimate | None] = {}
    """By id of the principle: replies that hold its check. Those for which it raised are left out.
    """


class PrincipleWins(_Entry):
    """Comparisons of a match under one principle."""

    win_rate: float
    """Share won of `n`; a tie counts 0.5."""
    n: int
    """Readable labels under the principle."""


class WinRate(_Entry):
    """How often the judge prefers one policy to another on the held-out prompts."""

    policy: str
    """The later policy."""
    against: str
    """The earlier one."""
    win_rate: float | None
    """Share of `num_comparisons` that `policy` wins; a tie counts 0.5."""
    low: float | None
    """Lower end of its 95 % interval, clustered by prompt."""
    high: float | None
    """Upper end of that interval."""
    num_comparisons: int
    """Readable labels, and identical responses as ties."""
    num_prompts: int
    """Prompts with at least one such comparison."""
    tie_share: float | None
    """Ties of `num_comparisons`."""
    identical: int
    """Comparisons of two equal texts; the judge was not asked."""
    unparsed: int
    """Comparisons whose verdict could not be read; not in `num_comparisons`."""
    left_out: int
    """Comparisons that failed or lacked a response; not in `num_comparisons`."""
    length_controlled: Estimate | None = None
    """The win rate at equal lengths; None without a difference in outcomes, or where the replies of
    one policy are always longer."""
    prob_preferred: Estimate | None
    """Mean of P(`policy` preferred) over `num_comparisons`."""
    position_consistency: float | None
    """Of the labels asked in both orders: the same preference in both."""
    mean_position_gap: float | None
    """Mean distance of the two orders' probabilities, in [0, 1]."""
    by_principle: dict[str, PrincipleWins]
    """By id of the principle under which the judge was asked."""


class DecidingJudge(_Entry):
    """The judge of the recipe's `evaluation.judge`, which decided the win rates."""

    model: str
    """Name of the model."""
    fingerprint: str
    """Hash of the model's files, or of what is known of an endpoint."""
    labeled: bool
    """Whether a label of the data set, or of the versions before it, is of a model of this name or
    fingerprint: a judge that labeled favors its own labels."""

    def describe(self) -> str:
        """Name and role, for report and gate."""
        if self.labeled:
            return f"{self.model}, which also labeled and favors its own labels"
        return f"{self.model}, which labeled nothing"


class LabelTruth(_Entry):
    """Labels of the preference data against an oracle."""

    accuracy_raw: Estimate | None
    """Of the labels with a clear truth: right; a label of exactly 0.5 counts 0.5."""
    accuracy_kept: Estimate | None
    """Accuracy of those labels that became pairs."""
    equal_pairs: int
    """Labels of two texts that the oracle does not tell apart."""
    outside: int
    """Labels with a text outside the oracle's world."""
    no_attribute: int
    """Labels under a principle whose tags name no attribute of the oracle."""
    equal_deviation: float | None
    """Mean distance of the label from 0.5 over `equal_pairs`, in [0, 0.5]."""
    brier: float | None
    """Mean squared distance of label and truth, in [0, 1]."""
    calibration_error: float | None
    """Expected calibration error over bins of equal size, in [0, 1]."""
    by_attribute: dict[str, Estimate | None]
    """Accuracy by attribute of the oracle."""


class StageMetrics(_Entry):
    """One stage, added over its shards."""

    shards: int
    """Shards on disk."""
    expected: int
    """Rows; ok + unparsed + failed + dropped."""
    ok: int
    """Rows with a result."""
    unparsed: int
    """Rows whose verdict could not be read."""
    failed: int
    """Rows whose call failed for good."""
    dropped: int
    """Rows left out on purpose."""
    reused: int
    """Rows taken from an earlier attempt."""
    prompt_tokens: int
    """Tokens of the last attempt, as are the two below; reused rows cost nothing."""
    cached_tokens: int
    """Of the prompt tokens, those that the engine had in its cache."""
    generated_tokens: int
    """Tokens that the engine wrote."""
    seconds: float
    """Added over shards that ran side by side."""
    thoughts: RareCount = 0
    """Rows whose model thought before it replied."""
    thought_tokens: RareCount = 0
    """Tokens of these thoughts, as far as engines say; reused rows' too."""
    earlier_prompt_tokens: RareCount = 0
    """Prompt tokens of the attempts before the last, as are the two below."""
    earlier_generated_tokens: RareCount = 0
    """Tokens that the engine wrote then."""
    earlier_seconds: Annotated[float, Field(exclude_if=lambda seconds: not seconds)] = 0.0
    """Seconds of these attempts."""
    reasons: Faults = {}
    """Rows that are not ok, by reason."""
    engine: dict[str, str] = {}
    """Name, fingerprint and version of the model; empty for a stage without one."""
    makers: Annotated[dict[str, int], Field(exclude_if=lambda makers: not makers)] = {}
    """Shards by fingerprint and kind of GPU, where these differ; else empty."""


class MarginBin(_Entry):
    """Pairs whose margin is in one bin of 0.5 nats."""

    low: float
    """Lower edge, in nats; the last bin is open above."""
    kept: int
    """Pairs in the data set."""
    dropped: int
    """Labeled comparisons that are not."""


class LabelMetrics(_Entry):
    """Labels of the preference data: all of them, or those under one principle."""

    drawn: int
    """Comparisons that were planned."""
    labeled: int
    """Those with a readable label."""
    unparsed: int
    """Those whose verdict could not be read."""
    kept: int
    """Those that became pairs."""
    mean_margin: float | None = None
    """Mean absolute log-odds of `labeled`, in nats."""
    tie_share: float | None = None
    """Of `labeled`: within the tie width of 0.5."""
    position_consistency: float | None = None
    """Of the labels asked in both orders, as are the three below: the same preference in both."""
    mean_position_gap: float | None = None
    """Mean distance of the two orders' probabilities, in [0, 1]."""
    always_slot_a: float | None = None
    """Share that prefers slot A in both orders."""
    always_slot_b: float | None = None
    """Share that prefers slot B in both orders."""


class PrincipleMetrics(LabelMetrics):
    """What one principle did."""

    id: str
    """Id in the constitution."""
    critiques: int
    """Critiques under the principle, over all rounds."""


class DataMetrics(_Entry):
    """The preference data."""

    pairs: int
    """Comparisons that reached the last stage."""
    kept: int
    """Those that became pairs."""
    reasons: Faults
    """Those that did not, by reason."""
    margins: list[MarginBin]
    """Histogram of the margins of all labeled comparisons."""
    labels: LabelMetrics
    """Over all labels that pairs are made from, pooled ones where there is a panel."""
    error_bound: ErrorBound | None = None
    """None when the recipe asks for none."""
    contrast: PairContrast | None = None
    """Who wrote the two sides of the pairs, and how often the longer one is preferred; None without
    labeled pairs."""
    overruled: Faults | None = None
    """Conflicts of principles that decided a label, by `short by complete`; None when the
    constitution has no conflicts."""
    shortened: int = 0
    """Verdicts and ratings that rest on the beginning of a text longer than `max_characters`."""


class LengthCorrelation(_Entry):
    """Correlation of scores with the number of words, each in [-1, 1]."""

    pearson: float | None
    """Over all responses; None where scores or words do not vary."""
    spearman: float | None
    """Of ranks over all responses."""
    pearson_within: float | None
    """Of deviations from the mean of the prompt's responses."""
    spearman_within: float | None
    """Of ranks among the prompt's responses, as deviations from their mean."""


class ScoreLevel(_Entry):
    """Level and spread of some scores."""

    n: int
    """Readable scores."""
    mean: float | None
    """In the unit of the score: rating points, or nats a token for follow-ups."""
    spread: float | None
    """Standard deviation of the sample (n - 1), in the same unit."""
    length: LengthCorrelation
    """How far the scores follow length."""


class ScoreMetrics(ScoreLevel):
    """Scores of single responses by one judge."""

    folder: str
    """Stage folder, such as `preference/score-2`."""
    method: str
    """`score` or `follow_up`."""
    rows: int
    """All rows, unreadable ones included."""
    inexact: int
    """Readable scores in which an absent option was taken at its bound."""
    mean_words: float | None
    """Words of the rated responses."""
    parts: dict[str, ScoreLevel]
    """By part of the score: a principle, or a category of follow-ups."""
    follow_ups: str | None = None
    """Name of the follow-up file; None for other labelers, as are the two below."""
    repeated_sentences: int | None = None
    """Sentences of that file that occur more than once."""
    repeats_removed: bool | None = None
    """True when the recipe counts them once."""


class EfficacyPart(_Entry):
    """How often the judge prefers revisions to the texts before them."""

    preferred: Estimate | None
    """Share of the labeled revisions; a tie counts 0.5."""
    prob_preferred: Estimate | None
    """Mean of P(revision preferred)."""
    unchanged: int
    """Revisions equal to the text before; the judge was not asked."""
    unparsed: int
    """Revisions whose verdict could not be read."""


class Efficacy(EfficacyPart):
    """All revisions of a round, and those under each principle."""

    by_principle: dict[str, EfficacyPart]
    """By id of the principle that asked for the revision."""


class RevisionMetrics(_Entry):
    """One round of revisions."""

    round: int
    """From 1."""
    rows: int
    """All rows of the round."""
    ok: int
    """Rows with a revision, unchanged ones included."""
    skipped: int
    """Texts left as they were because the critique found nothing to change."""
    rejected: int
    """Replies that are not a revision."""
    faults: Faults
    """Faults seen; a row can have several, and one that the recipe does not reject stays ok."""
    missed_check: Estimate | None = None
    """Of the replies that are a revision: left out because a check fails, the one of the principle
    or one that held before. None when no principle has a check."""
    efficacy: Efficacy | None
    """None where the recipe does not measure it."""


class Metrics(_Entry):
    """All numbers of a run, finished or not."""

    policies: dict[str, PolicyMetrics] = {}
    """The initial policy first, then in the order of training."""
    changes: dict[str, dict[str, Estimate | None]] = {}
    """By later policy and measure: its mean minus the initial policy's on the same prompts."""
    win_rates: list[WinRate] = []
    """Matches against the initial policy first."""
    judge: Annotated[DecidingJudge | None, Field(exclude_if=lambda judge: judge is None)] = None
    """None where the judge that labels decides, or where no policies were compared."""
    labels: LabelTruth | None = None
    """None without an oracle or without labels."""
    stages: dict[str, StageMetrics] = {}
    """By stage folder, in the order in which a run makes them."""
    data: DataMetrics | None = None
    """None without labels."""
    principles: list[PrincipleMetrics] = []
    """By id."""
    scores: list[ScoreMetrics] = []
    """The first judge first; empty when no score is in the labels."""
    revisions: list[RevisionMetrics] = []
    """The first round first."""
    review: Annotated[ReviewMetrics | None, Field(exclude_if=lambda found: found is None)] = None
    """None where the gate has no rule about people's labels."""
    gate: GateResult | None = None
    """None when the recipe has no gate."""
    reward_model: HeldoutPairs | None = None
    """The run's own reward model on held-out pairs; None where none was trained."""
    directions: Annotated[
        tuple[DirectionMetrics, ...], Field(exclude_if=lambda found: not found)
    ] = ()
    """By rising angle; empty where no policy was trained on directions."""
    alarms: Annotated[dict[str, tuple[Alarm, ...]], Field(exclude_if=lambda found: not found)] = {}
    """By training job; those without an alarm are left out."""
    seconds: dict[str, float] = {}
    """By stage, added over shards that ran side by side, and by training job."""
