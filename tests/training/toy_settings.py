"""Settings of a toy training method: the first of the two files that a new method needs."""

from typing import Literal

from pipeline.config.training import TrainingSection
from pipeline.training.job import JobFile, TrainingJob


class ToyConfig(TrainingSection):
    """Preference training by the likelihood of the chosen replies alone."""

    method: Literal["toy"] = "toy"
    """Training method."""


class ToyJob(TrainingJob):
    """A job of the toy; a real method stands in the union of `config/training.py`."""

    config: ToyConfig  # type: ignore[assignment]  # beside the union, not in it
    """The method and its settings."""


class ToyJobFile(JobFile):
    """`job.json` of a toy."""

    job: ToyJob
