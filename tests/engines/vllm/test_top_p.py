"""The nucleus of a distribution; test_lifecycle.py compares it with vLLM's own."""

import math

import pytest
import torch

from pipeline.engines.vllm.top_p import mask_outside_nucleus


def kept(probs: list[float], p: float) -> list[int]:
    """Tokens that are left."""
    masked = mask_outside_nucleus(torch.tensor([probs]).log(), torch.tensor([p]))
    values: list[float] = masked[0].tolist()
    return [token for token, logit in enumerate(values) if logit > -math.inf]


@pytest.mark.parametrize(
    ("p", "tokens"), [(0.4, [2]), (0.6, [0, 2]), (0.9, [0, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_nucleus(p: float, tokens: list[int]) -> None:
    """0.5, 0.3, 0.15, 0.05: before them stand 0, 0.5, 0.8 and 0.95."""
    assert kept([0.3, 0.05, 0.5, 0.15], p) == tokens


def test_token_as_likely_as_the_last_one_stays() -> None:
    assert kept([0.4, 0.2, 0.2, 0.2], 0.5) == [0, 1, 2, 3]
