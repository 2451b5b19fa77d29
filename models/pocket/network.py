"""The network while it is trained: a Llama with the parameter names of transformers, and an
auxiliary head.

Kept apart from transformers' own class only for speed on a CPU: no masks, no cache, logits at the
places that are learned. tests/models checks that both give the same logits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig


class Attention(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Causal self-attention with rotary positions."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        size, self.num_heads = config.hidden_size, config.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(size, size, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Shapes: x (batch, length, hidden), cos and sin (length, head_dim)."""
        batch, length, size = x.shape
        q, k, v = (
            proj(x).view(batch, length, self.num_heads, -1).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (part * cos + _rotate_half(part) * sin for part in (q, k))
        # Written out: for short sequences on a CPU the fused kernel's backward pass is several
        # times slower.
        scores = q.to(v.dtype) @ k.to(v.dtype).transpose(-1, -2) * q.shape[-1] ** -0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, float("-inf")).softmax(-1).to(v.dtype) @ v
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, size))


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class Mlp(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Gated feed-forward part."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape kept: (batch, length, hidden)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):  # type: ignore[misc]  # torch is not followed
    """One transformer block."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(config), Mlp(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Shape kept: (batch, length, hidden)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Network(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Llama with tied embeddings; `aux_head` reads the stream in the middle and is not exported."""

    def __init__(self, config: LlamaConfig, num_aux: int) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.aux_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.aux_head = nn.Linear(config.hidden_size, num_aux)
        self.aux_layer = config.num_hidden_layers // 2 + 1
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                depth = (
                    (2 * config.num_hidden_layers) ** 0.5
                    if name.endswith(("o_proj.weight", "down_proj.weight"))
                    else 1
                )
                nn.init.normal_(weight, std=config.initializer_range / depth)
        head_dim = config.hidden_size // config.num_attention_heads
        inverse = 1.0 / config.rope_parameters["rope_theta"] ** (
            torch.arange(0, head_dim, 2) / head_dim
        )
        angles = torch.outer(torch.arange(config.max_position_embeddings), inverse).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Final hidden states and those for the auxiliary head, both (batch, length, hidden); ids
        (batch, length).
        """
        x = self.embed_tokens(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        middle = x
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x, cos, sin)
            middle = x if index == self.aux_layer else middle
        return self.norm(x), self.aux_norm(middle)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary for hidden states (count, hidden)."""
        return F.linear(hidden, self.embed_tokens.weight)

    def exported(self) -> dict[str, Tensor]:
        """Weights under the names of transformers' LlamaForCausalLM, in bfloat16."""
        return {
            f"model.{name}": weight.detach().to(torch.bfloat16).contiguous()
            for name, weight in self.state_dict().items()
            if not name.startswith("aux_")
        }
