"""The model written out plainly with einsum and loops, in the dtype of its inputs: what the fast one must equal."""

from __future__ import annotations

import torch
from torch import Tensor

from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

TINY = ModelConfig(
    vocab_size=61, d_model=24, n_layers=2, n_heads=6, n_kv_heads=2, d_head=10, d_ff=40, max_seq_len=64, rope_base=500.0
)


def tiny_model(config: ModelConfig = TINY, dtype: torch.dtype = torch.float32, seed: int = 0) -> Transformer:
    """A model whose gains are not 1, so that forgetting one shows."""
    torch.manual_seed(seed)
    model = Transformer(config, compute_dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


def random_tokens(batch: int = 2, length: int = 17, seed: int = 0) -> Tensor:
    return torch.randint(0, TINY.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def rope(x_BTNH: Tensor, positions_BT: Tensor, base: float) -> Tensor:
    half = x_BTNH.shape[-1] // 2
    out = torch.empty_like(x_BTNH)
    for i in range(half):
        angle = positions_BT.to(x_BTNH.dtype) * base ** (-i / half)
        a, b = x_BTNH[..., i], x_BTNH[..., i + half]
        cos, sin = angle.cos()[:, :, None], angle.sin()[:, :, None]
        out[..., i] = a * cos - b * sin
        out[..., i + half] = a * sin + b * cos
    return out


def attention(q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, visible_BTS: Tensor) -> Tensor:
    share = q_BTNH.shape[2] // k_BSKH.shape[2]
    k_BSNH, v_BSNH = k_BSKH.repeat_interleave(share, 2), v_BSKH.repeat_interleave(share, 2)
    scores_BNTS = torch.einsum("btnh,bsnh->bnts", q_BTNH, k_BSNH) / q_BTNH.shape[-1] ** 0.5
    scores_BNTS = scores_BNTS.masked_fill(~visible_BTS[:, None], -torch.inf)
    return torch.einsum("bnts,bsnh->btnh", scores_BNTS.softmax(-1), v_BSNH)


def forward(
    config: ModelConfig, weights: dict[str, Tensor], tokens_BT: Tensor, positions_BT: Tensor, segments_BT: Tensor
) -> Tensor:
    """Logits [B, T, V] of the model with the given dense weights (names as in `Transformer.state_dict`)."""
    same_BTS = segments_BT[:, :, None] == segments_BT[:, None]
    visible_BTS = same_BTS & (positions_BT[:, None] <= positions_BT[:, :, None])
    x = weights["embed.weight"][tokens_BT]
    batch, length = tokens_BT.shape
    for i in range(config.n_layers):
        w = {name.removeprefix(f"blocks.{i}."): value for name, value in weights.items()}
        h = norm(x, w["attention_norm.weight"], config.norm_eps)
        q = (h @ w["attention.q.weight"].T).view(batch, length, config.n_heads, config.d_head)
        k = (h @ w["attention.k.weight"].T).view(batch, length, config.n_kv_heads, config.d_head)
        v = (h @ w["attention.v.weight"].T).view(batch, length, config.n_kv_heads, config.d_head)
        q_gain, k_gain = w["attention.q_norm.weight"], w["attention.k_norm.weight"]
        if config.rope_before_norm:
            q = norm(rope(q, positions_BT, config.rope_base), q_gain, config.norm_eps)
            k = norm(rope(k, positions_BT, config.rope_base), k_gain, config.norm_eps)
        else:
            q = rope(norm(q, q_gain, config.norm_eps), positions_BT, config.rope_base)
            k = rope(norm(k, k_gain, config.norm_eps), positions_BT, config.rope_base)
        x = x + attention(q, k, v, visible_BTS).reshape(batch, length, -1) @ w["attention.o.weight"].T
        h = norm(x, w["ffn_norm.weight"], config.norm_eps)
        gate, up = h @ w["ffn.gate.weight"].T, h @ w["ffn.up.weight"].T
        x = x + (gate * torch.sigmoid(gate) * up) @ w["ffn.down.weight"].T
    return norm(x, weights["norm.weight"], config.norm_eps) @ weights["embed.weight"].T
