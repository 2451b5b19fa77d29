"""What training minimizes: cross-entropy of the learned words, and of the auxiliary marks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.pocket.encoding import Batch
from models.pocket.network import Network

AUX_WEIGHT = 0.5


def batch_loss(
    network: Network, batch: Batch, dtype: torch.dtype = torch.bfloat16
) -> dict[str, Tensor]:
    """Losses of one batch, in nats: `total` (to minimize), `words`, `verdict` (ratings too) and
    `aux` (to watch).
    """
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        hidden, middle = network(batch.ids)
        size = hidden.shape[-1]
        logits = network.logits(hidden.reshape(-1, size)[batch.rows])
        aux_logits = network.aux_head(middle.reshape(-1, size)[batch.aux_rows])
    losses = F.cross_entropy(logits.float(), batch.tokens, reduction="none")
    known = ~batch.aux.isnan()
    aux = F.binary_cross_entropy_with_logits(aux_logits.float()[known], batch.aux[known])
    mean = (losses * batch.weights).sum() / batch.weights.sum()
    with torch.no_grad():
        words = losses[~batch.is_verdict].mean()
        verdict_weights = batch.weights * batch.is_verdict
        verdict = (losses * verdict_weights).sum() / verdict_weights.sum()
    return {"total": mean + AUX_WEIGHT * aux, "words": words, "verdict": verdict, "aux": aux}
