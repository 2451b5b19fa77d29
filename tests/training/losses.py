"""The formula of each preference method, free of trainers, models and batches.

Notation: log pi(y|x) is a sum over the tokens of the reply; a log-ratio is log pi - log pi_ref;
`gap` is the log-ratio of the chosen reply minus that of the rejected one, in nats; a mean is a
log-probability divided by the number of reply tokens. Every tensor has shape (batch,), and so
has every loss: the trainers take the mean over the batch.

They state what TRL computes, so that the tests hold its trainers to the published formulas.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.training.worker.trainers import soft_label_term


def soft_dpo_loss(gap: Tensor, soft_label: Tensor, beta: float) -> Tensor:
    """DPO (Rafailov et al. 2023, eq. 7) with P(chosen preferred) = `soft_label` in [0, 1].

    The gradient with respect to `gap` is -beta (p - s(beta gap)); the minimum is where
    beta * gap = log(p / (1 - p)). A constant p = 1 - e is conservative DPO with flip rate e.
    """
    return F.softplus(-beta * gap) + soft_label_term(gap, soft_label, beta)


def soft_reward_loss(gap: Tensor, soft_label: Tensor) -> Tensor:
    """The loss of a reward model (Bradley and Terry 1952; Ouyang et al. 2022, eq. 1) with P(chosen
    preferred) = `soft_label`, for a difference of two scores; the minimum is where
    gap = log(p / (1 - p)).
    """
    return F.softplus(-gap) + soft_label_term(gap, soft_label, beta=1.0)


def robust_dpo_loss(gap: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO (Chowdhury et al. 2024, eq. 12) for a flip rate in [0, 0.5).

    Unbiased: under flips at that rate its expected value is the clean DPO loss.
    """
    kept, flipped = F.softplus(-beta * gap), F.softplus(beta * gap)
    return ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def ipo_loss(chosen_mean_ratio: Tensor, rejected_mean_ratio: Tensor, tau: float) -> Tensor:
    """IPO (Azar et al. 2023, eq. 17) on log-ratios per token, as TRL and the authors do."""
    return (chosen_mean_ratio - rejected_mean_ratio - 1 / (2 * tau)) ** 2


def kto_loss(
    log_ratio: Tensor, desirable: Tensor, divergence: Tensor, beta: float, weight: float = 1.0
) -> Tensor:
    """KTO (Ethayarajh et al. 2024, eq. 8) for single replies.

    Args:
        log_ratio: of each reply, in nats.
        desirable: boolean; False for a reply that should become rarer.
        divergence: estimate z0 >= 0 of the divergence from the reference; no gradient.
        beta: scale of the reward.
        weight: lambda of the side that the reply is on.
    """
    reward, origin = beta * log_ratio, beta * divergence.detach()
    signed = torch.where(desirable, reward - origin, origin - reward)
    return weight * (1 - torch.sigmoid(signed))


def orpo_log_odds(chosen_mean: Tensor, rejected_mean: Tensor) -> Tensor:
    """Log odds ratio of two mean log-probabilities (Hong et al. 2024, eq. 4 and 7)."""
    return _log_odds(chosen_mean) - _log_odds(rejected_mean)


def orpo_odds_loss(chosen_mean: Tensor, rejected_mean: Tensor, beta: float) -> Tensor:
    """ORPO's second term, -beta log s(log odds ratio); the first is the chosen reply's NLL."""
    return beta * F.softplus(-orpo_log_odds(chosen_mean, rejected_mean))


def simpo_loss(chosen_mean: Tensor, rejected_mean: Tensor, beta: float, gamma: float) -> Tensor:
    """SimPO (Meng et al. 2024, eq. 6) with an absolute target margin `gamma`."""
    return F.softplus(gamma - beta * (chosen_mean - rejected_mean))


def rloo_loss(log_ratios: Tensor, rewards: Tensor, clip: float) -> Tensor:
    """RLOO (Ahmadian et al. 2024, eq. 8) with the ratio of whole replies clipped as in PPO.

    Args:
        log_ratios: log pi - log pi_old of whole replies, in nats, of shape (prompts, samples).
        rewards: score - beta * (log pi_old - log pi_ref), of that shape.

    Returns:
        Losses of that shape; the mean of the others' rewards is the baseline of each.
    """
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    ratios = log_ratios.exp()
    clipped = ratios.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratios * (rewards - others), clipped * (rewards - others))


def _log_odds(mean: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(mean), without forming p where it is close to 1."""
    return mean - torch.log(-torch.expm1(mean))
