"""Which points a sweep has, and which of them is chosen."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.report.choice import Choice
from pipeline.stats import Estimate
from pipeline.sweep.page import Outcome, judge_points, sweep_table
from pipeline.sweep.points import read_points


def recipe(train: dict[str, Any] | None = None) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "small",
            "constitution": "constitutions/balanced.yaml",
            "prompts": {"train": ["prompts.jsonl"]},
            "policy": {"type": "vllm", "model": "models/pocket"},
            "preference": {"train": train},
        }
    )


DPO = {"method": "dpo", "labels": "hard", "learning_rate": 1e-4}


def test_every_combination_is_a_point_once() -> None:
    points = read_points(recipe(DPO), ["beta=0.1,0.5", "constitution=a.yaml,b.yaml"])
    assert [p.title for p in points] == [
        "beta=0.1, constitution=a.yaml",
        "beta=0.1, constitution=b.yaml",
        "beta=0.5, constitution=a.yaml",
        "beta=0.5, constitution=b.yaml",
    ]
    assert points[1].overrides == ("preference.train.beta=0.1", "constitution=b.yaml")


def test_another_method_keeps_the_fields_that_it_has() -> None:
    """`labels` is of DPO, and `rft` has no beta: one point of it."""
    points = read_points(recipe(DPO), ["method=dpo,ipo,rft", "beta=0.1,0.5"])
    assert [p.title for p in points] == [
        "method=dpo, beta=0.1",
        "method=dpo, beta=0.5",
        "method=ipo, beta=0.1",
        "method=ipo, beta=0.5",
        "method=rft",
    ]
    assert points[2].overrides == (
        'preference.train={"method": "ipo", "learning_rate": 0.0001}',
        "preference.train.beta=0.1",
    )
    assert points[0].overrides == ("preference.train.beta=0.1",)


def test_the_weight_of_another_term_is_not_taken_over() -> None:
    """Beta of DPO is that of IPO, but SimPO's scales a margin, and ORPO's weighs a loss."""
    points = read_points(recipe(DPO | {"beta": 0.3}), ["method=ipo,simpo,orpo"])
    assert ["beta" in point.overrides[0] for point in points] == [True, False, False]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (["betta=1"], r"--over 'betta=1' does not name a field with values; write beta, method"),
        (["beta"], "does not name a field with values"),
        (["beta=0.1,"], "does not name a field with values"),
        (["beta=0.1", "beta=0.2"], "names 'beta' twice"),
        (["beta=0.1", "preference.train.beta=0.2"], r"names 'preference\.train\.beta' twice"),
        (["method=ppo"], "there is no 'ppo'; the methods are dpo"),
        (["rounds=1,2"], "a point of a sweep is one run; leave `rounds` out"),
        (["method=rft", "beta=0.1"], "--over beta: no method of the sweep has this field"),
    ],
)
def test_a_wrong_field_is_one_line(over: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_points(recipe(DPO), over)


def test_a_recipe_without_training_has_no_beta() -> None:
    with pytest.raises(ConfigError, match=r"changes preference.train, which the recipe does not"):
        read_points(recipe(), ["beta=0.1"])


def point(name: str, share: float, low: float, divergence: float | None, *alarms: str) -> Outcome:
    shares = {"good": Estimate(share, low, 1.0, 10)}
    trained = Choice("tuned", name, "dpo", shares, divergence=divergence, alarms=alarms)
    return Outcome(name, {}, name, trained=trained)


def test_the_chosen_point_is_on_the_frontier() -> None:
    """Worse and farther than `near` is `far`; `best` is farther and better; `loud` has an alarm."""
    measure, points = judge_points(
        [
            Outcome("broken", {}, "broken", "the loss is nan"),
            point("near", 0.6, 0.5, 0.1),
            point("far", 0.5, 0.4, 0.2),
            point("best", 0.8, 0.7, 0.3),
            point("loud", 0.9, 0.8, 2.0, "divergence"),
        ]
    )
    assert measure == "good"
    assert [p.title for p in points if p.on_frontier] == ["near", "best", "loud"]
    assert [p.title for p in points if p.chosen] == ["best"]
    assert judge_points([Outcome("broken", {}, "broken")])[0] == ""


def test_divergence_that_was_not_measured_beats_none() -> None:
    """It may be any: the point is on the frontier for its share alone."""
    _, points = judge_points([point("near", 0.6, 0.5, 0.1), point("unknown", 0.6, 0.5, None)])
    assert [p.title for p in points if p.on_frontier] == ["near"]
    _, points = judge_points([point("near", 0.6, 0.5, 0.1), point("unknown", 0.7, 0.5, None)])
    assert [p.title for p in points if p.on_frontier] == ["near", "unknown"]
    assert [p.title for p in points if p.chosen] == ["near"]


def test_policies_that_points_begin_with_are_rows_once() -> None:
    """SFT beside RFT and DPO; a point with another SFT policy has a row for its own."""
    initial = Choice("initial", "a", shares={"good": Estimate(0.4, 0.3, 0.5, 10)})
    sft, other = (Choice("sl_cai", f, "sft", divergence=0.25) for f in ("b", "c"))
    rft, dpo = (replace(point(n, 0.5, 0.4, 0.1), before=(initial, sft)) for n in ("rft", "dpo"))
    assert [str(row["point"]) for row in sweep_table([rft, dpo]).rows] == [
        "Initial",
        "SL-CAI, sft",
        "rft",
        "dpo",
    ]
    rows = sweep_table([rft, replace(dpo, before=(initial, other))]).rows
    assert [row["point"] for row in rows][1:3] == ["SL-CAI, sft of rft", "SL-CAI, sft of dpo"]
    assert [row["good answers"] for row in rows][:2] == ["40\u00a0% (30 to 50\u00a0%)", "–"]
