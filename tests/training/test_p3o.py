"""The loss of P3O: numbers by hand, what changes nothing, and what it shares with RLOO.

No batch and no model: a policy is a table of logits over a few replies.
"""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.training.worker.p3o import LOSSES, MOST_WEIGHT, moved_too_far
from tests.training.losses import rloo_loss

Loss = Callable[[Tensor, Tensor, float], Tensor]
FORMS = pytest.mark.parametrize("form", list(LOSSES))
# Sixteenths are exact in float32, and so are their sums.
sixteenths = st.integers(-160, 160).map(lambda number: number / 16)
pairs = st.tuples(sixteenths, sixteenths)
triples = st.lists(sixteenths, min_size=3, max_size=3)
quick = settings(max_examples=10)


def gradient(loss: Loss, ratios: Tensor, rewards: Tensor) -> Tensor:
    """Of the sum over the pairs, with respect to the log-ratios."""
    log_ratios = ratios.log().requires_grad_()
    (result,) = torch.autograd.grad(loss(log_ratios, rewards, 0.2).sum(), log_ratios)
    return result


@pytest.mark.parametrize(("form", "expected"), [("separate", 0.135), ("joint", -0.135)])
def test_a_clipped_pair(form: str, expected: float) -> None:
    """Ratios 1.5 and .9, rewards 1 and 0, clip .2: A is .5 and -.5.

    Separate: max(-.5 * .9 * 1.5, -.5 * .9 * 1.2) + .5 * 1.5 * .9 = -.54 + .675 = .135.
    Joint: u = ln(1.5 / .9) = .51 is clipped to .2, and -.5 * 1.35 * .2 = -.135.
    """
    log_ratios = torch.tensor([[1.5, 0.9]]).log()
    loss = LOSSES[form](log_ratios, torch.tensor([[1.0, 0.0]]), 0.2)
    assert loss.tolist() == pytest.approx([expected])
    swapped = LOSSES[form](log_ratios.flip(1), torch.tensor([[0.0, 1.0]]), 0.2)
    assert swapped.tolist() == pytest.approx([expected])
    moved = moved_too_far(log_ratios, 0.2, form)
    assert moved.tolist() == ([True] if form == "joint" else [[True, False]])


@FORMS
@quick
@given(rewards=st.lists(pairs, min_size=3, max_size=3), added=triples)
def test_what_is_added_to_a_prompt_changes_nothing(
    form: str, rewards: list[tuple[float, float]], added: list[float]
) -> None:
    """Loss and gradient to the last bit; rewards that are twice as large change both."""
    ratios = torch.tensor([[1.5, 0.9], [1.0, 1.0], [0.7, 1.1]])
    plain = torch.tensor(rewards)
    moved = plain + torch.tensor(added)[:, None]
    loss = LOSSES[form]
    assert torch.equal(loss(ratios.log(), plain, 0.2), loss(ratios.log(), moved, 0.2))
    assert torch.equal(gradient(loss, ratios, plain), gradient(loss, ratios, moved))
    double = gradient(loss, ratios, 2 * plain)
    torch.testing.assert_close(double, 2 * gradient(loss, ratios, plain))


@FORMS
def test_nothing_is_learned_beyond_the_clip(form: str) -> None:
    """The better reply rose by half: no gradient of it. It fell by half: it may come back."""
    rewards = torch.tensor([[1.0, 0.0]])
    risen, fallen = (
        gradient(LOSSES[form], torch.tensor([[ratio, 1.0]]), rewards)[0, 0] for ratio in (1.5, 0.5)
    )
    assert risen == 0 and fallen < 0


@FORMS
def test_a_long_reply_cannot_explode(form: str) -> None:
    """The worse reply is e^60 times as likely as when it was written."""
    loss = LOSSES[form](torch.tensor([[0.0, 60.0]]), torch.tensor([[1.0, 0.0]]), 0.2)
    assert loss.isfinite().all()
    better = gradient(LOSSES[form], torch.tensor([[1.0, math.exp(60)]]), torch.tensor([[1.0, 0.0]]))
    assert abs(better[0, 0].item()) <= 0.5 * MOST_WEIGHT


@FORMS
@quick
@given(st.lists(pairs, min_size=4, max_size=4))
def test_two_samples_are_learned_from_as_by_rloo(
    form: str, rewards: list[tuple[float, float]]
) -> None:
    """On the replies of the policy itself: -(r1 - r2) / 2 and (r1 - r2) / 2 a pair."""
    ones, values = torch.ones(4, 2), torch.tensor(rewards)

    def rloo(log_ratios: Tensor, rewards: Tensor, clip: float) -> Tensor:
        return rloo_loss(log_ratios, rewards, clip).mean(dim=1)

    expected = (values.flip(1) - values) / 2
    torch.testing.assert_close(gradient(rloo, ones, values), expected)
    torch.testing.assert_close(gradient(LOSSES[form], ones, values), expected)


def test_rloo_of_three_replies_by_hand() -> None:
    """Rewards 3, 1, 2: the others' means are 1.5, 2.5, 2, the advantages 1.5, -1.5, 0. A first
    ratio of 1.5 counts as 1.2, a second one of .5 as .8: -1.8, 1.2, 0.
    """
    loss = rloo_loss(torch.tensor([[1.5, 0.5, 2.0]]).log(), torch.tensor([[3.0, 1.0, 2.0]]), 0.2)
    torch.testing.assert_close(loss, torch.tensor([[-1.8, 1.2, 0.0]]))


@FORMS
def test_expected_gradient_is_that_of_the_policy(form: str) -> None:
    """Over all pairs of three replies: -grad of sum_a pi_a r_a."""
    rewards = torch.tensor([1.0, -0.5, 0.25])
    logits = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
    logps = logits.log_softmax(dim=0)
    both = torch.tensor(list(product(range(3), repeat=2)))
    chances = logps.detach().exp()[both].prod(dim=1)
    losses = LOSSES[form]((logps - logps.detach())[both], rewards[both], 0.2)
    (found,) = torch.autograd.grad((chances * losses).sum(), logits, retain_graph=True)
    (exact,) = torch.autograd.grad(-(logps.exp() * rewards).sum(), logits)
    torch.testing.assert_close(found, exact)


@FORMS
def test_a_bandit_finds_its_optimum(form: str) -> None:
    """Pi is proportional to pi_ref exp(r / beta), with the log-ratio in the reward."""
    rewards, beta = torch.tensor([1.0, 0.0, 0.5]), 0.5
    reference = torch.tensor([0.2, 0.5, 0.3]).log()
    both = torch.tensor(list(product(range(3), repeat=2)))
    logits = reference.clone().requires_grad_()
    for _ in range(100):
        logps = logits.log_softmax(dim=0)
        old = logps.detach()
        values = rewards - beta * (old - reference)
        losses = LOSSES[form]((logps - old)[both], values[both], 0.2)
        (slope,) = torch.autograd.grad((old.exp()[both].prod(dim=1) * losses).sum(), logits)
        logits.data -= 3.0 * slope
    best = (reference + rewards / beta).softmax(dim=0)
    torch.testing.assert_close(logits.softmax(dim=0), best, atol=1e-4, rtol=0)
