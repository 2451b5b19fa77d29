"""Rows joined into one sequence without padding, each still on its own.

On CUDA in bfloat16 attention is `torch.nn.attention.varlen`, which takes the ends of the rows
(`cu_seq_lens`) and computes nothing across them. On the CPU each row gets a call of SDPA of its
own. Elsewhere transformers builds a mask of blocks from the position ids, which start again at 0 in
each row: exact, and quadratic in memory.

SFT gets joined rows from TRL's collator. TRL 1.16 has no such batches for preference pairs, so
there the trainer keeps the padded batch, and `joined` turns each call of the model into one on
the joined rows and its per-token results back into padded ones: every loss of TRL stays as it is.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pipeline.errors import ConfigError

VARLEN = "varlen"
"""Name of the kernel in transformers' table of attentions."""
ROW_BY_ROW = "row_by_row"
"""Name of the attention for the CPU there."""

PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask")
"""Fields of TRL's output with one value per predicted token."""

# torch 2.11 takes fewer key heads than query heads unasked and has no such argument.
GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def varlen_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row of joined rows; SDPA for a batch that is not joined.

    Args:
        query: of shape (1, heads, tokens, width); `key` and `value` may have fewer heads.
        cu_seq_lens_q: start of each row and the end of the last, int32, of shape (rows + 1,).
        max_length_q: tokens of the longest row, or more.

    Returns:
        The output, of shape (1, tokens, heads, width).

    Raises:
        ConfigError: the model changes the attention scores in a way that this cannot.
    """
    if cu_seq_lens_q is None:
        padded: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return padded
    refuse_changed_scores(kwargs)
    device = query.device.type
    # Under autocast the rotary embedding leaves queries and keys in float32.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    query, key, value = (part[0].transpose(0, 1).to(dtype) for part in (query, key, value))
    output = varlen_attn(
        query,
        key,
        value,
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        **GROUPED,
    )
    return output[None], None


def row_by_row_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each row by itself, with the arguments, result and error of
    `varlen_attention`, whose kernel runs on GPUs alone.
    """
    if cu_seq_lens_q is None:
        padded: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return padded
    refuse_changed_scores(kwargs)
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    lengths = cu_seq_lens_q.diff().tolist()
    rows = zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
    outputs = []
    for length, (one, keys, values) in zip(lengths, rows, strict=True):
        mask = None
        if sliding_window is not None and length > sliding_window:
            ones = torch.ones(length, length, dtype=torch.bool, device=query.device)
            mask = ones.tril().triu(1 - sliding_window)
        outputs.append(
            scaled_dot_product_attention(
                one,
                keys,
                values,
                attn_mask=mask,
                dropout_p=kwargs.get("dropout", 0.0),
                is_causal=mask is None,
                scale=scaling,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def refuse_changed_scores(kwargs: Mapping[str, Any]) -> None:
    """Raises ConfigError for a model whose attention scores are more than scaled products."""
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ConfigError(
            "the attention of this model has a soft cap or sinks, which joined rows do not "
            "support; set `padding_free: false`"
        )


def varlen_mask(attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """No mask for joined rows, which come without an attention mask; SDPA's for other batches."""
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **kwargs)


AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, varlen_mask)
AttentionInterface.register(ROW_BY_ROW, row_by_row_attention)
AttentionMaskInterface.register(ROW_BY_ROW, varlen_mask)


def row_layout(lengths: Sequence[int], width: int) -> dict[str, Any]:
    """Where the tokens of padded rows are, for `joined`; computed on the CPU, with the batch.

    Args:
        lengths: tokens of each row, at the left of `width` padded columns.
    """
    rows = torch.tensor(lengths)
    positions = torch.cat([torch.arange(length) for length in lengths])
    ends = rows.cumsum(0)
    starts = torch.repeat_interleave(torch.arange(len(lengths)) * width, rows)
    return {
        "row_index": starts + positions,
        "position_ids": positions[None],
        "cu_seq_lens": torch.cat([torch.zeros(1, dtype=torch.int32), ends.to(torch.int32)]),
        "max_length": max(lengths),
    }


def joined(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model, called on padded rows with their `row_layout` and computing the joined ones.

    The call takes and returns what TRL's fused head does: per-token values of shape
    (rows, width - 1), zero where there is no label.
    """

    def call(
        *,
        input_ids: Tensor,
        labels: Tensor,
        row_index: Tensor,
        cu_seq_lens: Tensor,
        max_length: int,
        attention_mask: Tensor,
        **kwargs: Any,
    ) -> Any:
        rows, width = input_ids.shape
        # No row predicts the first token of the next.
        targets = labels.clone()
        targets[:, 0] = -100
        outputs = model(
            input_ids=input_ids.reshape(-1)[row_index][None],
            labels=targets.reshape(-1)[row_index][None],
            cu_seq_lens_q=cu_seq_lens,
            cu_seq_lens_k=cu_seq_lens,
            max_length_q=max_length,
            max_length_k=max_length,
            **kwargs,
        )
        for name in PER_TOKEN:
            values = outputs.get(name)
            if values is not None:
                padded = values.new_zeros(rows * width).index_copy(0, row_index[1:], values[0])
                outputs[name] = padded.view(rows, width)[:, 1:]
        return outputs

    return call


def prove_rows_apart(model: Any) -> None:
    """Change one of two joined rows and see that the other's logits stay the same, bit by bit.

    A layer that carries state along the sequence would mix the rows without a sign.

    Raises:
        ConfigError: they change.
    """
    device = next(model.parameters()).device
    size = model.get_input_embeddings().num_embeddings
    layout = row_layout([5, 7], 7)
    ends = layout["cu_seq_lens"].to(device)

    def second_row(first: int) -> Tensor:
        ids = torch.tensor([(first + i) % size for i in range(5)] + [i % size for i in range(7)])
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
        with torch.no_grad(), autocast:
            logits: Tensor = model(
                input_ids=ids[None].to(device),
                position_ids=layout["position_ids"].to(device),
                cu_seq_lens_q=ends,
                cu_seq_lens_k=ends,
                max_length_q=layout["max_length"],
                max_length_k=layout["max_length"],
                use_cache=False,
            ).logits
        return logits[0, 5:]

    if not torch.equal(second_row(1), second_row(size // 2)):
        raise ConfigError(
            f"in a {type(model).__name__} one row changes the results of the next when rows are "
            "joined without padding; set `padding_free: false`"
        )
