"""Pairwise proximal policy optimization (Wu et al. 2023, arXiv:2310.00212): the loss of a pair.

Only the difference of the two rewards counts, so what is added to all rewards of a prompt changes
nothing: a reward model learned from comparisons says no more than that. While the policy is still
the one that wrote the replies, either form has the gradient
-(r1 - r2) / 2 * grad(log pi(y1) - log pi(y2)), which is that of RLOO with two samples.

Both forms take, for `pairs` pairs:

    log_ratios  log pi(y) - log pi_old(y) of whole replies, in nats, of shape (pairs, 2)
    rewards     score - beta * (log pi_old(y) - log pi_ref(y)), of shape (pairs, 2)
    clip        how far a ratio may move, in (0, 1)

and return losses of shape (pairs,). A weight without a gradient is at most `MOST_WEIGHT`: the ratio
of a long reply can be anything.
"""

import torch
from torch import Tensor

MOST_WEIGHT = 10.0
"""Largest ratio by which a gradient is multiplied."""


def separate_loss(log_ratios: Tensor, rewards: Tensor, clip: float) -> Tensor:
    """The paper's V1: the sum over both replies i, with the other one j, of
    max(-A_i rho_j rho_i, -A_i rho_j clip(rho_i, 1 - clip, 1 + clip)), where A_i = (r_i - r_j) / 2
    and rho_j has no gradient.
    """
    ratios = log_ratios.exp()
    weights = (rewards.flip(1) - rewards) / 2 * _weight(ratios.flip(1))
    clipped = ratios.clamp(1 - clip, 1 + clip)
    return torch.maximum(weights * ratios, weights * clipped).sum(dim=1)


def joint_loss(log_ratios: Tensor, rewards: Tensor, clip: float) -> Tensor:
    """The paper's V2: max(-A w u, -A w clip(u, -clip, clip)) with u = log rho_1 - log rho_2,
    A = (r_1 - r_2) / 2, and w = rho_1 rho_2 without a gradient.
    """
    gap = log_ratios[:, 0] - log_ratios[:, 1]
    weight = (rewards[:, 1] - rewards[:, 0]) / 2 * _weight(log_ratios.sum(dim=1).exp())
    return torch.maximum(weight * gap, weight * gap.clamp(-clip, clip))


def moved_too_far(log_ratios: Tensor, clip: float, form: str) -> Tensor:
    """Which ratios lie outside of what is learned from: of shape (pairs, 2), or (pairs,) for the
    joint form.
    """
    if form == "joint":
        return (log_ratios[:, 0] - log_ratios[:, 1]).abs() > clip
    return (log_ratios.exp() - 1).abs() > clip


LOSSES = {"separate": separate_loss, "joint": joint_loss}
"""The forms by the name that a recipe gives them."""


def _weight(ratio: Tensor) -> Tensor:
    return ratio.detach().clamp(max=MOST_WEIGHT)
