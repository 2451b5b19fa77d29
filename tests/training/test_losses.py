"""The preference formulas against numbers worked out by hand and against their properties."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.training.worker.trainers import soft_label_term
from tests.training.losses import (
    ipo_loss,
    kto_loss,
    orpo_log_odds,
    orpo_odds_loss,
    robust_dpo_loss,
    simpo_loss,
    soft_dpo_loss,
    soft_reward_loss,
)

GAPS = torch.linspace(-40, 40, 161, dtype=torch.float64)


def num(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def slope(gap: Tensor, p: float, beta: float) -> Tensor:
    gap = gap.clone().requires_grad_()
    soft_dpo_loss(gap, torch.full_like(gap, p), beta).sum().backward()
    assert gap.grad is not None
    return gap.grad


def test_dpo_value_by_hand() -> None:
    """Chosen -10 against -12, rejected -15 against -14: gap 2 + 1 = 3; -log s(0.3) = .554355."""
    assert soft_dpo_loss(num(3), num(1), 0.1).item() == pytest.approx(0.554355, abs=1e-6)


def test_reward_value_by_hand() -> None:
    """Scores 1.5 and 0.5, p = 0.75: ln(1 + e^-1) + 0.25 = .313262 + .25 = .563262, which is
    -.75 ln s(1) - .25 ln s(-1) = .234946 + .328316.
    """
    assert soft_reward_loss(num(1), num(0.75)).item() == pytest.approx(0.563262, abs=1e-6)


def test_best_gap_of_rewards_is_the_log_odds_of_the_label() -> None:
    """P = 0.8: the slope is zero where s(gap) = 0.8, at ln 4 = 1.386294."""
    gap = num(math.log(4)).requires_grad_()
    soft_reward_loss(gap, num(0.8)).backward()
    assert gap.grad is not None and abs(gap.grad.item()) < 1e-12


def test_constant_label_is_conservative_dpo() -> None:
    """.9 * .554355 + .1 * .854355 = .584355: one in ten labels is taken to be flipped."""
    assert soft_dpo_loss(num(3), num(0.9), 0.1).item() == pytest.approx(0.584355, abs=1e-6)


def test_equal_models_cost_log_two() -> None:
    for p in (0.5, 0.7, 1.0):
        assert soft_dpo_loss(num(0), num(p), 0.1).item() == pytest.approx(math.log(2))


def test_certain_label_is_plain_dpo() -> None:
    """At p = 1 the added term and its gradient are zero to the last bit."""
    gap = GAPS.clone().requires_grad_()
    term = soft_label_term(gap, torch.ones_like(gap), 0.1)
    term.sum().backward()
    assert torch.count_nonzero(term) == 0 and torch.count_nonzero(gap.grad) == 0
    assert torch.equal(soft_dpo_loss(GAPS, torch.ones_like(GAPS), 0.1), F.softplus(-0.1 * GAPS))


def test_soft_label_mixes_both_directions() -> None:
    p = 0.73
    mixed = p * F.softplus(-0.2 * GAPS) + (1 - p) * F.softplus(0.2 * GAPS)
    torch.testing.assert_close(soft_dpo_loss(GAPS, torch.full_like(GAPS, p), 0.2), mixed)


def test_undecided_label_is_even() -> None:
    loss = soft_dpo_loss(GAPS, torch.full_like(GAPS, 0.5), 0.1)
    torch.testing.assert_close(loss, loss.flip(0))
    assert GAPS[loss.argmin()].item() == 0


@pytest.mark.parametrize("p", [0.5, 0.6, 0.75, 0.9, 0.99])
def test_minimum_is_the_log_odds(p: float) -> None:
    beta = 0.1
    best = num(math.log(p / (1 - p)) / beta)
    assert slope(best, p, beta).item() == pytest.approx(0, abs=1e-12)
    assert slope(best - 1, p, beta).item() < 0 < slope(best + 1, p, beta).item()


def test_clamped_label_bounds_the_margin() -> None:
    """A label clamped to 0.6 cannot ask for more than beta * gap = ln 1.5 = .405465."""
    assert slope(num(0.405465 / 0.1), 0.6, 0.1).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("p", [0.5, 0.8, 1.0])
def test_gradient_is_label_minus_prediction(p: float) -> None:
    torch.testing.assert_close(slope(GAPS, p, 0.3), -0.3 * (p - torch.sigmoid(0.3 * GAPS)))


def test_extreme_gap_stays_finite() -> None:
    loss = soft_dpo_loss(torch.tensor([-1e5, 1e5]), torch.tensor([0.9, 0.9]), 0.1)
    torch.testing.assert_close(loss, torch.tensor([9e3, 1e3]))


def test_robust_loss_by_hand() -> None:
    """(.9 * .554355 - .1 * .854355) / .8 = .516855."""
    assert robust_dpo_loss(num(3), 0.1, 0.1).item() == pytest.approx(0.516855, abs=1e-6)


def test_robust_loss_is_unbiased() -> None:
    """Flipped with probability e, its mean is the loss of the true labels."""
    e = 0.1
    mean = (1 - e) * robust_dpo_loss(GAPS, 0.1, e) + e * robust_dpo_loss(-GAPS, 0.1, e)
    torch.testing.assert_close(mean, F.softplus(-0.1 * GAPS))


def test_ipo_loss_by_hand() -> None:
    """+2 over 10 tokens and -1 over 5 tokens: (.2 + .2 - 5) ** 2 = 21.16."""
    assert ipo_loss(num(2 / 10), num(-1 / 5), 0.1).item() == pytest.approx(21.16)
    assert ipo_loss(num(0), num(0), 0.1).item() == pytest.approx(25.0)


def test_kto_loss_by_hand() -> None:
    """.1 * (2 - .5) = .15 and .1 * (.5 + 1) = .15: both cost 1 - s(.15) = .462570."""
    loss = kto_loss(
        torch.tensor([2.0, -1.0]), torch.tensor([True, False]), torch.tensor(0.5), beta=0.1
    )
    torch.testing.assert_close(loss, torch.tensor([0.462570, 0.462570]), atol=1e-6, rtol=0)


def test_kto_divergence_gets_no_gradient() -> None:
    divergence = torch.tensor(0.5, requires_grad=True)
    loss = kto_loss(torch.tensor([2.0]), torch.tensor([True]), divergence, beta=0.1)
    assert not loss.requires_grad


def test_orpo_odds_by_hand() -> None:
    """Mean log-probabilities -.5 and -1: log odds .974077, -log s of it .320300."""
    assert orpo_log_odds(num(-0.5), num(-1.0)).item() == pytest.approx(0.974077, abs=1e-6)
    assert orpo_odds_loss(num(-0.5), num(-1.0), 1.0).item() == pytest.approx(0.320300, abs=1e-6)


def test_simpo_loss_by_hand() -> None:
    """Equal means and gamma 1: -log s(-1) = 1.313262."""
    assert simpo_loss(num(-2), num(-2), 2.0, 1.0).item() == pytest.approx(1.313262, abs=1e-6)
