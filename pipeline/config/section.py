"""What every section of a recipe shares: unknown keys are refused, values never change."""

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.errors import printable
from pipeline.types import is_blank


def _title(text: str) -> str:
    text = text.strip()
    if is_blank(text) or printable(text) != text or "\n" in text:
        raise ValueError(f"{text!a:.80} is not a name: use one line of visible characters")
    return text


def _says_something(text: str) -> str:
    if is_blank(text):
        raise ValueError("the text is blank; write something, or leave it out")
    return text


Title = Annotated[str, Field(max_length=200), AfterValidator(_title)]
"""A name that people read: one line without characters that hide or reorder it."""
Words = Annotated[str, AfterValidator(_says_something)]
"""A text with at least one visible character."""


def check_unique(names: Iterable[str], kinds: str, why: str = "") -> None:
    """Raises ValueError when a name repeats.

    Args:
        kinds: what has the names, and what they are called: `principles have the id`.
        why: what the names are for, before the remedy.
    """
    repeated = [name for name, number in Counter(names).items() if number > 1]
    if repeated:
        raise ValueError(f"two {kinds} '{repeated[0]}'; {why}rename one")


class Section(BaseModel):
    """A section of a YAML file; a docstring under a field becomes its description in the schema."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, values: Any) -> Any:
        """Python counts true as 1; a person who writes `limit: true` means something else.

        And no setting of this program has a size of 1e30 or 1e-30: formulas would overflow, or lose
        everything next to it.
        """
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and field.annotation in _NUMBERS:
                raise ValueError(f"'{name}' is {str(value).lower()}, but a number is needed")
            if _is_odd_size(value):
                raise ValueError(f"'{name}' is {value:g}, but a number of a usual size is needed")
        return values


def _is_odd_size(value: object) -> bool:
    return isinstance(value, float) and 0 < abs(value) < inf and not 1e-30 < abs(value) < 1e30


_NUMBERS = (int, float, int | None, float | None)
