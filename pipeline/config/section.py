"""What every section of a recipe shares: unknown keys are refused, values never change."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a YAML file; a docstring under a field becomes its description in the schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
