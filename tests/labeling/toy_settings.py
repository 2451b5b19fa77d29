"""Settings of a toy labeler: the first of the two files that a new labeler needs."""

from typing import Literal

from pydantic import Field

from pipeline.config.labeling import PreferenceConfig
from pipeline.config.recipe import RunConfig
from pipeline.config.section import Section


class LengthConfig(Section):
    """Prefer the longer response."""

    scale: float = Field(1.0, gt=0)
    """Words: a difference of this many is a log-odds of 1 nat."""


class PreferenceWithToy(PreferenceConfig):
    """A preference section with the toy; a real labeler's lines belong in `config/labeling.py`."""

    labeler: Literal["judge", "score", "follow_up", "length"] = "judge"  # type: ignore[assignment]  # wider
    """Who labels."""
    length: LengthConfig = LengthConfig()
    """How length labels."""


class RecipeWithToyLabeler(RunConfig):
    """A recipe whose labeler may be the toy."""

    preference: PreferenceWithToy = PreferenceWithToy()
    """Preference phase."""
