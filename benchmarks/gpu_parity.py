"""Soft-label DPO on joined rows against the formula in float64: loss and gradients."""

import math
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu_meter import Size, report
from benchmarks.gpu_models import LLAMA, TINY, llama, our_trainer, pairs

BETA = 0.1


def parity(size: Size) -> None:
    """Loss and gradients of joined rows with soft labels against a plain formula in float64."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (
        TINY
        if size.dry
        else {
            **LLAMA,
            "hidden_size": 512,
            "intermediate_size": 1024,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
        }
    )
    columns = pairs(8, shape["vocab_size"], 2, 0.1 if size.dry else 1.0)
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            result = parity_of(dtype, shape, columns, Path(folder), device)
        report("parity", dtype, result)


def parity_of(
    dtype: str, shape: dict[str, Any], columns: dict[str, list[Any]], folder: Path, device: str
) -> dict[str, Any]:
    """One number format: the policy is moved away from the reference, then one loss is compared."""
    import torch
    import torch.nn.functional as F

    from pipeline.config.training import DpoConfig

    def model_of(weights: Any, attention: str) -> Any:
        return llama(shape, weights, attention, device)

    config = DpoConfig(batch_size=8, padding_free=True, dtype=dtype, beta=BETA, device=device)
    trainer = our_trainer(model_of, config, columns, folder)
    model = trainer.model
    generator = torch.Generator(device).manual_seed(4)
    rows = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]

    def loss_of() -> Any:
        batch = trainer._prepare_inputs(trainer.data_collator(rows))
        with trainer.accelerator.autocast():
            return trainer.compute_loss(model, batch)

    first = loss_of().item()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 2e-3 * torch.randn(parameter.shape, generator=generator, device=device)
    loss = loss_of()
    loss.backward()
    double = llama(shape, torch.float64, "eager", device)
    double.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    losses = []
    for row in rows:
        gap = torch.zeros((), dtype=torch.float64, device=device)
        for side, sign in (("chosen", 1), ("rejected", -1)):
            start = len(row["prompt_ids"])
            ids = torch.tensor([row["prompt_ids"] + row[f"{side}_ids"]], device=device)
            logps = double(ids, use_cache=False).logits[0, :-1].log_softmax(-1)
            total = logps.gather(1, ids[0, 1:, None])[start - 1 :].sum()
            gap = gap + sign * (total - row[f"ref_{side}_logps"])
        p, z = row["soft_label"], BETA * gap
        losses.append(-p * F.logsigmoid(z) - (1 - p) * F.logsigmoid(-z))
    expected = torch.stack(losses).mean()
    expected.backward()
    grads = [
        (a.grad.double(), b.grad)
        for a, b in zip(model.parameters(), double.parameters(), strict=True)
    ]
    error = math.sqrt(sum(float((a - b).square().sum()) for a, b in grads))
    norm = math.sqrt(sum(float(b.square().sum()) for _, b in grads))
    return {
        "first_loss": round(first, 6),
        "first_loss_minus_log_2": float(f"{first - math.log(2):.2e}"),
        "loss": round(loss.item(), 6),
        "loss_float64": round(expected.item(), 6),
        "gradient_error": float(f"{error / norm:.2e}"),
    }
