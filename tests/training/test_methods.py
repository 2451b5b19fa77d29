"""The table of methods covers every recipe section and agrees with the installed TRL."""

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.config.training import (
    DpoConfig,
    IpoConfig,
    PreferenceTrainingConfig,
    SimpoConfig,
    TrainingConfig,
)
from pipeline.training.methods import METHODS, method_of, wants_soft_labels

SECTIONS = get_args(get_args(TrainingConfig)[0])


def test_every_section_has_a_method() -> None:
    assert {section().method for section in SECTIONS} == set(METHODS)


@pytest.mark.parametrize("section", SECTIONS)
def test_arguments_fit_trl(section: Any, tmp_path: Any) -> None:
    """TRL's argument class takes what the table gives; nothing is cut, reported or evaluated."""
    from pipeline.training.worker.arguments import place, trl_arguments

    config = section(device="cpu")
    arguments = trl_arguments(config, place(config), tmp_path)
    assert arguments.report_to == [] and arguments.eval_strategy == "no"
    for name, value in method_of(config).arguments(config).items():
        assert getattr(arguments, name) == value
    if method_of(config).stable:
        assert arguments.max_length is None


def test_simpo_is_cpo_without_likelihood() -> None:
    arguments = method_of(SimpoConfig()).arguments(SimpoConfig(gamma=1.5))
    assert (arguments["loss_type"], arguments["cpo_alpha"], arguments["simpo_gamma"]) == (
        "simpo",
        0.0,
        1.5,
    )


def test_only_dpo_takes_soft_labels() -> None:
    assert wants_soft_labels(DpoConfig())
    assert not wants_soft_labels(DpoConfig(labels="hard")) and not wants_soft_labels(IpoConfig())


def test_unknown_key_names_its_path() -> None:
    with pytest.raises(ValidationError, match="dpo.betta"):
        TypeAdapter(PreferenceTrainingConfig).validate_python({"method": "dpo", "betta": 1})
