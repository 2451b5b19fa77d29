"""The source list: which label files there are, how to read them, and how much of each to use.

    sources:
      - type: hh-rlhf
        name: crowd
        path: test.jsonl.gz
        trust: 0.72
        weight: 1.0

Unknown keys are refused, with file and line. Paths are relative to the working directory.

A list that a recipe names (`preference.sources`) may have one entry more, `type: run`: the pairs of
the run itself (MixtureConfig). Pairs and unpaired feedback may stand in it side by side.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import Section
from pipeline.config.yaml_file import load_yaml
from pipeline.errors import ConfigError
from pipeline.sources.columns import LabelValues, PairColumns
from pipeline.sources.rows import SourceInfo, SourceKind


class Source(Section):
    """What all sources share."""

    name: str = Field(min_length=1)
    """Names the source in every row; must differ between sources."""
    path: Path
    """The file with the labels."""
    kind: SourceKind = "human"
    """Who labeled: `human`, `expert`, `user` or `ai`."""
    trust: float = Field(1.0, gt=0.5, le=1)
    """Probability that a label of this source is right; it becomes the soft label of its pairs."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Share in the mixture, relative to the other sources."""

    @property
    def info(self) -> SourceInfo:
        """What an importer needs."""
        return SourceInfo(self.name, self.kind, self.path, self.trust)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that decide its rows, the one with the labels first."""
        return (self.path,)


class PairsSource(Source):
    """Pairwise labels in JSON Lines or CSV."""

    type: Literal["pairs"] = "pairs"
    columns: PairColumns = PairColumns(chosen="chosen", rejected="rejected")
    """Names of the columns."""
    values: LabelValues = LabelValues()
    """Meaning of the label column."""


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

    type: Literal["feedback"] = "feedback"
    kind: SourceKind = "user"
    """Who labeled."""
    thumbs_weight: float = Field(1.0, gt=0, le=1)
    """Evidence of a thumb."""
    regenerate_weight: float = Field(0.5, gt=0, le=1)
    """Evidence against a reply that the user had written anew: weaker, as the wish for another
    reply has other reasons too."""


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

    type: Literal["dataset"] = "dataset"
    kind: SourceKind = "ai"
    """Who labeled."""


AnySource = Annotated[
    PairsSource | TranscriptsSource | OptionsSource | FeedbackSource | ExpertSource | DatasetSource,
    Field(discriminator="type"),
]


class RunSource(Section):
    """The pairs of the run that reads the list, in the list of a recipe only."""

    type: Literal["run"] = "run"
    name: str = Field("run", min_length=1)
    """Names the run's own pairs in every row."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Share in the mixture, relative to the other sources."""


MixedSource = Annotated[
    PairsSource
    | TranscriptsSource
    | OptionsSource
    | FeedbackSource
    | ExpertSource
    | DatasetSource
    | RunSource,
    Field(discriminator="type"),
]


class LabelsConfig(Section):
    """A source list."""

    sources: tuple[AnySource, ...]
    """The label files."""
    size: int | None = Field(None, ge=1)
    """Rows of the mixture; without it the most at which no source runs short of its weight."""
    seed: int = 0
    """Another seed draws other rows."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if not self.sources:
            raise ValueError("the list has no source, but at least one is needed; add one")
        repeated = [n for n, k in Counter(s.name for s in self.sources).items() if k > 1]
        if repeated:
            raise ValueError(
                f"two sources have the name '{repeated[0]}'; names tell rows apart, so rename one"
            )
        return self


class MixtureConfig(LabelsConfig):
    """The source list of a recipe.

    With an entry `type: run`, every source owes its share by weight, as in any list. Without one, all
    pairs of the run are used, and another source adds weight times as many rows.
    """

    sources: tuple[MixedSource, ...]  # type: ignore[assignment]
    """The label files, and at most once the run itself."""

    @model_validator(mode="after")
    def _fits_a_run(self) -> Self:
        runs = [s.name for s in self.sources if isinstance(s, RunSource)]
        if len(runs) > 1:
            raise ValueError(f"'{runs[0]}' and '{runs[1]}' both stand for the run; remove one")
        if len(runs) == len(self.sources):
            raise ValueError("the list has no source besides the run; add a label file")
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
        """What the run's own pairs are called."""
        return self.own.name if self.own else RunSource().name

    @property
    def files(self) -> tuple[AnySource, ...]:
        """The sources that are files."""
        return tuple(s for s in self.sources if not isinstance(s, RunSource))


def load_sources(path: Path) -> LabelsConfig:
    """Read and validate a source list. Raises ConfigError with file and line."""
    return load_yaml(path, LabelsConfig, what="source list")


def load_mixture(path: Path, method: str | None = None) -> MixtureConfig:
    """The same for the list that a recipe names.

    Args:
        method: of the training that will read the rows; None where there is none, which any fit.

    Raises:
        ConfigError: also when the method learns from pairs and a source has none.
    """
    listed = load_yaml(path, MixtureConfig, what="source list")
    unpaired = [s.name for s in listed.sources if isinstance(s, FeedbackSource)]
    if unpaired and method not in (None, "kto"):
        raise ConfigError(
            f"{path}: source '{unpaired[0]}' holds unpaired feedback, but preference.train.method is "
            f"'{method}', which learns from pairs alone; use kto, or remove the source"
        )
    return listed
