"""The source list: which label files there are, how to read them, and how much of each to use.

    sources:
      - type: hh-rlhf
        name: crowd
        path: test.jsonl.gz
        label_accuracy: 0.72
        weight: 1.0

Unknown keys are refused, with file and line. Paths are relative to the working directory.

A list that a recipe names (`preference.sources`) may also have one entry `type: run`: the pairs of
the run itself (MixtureConfig). It may list pairs and unpaired feedback side by side.
"""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import Section, Title, check_unique
from pipeline.config.training import takes_feedback
from pipeline.config.yaml_file import load_yaml
from pipeline.errors import ConfigError

SourceKind = Literal["human", "expert", "user", "ai"]


class WinnerColumns(Section):
    """One column for each outcome, of which one is marked (1, true) in each row."""

    first: str
    """Marked where the first response is better."""
    second: str
    """Marked where the second response is better."""
    tie: str | tuple[str, ...] = ()
    """Marked where neither is; several columns, such as `both good` and `both bad`, are allowed."""

    @property
    def meanings(self) -> dict[str, str]:
        """Column to `first`, `second` or `tie`."""
        ties = (self.tie,) if isinstance(self.tie, str) else self.tie
        return {self.first: "first", self.second: "second"} | dict.fromkeys(ties, "tie")


class ContextColumns(Section):
    """Which columns hold what comes before a response."""

    prompt: str | tuple[str, ...] | None = "prompt"
    """Text, or a list of messages; several columns of text are joined by line breaks; null when
    the responses are whole conversations."""
    system: str | None = None
    """The system message."""
    history: str | None = None
    """The turns before the prompt: messages, or pairs of texts."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The columns of the prompt."""
        return (self.prompt,) if isinstance(self.prompt, str) else self.prompt or ()


class PairColumns(ContextColumns):
    """Which column holds what; either chosen and rejected, or first, second and label."""

    chosen: str | None = None
    """The preferred response, or a conversation that ends with it."""
    rejected: str | None = None
    """The other response."""
    first: str | None = None
    """One response."""
    second: str | None = None
    """The other one."""
    label: str | WinnerColumns | None = None
    """Which of them is better, see `values`; or one column for each outcome."""
    score_chosen: str | None = None
    """A score of `chosen`: a pair whose scores are equal is a tie, and one whose scores contradict
    its label is dropped."""
    score_rejected: str | None = None
    """Column with the score of `rejected`, on the scale of `score_chosen`."""
    score_first: str | None = None
    """A score of `first`, higher is better: decides where there is no `label`."""
    score_second: str | None = None
    """Column with the score of `second`, on the scale of `score_first`."""
    annotator: str | None = None
    """Who labeled the row."""
    label_accuracy: str | None = None
    """Probability that the label is right, in [0.5, 1], instead of the source's."""
    tags: str | None = None
    """Words, as a list or with commas between."""

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        ordered = (self.chosen, self.rejected)
        scored = (self.score_first, self.score_second)
        compared = (self.first, self.second, self.label or all(scored))
        if not (
            (all(ordered) and not any((*compared, *scored)))
            or (all(compared) and not any((*ordered, self.score_chosen, self.score_rejected)))
        ):
            raise ValueError(
                "the columns must name either chosen and rejected, or first, second and label (or "
                "score_first and score_second)"
            )
        texts = [*self.prompts, *filter(None, (*ordered, self.first, self.second, *self.scores))]
        if len(set(texts)) < len(texts):
            raise ValueError("a column is named for two things; name a different one for each")
        if len([1 for name in self.scores if name]) == 1:
            raise ValueError("a score is named for one response only; name both, or neither")
        return self

    @property
    def scores(self) -> tuple[str | None, str | None]:
        """The columns of the scores, in the order of the responses."""
        if self.chosen:
            return self.score_chosen, self.score_rejected
        return self.score_first, self.score_second


def label_word(value: object) -> str:
    """A value of a label column as it is compared: text, stripped, without case.

    Whole numbers are alike however they are written: 1, 1.0 and "1.0" are "1"; true is "true".
    """
    # A decimal column spells its zero 0E-8.
    word = (f"{value:f}" if isinstance(value, Decimal) else str(value)).strip().casefold()
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", word)


LabelWord = str | bool | int | float


class LabelValues(Section):
    """The values of the label column and their meanings; compared as text, without case.

    Numbers have no default meaning: files count from 0, from 1, or in scores.
    """

    first: tuple[LabelWord, ...] = ("first", "a")
    """The first response is better."""
    second: tuple[LabelWord, ...] = ("second", "b")
    """The second response is better."""
    tie: tuple[LabelWord, ...] = ("tie", "equal", "both", "neither")
    """Neither is better: the row is dropped and counted."""

    @model_validator(mode="after")
    def _one_meaning_each(self) -> Self:
        # A list that is left out keeps its defaults, and a declared one may then contradict it.
        meanings: dict[str, str] = {}
        for meaning in ("first", "second", "tie"):
            for word in self.words(meaning):
                other = meanings.setdefault(word, meaning)
                if other != meaning:
                    raise ValueError(
                        f"'{word}' means both {other} and {meaning}, but a label needs one "
                        "meaning; declare all three of values (first, second, tie)"
                    )
        return self

    def words(self, meaning: str) -> tuple[str, ...]:
        """The labels of `first`, `second` or `tie` as they are compared."""
        return tuple(label_word(word) for word in getattr(self, meaning))


class Source(Section):
    """Fields of every label file."""

    unpaired: ClassVar[bool] = False
    """Whether its rows are single replies (FeedbackRow) instead of pairs (LabeledRow)."""
    labels_differ: ClassVar[bool] = False
    """Whether each row has its own soft label or weight, so `label_accuracy` does not apply."""

    name: Title
    """Names the source in every row; must differ between sources."""
    path: Path
    """The file with the labels."""
    kind: SourceKind = "human"
    """Who labeled: `human`, `expert`, `user` or `ai`."""
    label_accuracy: float = Field(1.0, gt=0.5, le=1)
    """Probability that a label of this source is right; it becomes the soft label of its pairs."""
    weight: float = Field(1.0, gt=0)
    """Share in the mixture, relative to the other sources."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that determine its rows, the one with the labels first."""
        return (self.path,)


class ColumnsSource(Source):
    """Pairwise labels in JSON, CSV or Parquet, by the names of their columns."""

    columns: PairColumns = PairColumns(chosen="chosen", rejected="rejected")
    """Names of the columns."""
    values: LabelValues = LabelValues()
    """Meaning of the label column."""


class PairsSource(ColumnsSource):
    """Pairwise labels with declared columns."""

    type: Literal["pairs"] = "pairs"


class OpenAISource(ColumnsSource):
    """Preferences in the shape of OpenAI's fine-tuning endpoint."""

    type: Literal["openai"] = "openai"
    columns: PairColumns = PairColumns(
        prompt="input.messages", chosen="preferred_output", rejected="non_preferred_output"
    )
    """Names of the columns."""


class ShareGPTSource(ColumnsSource):
    """ShareGPT conversations with two replies, as LLaMA-Factory reads them."""

    type: Literal["sharegpt"] = "sharegpt"
    columns: PairColumns = PairColumns(
        prompt="conversations", chosen="chosen", rejected="rejected", system="system"
    )
    """Names of the columns."""


class BinarizedSource(ColumnsSource):
    """UltraFeedback-binarized: whole conversations, and the score of each reply."""

    type: Literal["binarized"] = "binarized"
    columns: PairColumns = PairColumns(
        chosen="chosen",
        rejected="rejected",
        score_chosen="score_chosen",
        score_rejected="score_rejected",
    )
    """Names of the columns."""


class BattlesSource(ColumnsSource):
    """Arena battles: two conversations, and the winner."""

    type: Literal["battles"] = "battles"
    columns: PairColumns = PairColumns(
        prompt=None, first="conversation_a", second="conversation_b", label="winner"
    )
    """Names of the columns."""
    values: LabelValues = LabelValues(
        first=("model_a",), second=("model_b",), tie=("tie", "tie (bothbad)", "bothbad", "both_bad")
    )
    """Meaning of the winner."""


class RankedColumns(ContextColumns):
    """Which column holds what: several responses in one record, or one in each."""

    responses: str | None = None
    """A list of texts or of objects; null where each record holds one response."""
    response: str = "response"
    """The text: of the record, or of each object in `responses`."""
    score: str | None = None
    """Higher is better: of the record or object; beside a list of texts, a list of numbers."""
    rank: str | None = None
    """In place of a score; 1 is best."""

    @model_validator(mode="after")
    def _one_order(self) -> Self:
        if (self.score is None) == (self.rank is None):
            raise ValueError("the columns must name either score or rank")
        return self


class RankedSource(Source):
    """Responses to a prompt with a score or a rank each: every two that differ are a pair."""

    type: Literal["ranked"] = "ranked"
    columns: RankedColumns = RankedColumns(score="score")
    """Names of the columns."""


class TranscriptsSource(Source):
    """hh-rlhf: `chosen` and `rejected` are whole transcripts."""

    type: Literal["hh-rlhf"] = "hh-rlhf"
    drop_inline_headers: bool = False
    """Drop pairs in which a response has 'Human:' or 'Assistant:' inside; else they are counted."""


class OptionsSource(Source):
    """Two options in a judge's prompt, as in the HHH comparisons of the CAI paper."""

    type: Literal["hhh"] = "hhh"


class FeedbackSource(Source):
    """Thumbs up and down and regenerate events."""

    unpaired = True
    labels_differ = True
    type: Literal["feedback"] = "feedback"
    kind: SourceKind = "user"
    """Who labeled."""
    thumbs_weight: float = Field(1.0, gt=0, le=1)
    """Evidence of a thumb."""
    regenerate_weight: float = Field(0.5, gt=0, le=1)
    """Evidence against a reply that the user asked to regenerate: weaker than a thumb, because
    people ask for another reply for other reasons too."""


class ExpertSource(Source):
    """Answers that experts wrote, preferred to a model's response to the same prompt."""

    type: Literal["expert"] = "expert"
    kind: SourceKind = "expert"
    """Who wrote."""
    responses: Path | None = None
    """JSON Lines or CSV with `prompt` (or `messages`) and `response`; without it each line of the
    answers must have its own `response`."""
    per_prompt: int = Field(1, ge=1)
    """Model responses to pair with one answer, drawn by seed."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The answers, and the file of responses where there is one."""
        return (self.path, *([self.responses] if self.responses else []))


class DatasetSource(Source):
    """Pairs that a run of this pipeline labeled: a Parquet file of PreferenceRow columns."""

    labels_differ = True
    type: Literal["dataset"] = "dataset"
    kind: SourceKind = "ai"
    """Who labeled."""


AnySource = (
    PairsSource
    | OpenAISource
    | ShareGPTSource
    | BinarizedSource
    | BattlesSource
    | RankedSource
    | TranscriptsSource
    | OptionsSource
    | FeedbackSource
    | ExpertSource
    | DatasetSource
)


class RunSource(Section):
    """The pairs of the run that reads the list, in the list of a recipe only."""

    unpaired: ClassVar[bool] = False
    type: Literal["run"] = "run"
    name: Title = "run"
    """Names the run's own pairs in every row."""
    weight: float = Field(1.0, gt=0)
    """Share in the mixture, relative to the other sources."""


class LabelsConfig(Section):
    """A source list."""

    sources: tuple[Annotated[AnySource, Field(discriminator="type")], ...]
    """The label files."""
    size: int | None = Field(None, ge=1)
    """Rows of the mixture; by default the most at which no source falls short of its weight."""
    seed: int = 0
    """Another seed draws other rows."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if not self.sources:
            raise ValueError("the list has no source, but at least one is needed; add one")
        why = "names tell rows apart, so "
        check_unique((s.name for s in self.sources), "sources have the name", why)
        return self


class MixtureConfig(LabelsConfig):
    """The source list of a recipe.

    With an entry `type: run`, every source contributes its share by weight, as in any list. Without
    one, all pairs of the run are used, and another source adds weight times as many rows.
    """

    sources: tuple[  # type: ignore[assignment]  # wider than in LabelsConfig
        Annotated[AnySource | RunSource, Field(discriminator="type")], ...
    ]
    """The label files, and at most once the run itself."""

    @model_validator(mode="after")
    def _fits_a_run(self) -> Self:
        runs = [s.name for s in self.sources if s.type == "run"]
        if len(runs) > 1:
            raise ValueError(f"'{runs[0]}' and '{runs[1]}' both mean the run itself; remove one")
        if len(runs) == len(self.sources):
            raise ValueError("the run is the only source in the list; add a label file")
        if self.size is not None and not runs:
            raise ValueError(
                f"size is {self.size}, but all pairs of the run are used unless the list has an "
                "entry with type: run; add one, or remove size"
            )
        return self

    @property
    def own(self) -> RunSource | None:
        """The entry of the run itself."""
        return next((s for s in self.sources if isinstance(s, RunSource)), None)

    @property
    def own_name(self) -> str:
        """Name of the run's own pairs."""
        return self.own.name if self.own else RunSource().name

    @property
    def files(self) -> tuple[AnySource, ...]:
        """The sources that are files."""
        return tuple(s for s in self.sources if not isinstance(s, RunSource))


def load_sources(path: Path) -> LabelsConfig:
    """Read and validate a source list. Raises ConfigError with file and line."""
    return load_yaml(path, LabelsConfig, what="source list")


def load_mixture(path: Path, method: str | None = None) -> MixtureConfig:
    """Read and validate the source list that a recipe names.

    Args:
        method: of the training that will read the rows; None for no training, which any rows fit.

    Raises:
        ConfigError: the list is wrong, with file and line; or the method learns from pairs and a
            source has none.
    """
    listed = load_yaml(path, MixtureConfig, what="source list")
    unpaired = [source.name for source in listed.sources if source.unpaired]
    if unpaired and method is not None and not takes_feedback(method):
        raise ConfigError(
            f"{path}: source '{unpaired[0]}' holds unpaired feedback, but preference.train.method "
            f"is '{method}', which learns from pairs alone; use kto, or remove the source"
        )
    return listed
