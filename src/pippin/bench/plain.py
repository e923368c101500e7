"""A peer for the training bench: the same network in the style of nanoGPT (Karpathy), written with torch alone.

Our own writing, in the manner of that project: one small file, autocast, whole logits, torch's own attention, norm and
loss, fused AdamW. It has the shape, the parameter names and so the start of our model, and nothing of its code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pippin.model.config import ModelConfig


class CausalSelfAttention(nn.Module):
    """Grouped-query attention with norms of queries and keys, and rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.d_head = config.d_head
        self.q = nn.Linear(config.d_model, config.n_heads * config.d_head, bias=False)
        self.k = nn.Linear(config.d_model, config.n_kv_heads * config.d_head, bias=False)
        self.v = nn.Linear(config.d_model, config.n_kv_heads * config.d_head, bias=False)
        self.o = nn.Linear(config.n_heads * config.d_head, config.d_model, bias=False)
        self.q_norm = nn.RMSNorm(config.d_head, config.norm_eps)
        self.k_norm = nn.RMSNorm(config.d_head, config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (-1, self.d_head)).transpose(1, 2)

        def rotate(y: Tensor) -> Tensor:
            first, second = y.chunk(2, -1)
            return (y * cos + torch.cat((-second, first), -1) * sin).to(y.dtype)

        q, k, v = rotate(self.q_norm(heads(self.q(x)))), rotate(self.k_norm(heads(self.k(x)))), heads(self.v(x))
        y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True, enable_gqa=True)
        return self.o(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.attention = CausalSelfAttention(config)
        self.ffn_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.ffn = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))


class GPT(nn.Module):
    """The whole model; its embedding writes the logits."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, config.norm_eps)
        frequencies = config.rope_base ** -(torch.arange(0, config.d_head, 2) / config.d_head)
        angles = torch.outer(torch.arange(config.max_seq_len), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of `targets` [B, T], -100 where a position does not count."""
        x = self.embed(tokens)
        length = tokens.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        logits = F.linear(self.norm(x), self.embed.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
