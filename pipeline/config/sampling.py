"""How text is drawn from a model."""

from typing import Annotated

from pydantic import Field, field_validator

from pipeline.config.section import Section
from pipeline.types import SamplingParams


class DrawConfig(Section):
    """How text is drawn."""

    temperature: float = Field(1.0, ge=0, le=100)
    """0 means the most probable token each time; vLLM draws nothing colder than 0.01."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Keep the smallest set of tokens with this probability."""
    top_k: int = Field(0, ge=0)
    """Keep this many tokens; 0 means all."""
    max_tokens: int = Field(512, ge=1, le=10_000_000)
    """Longest text, in tokens."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end the text."""

    @field_validator("temperature")
    @classmethod
    def _can_be_drawn(cls, value: float) -> float:
        if 0 < value < 0.01:
            raise ValueError(f"a temperature of {value:g} cannot be drawn; use 0, or 0.01 or more")
        return value

    def sampling(self) -> SamplingParams:
        """The values as an engine takes them."""
        return SamplingParams(self.temperature, self.top_p, self.top_k, self.max_tokens, self.stop)


class SampleConfig(DrawConfig):
    """How responses are sampled."""

    num_samples: int = Field(1, ge=1, le=64)
    """Responses per prompt."""
