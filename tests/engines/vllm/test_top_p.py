"""The nucleus of a distribution; test_lifecycle.py compares it with vLLM's own."""


import pytest
import torch

from pipeline.engines.vllm.top_p import mask_outside_nucleus


def kept(probs: list[float], p: float) -> list[int]:
    """Tokens that are left."""
    logits = torch.tensor([probs]).log()
    return (
        torch.isfinite(mask_outside_nucleus(logits, torch.tensor([p])))[0].nonzero()[:, 0].tolist()
    )


@pytest.mark.parametrize(
    ("p", "tokens"), [(0.4, [2]), (0.6, [0, 2]), (0.9, [0, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_nucleus(p: float, tokens: list[int]) -> None:
    """0.5, 0.3, 0.15, 0.05: before them stand 0, 0.5, 0.8 and 0.95."""
    assert kept([0.3, 0.05, 0.5, 0.15], p) == tokens


def test_token_as_likely_as_the_last_one_stays() -> None:
    assert kept([0.4, 0.2, 0.2, 0.2], 0.5) == [0, 1, 2, 3]
