"""The table of methods covers every recipe section and agrees with the installed TRL."""

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.config.training import (
    DpoConfig,
    IpoConfig,
    PreferenceTrainingConfig,
    RewardModelTrainingConfig,
    SimpoConfig,
    TrainingConfig,
    takes_feedback,
)
from pipeline.training.job import RowCounts
from pipeline.training.worker.arguments import place, trl_arguments
from pipeline.training.worker.methods import METHODS, method_of

SECTIONS = get_args(get_args(TrainingConfig)[0])
ROWS = RowCounts(read=0)


def test_every_section_has_a_method() -> None:
    assert {section().method for section in SECTIONS} == set(METHODS)


@pytest.mark.parametrize("section", SECTIONS)
def test_arguments_fit_trl(section: Any, tmp_path: Any) -> None:
    """TRL's argument class takes what the table gives; nothing is cut, reported or evaluated."""
    config = section(device="cpu")
    arguments = trl_arguments(config, ROWS, place(config), tmp_path)
    assert arguments.report_to == [] and arguments.eval_strategy == "no"
    for name, value in method_of(config).arguments(config, ROWS).items():
        assert getattr(arguments, name) == value
    if method_of(config).stable and not config.learns_online:
        assert arguments.max_length is None


def test_simpo_is_cpo_without_likelihood() -> None:
    arguments = method_of(SimpoConfig()).arguments(SimpoConfig(gamma=1.5), ROWS)
    assert (arguments["loss_type"], arguments["cpo_alpha"], arguments["simpo_gamma"]) == (
        "simpo",
        0.0,
        1.5,
    )


def test_dpo_and_reward_models_take_soft_labels() -> None:
    soft = [DpoConfig(), RewardModelTrainingConfig()]
    hard = [DpoConfig(labels="hard"), RewardModelTrainingConfig(labels="hard"), IpoConfig()]
    assert [method_of(c).soft_labels(c) for c in (*soft, *hard)] == [True, True] + [False] * 3


def test_only_a_reward_model_is_no_policy() -> None:
    assert [s().method for s in SECTIONS if not s.trains_policy] == ["reward_model"]
    assert [name for name, method in METHODS.items() if method.scores] == ["reward_model"]


def test_online_methods_have_prompts_alone() -> None:
    online = [s().method for s in SECTIONS if s.learns_online]
    assert online == [name for name, m in METHODS.items() if m.shape == "prompts"]
    assert online == ["rloo", "p3o"]


def test_only_kto_takes_feedback() -> None:
    assert [name for name in METHODS if takes_feedback(name)] == ["kto"]


def test_unknown_key_names_its_path() -> None:
    with pytest.raises(ValidationError, match=r"dpo.betta"):
        TypeAdapter(PreferenceTrainingConfig).validate_python({"method": "dpo", "betta": 1})
