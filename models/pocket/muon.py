"""Muon: momentum whose update is made orthogonal, for matrices (Jordan 2024,
kellerjordan.github.io/posts/muon).

The same steps as torch.optim.Muon, in float32: that one multiplies in bfloat16, which takes four
times as long on a CPU without bfloat16 instructions, as long as the rest of a training step of the
pocket model.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz step that brings singular values near 1 in few rounds."""


class Muon(torch.optim.Optimizer):  # type: ignore[misc]  # torch is not followed
    """Orthogonalized Nesterov momentum; every parameter is a matrix."""

    def __init__(
        self,
        matrices: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        rounds: int = 4,
    ) -> None:
        super().__init__(
            matrices,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "rounds": rounds},
        )

    @torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not followed
    def step(self) -> None:
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in (m for m in group["params"] if m.grad is not None):
                state = self.state[matrix]
                mean = state.setdefault("mean", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalize(matrix.grad.lerp(mean, group["momentum"]), group["rounds"])
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                # Tall matrices get a larger step, so that outputs move as far as those of a square
                # one.
                matrix.add_(
                    update, alpha=-group["lr"] * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                )


def orthogonalize(matrix: Tensor, rounds: int) -> Tensor:
    """The matrix with its singular values brought near 1 (0.5 to 1.5); shape (rows, columns),
    kept.
    """
    a, b, c = QUINTIC
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(rounds):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
