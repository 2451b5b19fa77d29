"""Settings of a toy engine kind: the first of the two files that a new kind needs."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.engines import EngineSection, OpenAIConfig, ScriptedConfig, VllmConfig
from pipeline.config.recipe import RunConfig


class ToyConfig(EngineSection):
    """A model that likes one word."""

    type: Literal["toy"]
    """Engine kind."""
    word: str = "kind"
    """What its replies contain and what it prefers as a judge."""


class RecipeWithToy(RunConfig):
    """A recipe whose policy may be a toy; a real kind stands in the union of
    `config/engines.py`.
    """

    policy: Annotated[  # type: ignore[assignment]  # a wider union than the one it replaces
        VllmConfig | OpenAIConfig | ScriptedConfig | ToyConfig, Field(discriminator="type")
    ]
    """The initial policy."""
