"""The threshold of `pair.max_error`, by hand and by simulation."""

import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.labeling import PairConfig
from pipeline.errors import ConfigError
from pipeline.labeling.known_labels import KnownLabel, bound_error, needed, upper_bound


def pair(max_error: float = 0.1, **fields: Any) -> PairConfig:
    return PairConfig(max_error=max_error, known_labels=Path("known.json"), **fields)


def known(labels: list[float], agree: bool = True) -> list[KnownLabel]:
    # Not validated: the simulation makes 400,000.
    make = KnownLabel.model_construct
    return [
        make(prompt_id=f"p{n}", label=label, orders_agree=agree) for n, label in enumerate(labels)
    ]


def draw(rng: random.Random, n: int, *, flat: bool = False) -> list[float]:
    """A judge whose errors rise from 0 at 1 to half at 0.5; `flat`: 11 % at every confidence."""
    labels = []
    for _ in range(n):
        sure = rng.uniform(0.5, 1)
        wrong = rng.random() < (0.11 if flat else 1 - sure)
        labels.append(1 - sure if wrong else sure)
    return labels


def test_bound_without_errors_is_the_root() -> None:
    """1 - 0.1^(1/30) = 0.0739; with one error of 10 the root of p in
    (1 - p)^10 + 10 p (1 - p)^9 = 0.1 is 0.3368.
    """
    assert upper_bound(0, 30, 0.9) == pytest.approx(0.0739, abs=5e-5)
    assert upper_bound(1, 10, 0.9) == pytest.approx(0.3368, abs=5e-5)
    assert upper_bound(10, 10, 0.9) == 1.0


def test_number_needed_is_the_least_that_passes() -> None:
    assert needed(0.05, 0.9) == 45
    assert upper_bound(0, 45, 0.9) <= 0.05 < upper_bound(0, 44, 0.9)


def test_a_judge_that_is_always_right_keeps_everything() -> None:
    bound = bound_error(known([0.9] * 100), pair(0.1))
    assert bound.kept == bound.tested and bound.errors == 0 and bound.coverage == 1.0
    assert bound.least_label == 0.5
    assert bound.upper_bound == pytest.approx(1 - 0.1 ** (1 / bound.tested))


def test_labels_below_the_threshold_are_the_unsure_ones() -> None:
    """Right above 0.8, a coin below: the threshold lies in the gap."""
    labels = [0.95] * 200 + [0.6, 0.4] * 100
    random.Random(0).shuffle(labels)
    bound = bound_error(known(labels), pair(0.05))
    assert bound.least_label == 0.95 and bound.errors == 0
    assert 0.35 < bound.coverage < 0.65


@pytest.mark.parametrize("flat", [False, True])
def test_error_exceeds_the_bound_no_more_often_than_stated(flat: bool) -> None:
    """True errors of 200 draws of 1,000 known labels.

    At or above a threshold t the rising judge errs in (1 - t) / 2; the flat one may never pass.
    """
    rng, max_error, over, refused = random.Random(7), 0.1, 0, 0
    for _ in range(200):
        try:
            bound = bound_error(known(draw(rng, 1000, flat=flat)), pair(max_error))
        except ConfigError:
            refused += 1
            continue
        true_error = 0.11 if flat else (1 - bound.least_label) / 2
        over += true_error > max_error
    # 0.1 is stated; two standard deviations of a share of 200 are 0.04.
    assert over / 200 <= 0.14
    assert flat or refused < 40


def test_a_coin_is_refused_by_name_of_what_helps() -> None:
    rng = random.Random(1)
    labels = [rng.choice((0.9, 0.1)) for _ in range(500)]
    with pytest.raises(ConfigError, match=r"no label is sure enough.*better judge"):
        bound_error(known(labels), pair(0.1))


def test_too_few_labels_are_refused_with_the_number_needed() -> None:
    """Ln 0.1 / ln 0.95 = 44.9; 45 / 0.8 = 56.25."""
    with pytest.raises(ConfigError, match=r"needs about 57 known labels.*has 20 "):
        bound_error(known([0.9] * 20), pair(0.05))


def test_one_comparison_of_a_context_counts() -> None:
    repeated = [KnownLabel(prompt_id="same", label=0.9, orders_agree=True) for _ in range(1000)]
    with pytest.raises(ConfigError, match="has 1 that could become pairs"):
        bound_error(repeated, pair(0.1))


def test_conditions_of_the_recipe_hold_for_known_labels_too() -> None:
    """Comparisons that could be no pair say nothing about pairs."""
    sure, torn = known([0.9] * 100), known([0.1] * 100, agree=False)
    both = [*sure, *(x.model_copy(update={"prompt_id": "t" + x.prompt_id}) for x in torn)]
    bound = bound_error(both, pair(0.1, require_orders_agree=True))
    assert bound.errors == 0 and bound.tested < 101
    with pytest.raises(ConfigError, match="no label is sure enough"):
        bound_error(both, pair(0.1))


def test_bound_and_labels_belong_together() -> None:
    for fields in ({"max_error": 0.1}, {"known_labels": "x.json"}):
        with pytest.raises(ValueError, match="belong together"):
            PairConfig.model_validate(fields)
