"""The win rate that a policy would have if its replies were as long as the other's.

In:  outcomes of comparisons by prompt, each with the difference of the two lengths
Out: a share with its 95 % interval, clustered by prompt

A judge that prefers the longer reply lifts the win rate of a policy that became wordy. As in
length-controlled AlpacaEval (Dubois et al. 2024, arXiv:2404.04475), a logistic regression

    P(win) = sigmoid(a + b tanh(difference / its standard deviation))

is fitted, and sigmoid(a) is the win rate at equal lengths. The prior b ~ N(0, 9) keeps the fit
finite where the longer reply always wins. Where one side is always the longer, no comparison says
what happens at equal lengths: a and b cannot be told apart, and there is no figure.

Does not: correct for other habits that a judge likes, such as lists.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.soft_labels import sigmoid
from pipeline.stats import Estimate, t95

STEPS = 50
"""Newton steps; a handful is enough for a concave function of two numbers."""


def length_controlled(prompts: Sequence[Sequence[tuple[float, float]]]) -> Estimate | None:
    """The win rate at equal lengths; None for fewer than two prompts, when all outcomes are equal,
    which no regression explains, and when all replies of one side are longer.

    Args:
        prompts: per prompt, pairs of an outcome in [0, 1] and words of the policy's reply minus
            those of the other one.
    """
    prompts = [pairs for pairs in prompts if pairs]
    outcomes = np.array([outcome for pairs in prompts for outcome, _ in pairs])
    differences = np.array([words for pairs in prompts for _, words in pairs], dtype=float)
    overlap = differences.size and differences.min() <= 0 <= differences.max()
    if len(prompts) < 2 or not overlap or float(np.ptp(outcomes)) == 0:
        return None
    spread = float(differences.std())
    lengths = np.tanh(differences / spread) if spread else np.zeros_like(differences)
    design = np.stack([np.ones_like(lengths), lengths], axis=1)
    weights = np.zeros(2)
    prior = np.diag([0.0, 1 / 9])
    for _ in range(STEPS):
        fitted = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (outcomes - fitted) - prior @ weights
        weights = weights + np.linalg.solve(_curvature(design, fitted) + prior, slope)
    fitted = 1 / (1 + np.exp(-design @ weights))
    bread = np.linalg.inv(_curvature(design, fitted) + prior)
    owner = np.repeat(np.arange(len(prompts)), [len(pairs) for pairs in prompts])
    scores = np.zeros((len(prompts), 2))
    np.add.at(scores, owner, design * (outcomes - fitted)[:, None])
    m = len(prompts)
    variance = (bread @ (scores.T @ scores) @ bread)[0, 0] * m / (m - 1)
    reach = t95(m - 1) * math.sqrt(max(float(variance), 0.0))
    center = float(weights[0])
    return Estimate(
        sigmoid(center), sigmoid(center - reach), sigmoid(center + reach), len(outcomes)
    )


def _curvature(design: NDArray[np.float64], fitted: NDArray[np.float64]) -> NDArray[np.float64]:
    curvature: NDArray[np.float64] = design.T @ (design * (fitted * (1 - fitted))[:, None])
    return curvature
