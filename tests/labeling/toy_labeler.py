"""Behavior of a toy labeler: the second of the two files. Its scores come from a toy stage."""

from typing import Any

import pytest

from pipeline.config import recipe
from pipeline.config.labeling import PreferenceConfig
from pipeline.engines import Engine
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.from_scores import labels_from_scores
from pipeline.labeling.inputs import LabelingInputs
from pipeline.labeling.labelers import LABELERS, Labeler
from pipeline.stages.base import Stage
from tests.labeling.toy_settings import PreferenceWithToy, RecipeWithToyLabeler
from tests.stages import toy_stage


def length_stages(
    inputs: LabelingInputs, engine: Engine, compared: Compared, number: int
) -> list[Stage]:
    """Count the words of every text, then label by the difference."""
    assert isinstance(inputs.config, PreferenceWithToy)
    counts = toy_stage.LengthStage(compared, inputs.run_id)
    labels = labels_from_scores(
        inputs, counts, compared, inputs.config.length.scale, "length", number
    )
    return [counts, labels]


def describe_length(config: PreferenceConfig) -> str:
    """How length makes labels."""
    return "The longer response is preferred."


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the toy into the table of labelers and its section into the recipe."""
    toy_stage.install(patch)
    patch.setitem(LABELERS, "length", LENGTH)
    patch.setattr(recipe, "RunConfig", RecipeWithToyLabeler)


LENGTH = Labeler(length_stages, describe_length, principles=lambda config: "none")
TOY_RECIPE: dict[str, Any] = {
    "heldout": 2,
    "policy": {
        "type": "scripted",
        "script": "tests.run.scripted_world:make_engine",
        "args": {"wordy": True},
    },
    "preference": {"labeler": "length", "length": {"scale": 2.0}},
}
"""Changes to the recipe of `tests.run.builders.write_recipe`."""
