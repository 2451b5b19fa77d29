"""Where prompts come from: files, tables of SQL databases, and data sets of the `datasets` library.

No address of a database is in a recipe, since it may hold a password: a recipe names the
environment variable that has it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pipeline.config.section import Section, Words


class SqlPromptsConfig(Section):
    """Prompts in one column of a SQL database. A value is a text or, in databases that have lists,
    a list of messages.
    """

    type: Literal["sql"]
    """Kind of the source."""
    database: Path | None = None
    """An SQLite file, which is only read."""
    url_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with the database's address, as SQLAlchemy takes it: `postgresql://...`.
    Its driver must be installed."""
    table: Words | None = None
    """A table or view; its prompts are read in the order of their text."""
    query: Words | None = None
    """A query instead of a table; with an `ORDER BY` each run has the same order."""
    column: str = "prompt"
    """Column with the prompts."""

    @field_validator("database", mode="before")
    @classmethod
    def _is_no_address(cls, value: Any) -> Any:
        if "://" in str(value):
            raise ValueError(
                "a recipe holds no address of a database, since it may have a password; put the "
                "address into an environment variable and name that as url_env"
            )
        return value

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for names in (("database", "url_env"), ("table", "query")):
            if sum(value is not None for name, value in self if name in names) != 1:
                raise ValueError(
                    f"a source of type sql needs {' or '.join(names)}, and not both; name one"
                )
        return self

    def __str__(self) -> str:
        return f"{self.url_env or self.database} ({self.table or 'query'})"


class DatasetPromptsConfig(Section):
    """Prompts in one column of a data set that the `datasets` library loads. A value is a text or a
    list of messages.
    """

    type: Literal["dataset"]
    """Kind of the source."""
    name: Words
    """A folder with data files or one that `save_to_disk` wrote, else a name on the Hub."""
    subset: str | None = None
    """Name of one of its configurations; null for the default."""
    split: str = "train"
    """Split with the prompts, such as `train` or `train[:1000]`."""
    column: str = "prompt"
    """Column with the prompts."""

    def __str__(self) -> str:
        return f"{self.name} ({self.split})"


def _kind(value: Any) -> Any:
    if isinstance(value, str | Path):
        return "file"
    if isinstance(value, dict):
        return value.get("type")
    return value.type if isinstance(value, SqlPromptsConfig | DatasetPromptsConfig) else None


PromptSource = Annotated[
    Annotated[Path, Tag("file")]
    | Annotated[SqlPromptsConfig, Tag("sql")]
    | Annotated[DatasetPromptsConfig, Tag("dataset")],
    Discriminator(
        _kind,
        custom_error_type="prompt_source",
        custom_error_message="A path, or a mapping with the `type` sql or dataset is needed; "
        "correct it",
    ),
]


class PromptsConfig(Section):
    """Where prompts come from, and how many are used."""

    train: tuple[PromptSource, ...] = Field(min_length=1)
    """Sources whose prompts are sampled, judged and trained on. A path is a file (JSON Lines, CSV
    or Parquet; column `prompt`, or `messages` in Parquet) or a folder of them."""
    heldout: tuple[PromptSource, ...] = ()
    """Sources, as in `train`, for evaluation only; a prompt that is also in `train` is refused."""
    limit: int | None = Field(None, ge=1)
    """Largest number of training prompts, drawn by seed; null for all."""
    heldout_limit: int | None = Field(None, ge=1)
    """Largest number of held-out prompts, drawn by seed; null for all."""
    target_pairs: int | None = Field(None, ge=1)
    """Preference pairs to make: prompts are drawn by seed, at first the fewest that could do and
    then more, until this number of pairs is kept or `train` (with `limit`) has no more. The data
    set has exactly this number, or fewer and a note why. The supervised phase trains on the prompts
    of the first draw."""

    @field_validator("train", "heldout")
    @classmethod
    def _sources_differ(cls, sources: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(sources)) < len(sources):
            raise ValueError("a source is named twice; each prompt counts once, so name it once")
        return sources
