"""When a finished training counts as suspicious: the names and the limits of the alarms."""

from typing import Literal

from pydantic import Field

from pipeline.config.section import Section

AlarmName = Literal[
    "chosen_falls",
    "length_drift",
    "missing_end",
    "repeated_phrases",
    "divergence",
    "loss_spike",
    "unlike_reference",
    "rows_dropped",
    "unmeasured",
]
"""What an alarm is about."""
PROBED: frozenset[AlarmName] = frozenset(
    {"length_drift", "missing_end", "repeated_phrases", "divergence", "unlike_reference"}
)
"""The alarms that replies to training prompts decide."""


class AlarmConfig(Section):
    """When a finished training counts as suspicious. An alarm is reported, it stops nothing."""

    chosen_logp_drop: float = Field(0.2, gt=0)
    """Nats per token that the chosen replies may lose while the reward margin rises."""
    length_ratio: float = Field(1.5, gt=1)
    """Factor by which the mean length of probe replies may grow or shrink."""
    missing_end_share: float = Field(0.2, ge=0, le=1)
    """Largest share of probe replies that run into the token limit, above the share before."""
    repeated_share: float = Field(0.2, ge=0, le=1, exclude_if=lambda value: value == 0.2)
    """Largest share of repeated runs of four tokens in probe replies, above the share before."""
    divergence: float = Field(1.0, gt=0, exclude_if=lambda value: value == 1.0)
    """Largest divergence of the trained model from the one before, in nats per token, on replies
    that the latter sampled."""
    loss_spike: float = Field(3.0, gt=1, exclude_if=lambda value: value == 3.0)
    """A step's loss may be this many times the larger of the first loss and the median of the
    eight steps before."""
    unlike_reference: float = Field(0.5, ge=0, le=1, exclude_if=lambda value: value == 0.5)
    """Largest share of chosen replies that are less likely, per token, under the model before the
    training than every reply that it sampled itself."""
    dropped_share: float = Field(0.1, ge=0, le=1)
    """Largest share of rows that may be left out because they exceed `max_length`."""
    probe_prompts: int = Field(16, ge=0)
    """Training prompts answered before and after training, to see length, endings, repetitions and
    divergence; 0: none."""
    probe_tokens: int = Field(128, ge=1)
    """Token limit of a probe reply."""
