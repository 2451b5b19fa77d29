"""What every section of a recipe shares: unknown keys are refused, values never change."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A section of a YAML file; a docstring under a field becomes its description in the schema."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, values: Any) -> Any:
        """Python counts true as 1; a person who writes `limit: true` means something else."""
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and field.annotation in _NUMBERS:
                raise ValueError(f"'{name}' is {str(value).lower()}, but a number is needed")
        return values


_NUMBERS = (int, float, int | None, float | None)
