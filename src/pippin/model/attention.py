"""Grouped-query attention; one description of what is visible, one function that picks the kernel."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pippin.model.blocked_attention import blocked_attention
from pippin.model.cache import KVCache
from pippin.model.config import ModelConfig
from pippin.model.linear import Linear
from pippin.model.norm import RMSNorm
from pippin.model.prepacked import Joined, join
from pippin.model.rope import rope_tables, rotate

MAX_BLOCKED = 2048


@dataclass(frozen=True)
class Layout:
    """What all layers of one forward pass share: the rotation of the new tokens, and who sees whom.

    A query sees a key if both have the same segment and the key's position is not above the query's.
    `bias_B1TS` says so additively (0 or -inf); None means that the rule needs no mask: plain causal if `causal`,
    else every key (one new token on a plain cache).
    """

    cos: Tensor
    sin: Tensor
    causal: bool
    bias_B1TS: Tensor | None
    cache: KVCache | None


def make_layout(
    config: ModelConfig,
    tokens_BT: Tensor,
    positions_BT: Tensor | None,
    segment_ids_BT: Tensor | None,
    cache: KVCache | None,
    dtype: torch.dtype,
) -> Layout:
    """Describe a forward pass over `tokens_BT`, and claim its slots in the cache if there is one.

    Without positions a token's position is its place in the row (after what the cache holds); without segments each
    row is one document. Given positions must rise within a document.
    """
    length = tokens_BT.shape[1]
    start = cache.length if cache is not None else 0
    positions = positions_BT
    if positions is None:
        positions = torch.arange(start, start + length, device=tokens_BT.device)
    scaling = astuple(config.rope_scaling) if config.rope_scaling is not None else None
    cos, sin = rope_tables(positions, config.d_head, config.rope_base, scaling)
    if cache is not None:
        cache.append(positions, segment_ids_BT, plain=positions_BT is None and segment_ids_BT is None)
    if segment_ids_BT is None and (cache is None or cache.plain):
        if start == 0:
            return Layout(cos, sin, True, None, cache)
        if length == 1:
            return Layout(cos, sin, False, None, cache)
    if cache is not None:
        key_positions = cache.positions_BS[:, : cache.length]
        key_segments = cache.segments_BS[:, : cache.length]
        query_segments = key_segments[:, start:] if segment_ids_BT is None else segment_ids_BT
    else:
        assert segment_ids_BT is not None  # the two cases without segments have returned
        key_positions, key_segments, query_segments = positions, segment_ids_BT, segment_ids_BT
    hidden = key_positions[..., None, :] > positions[..., :, None]
    hidden = hidden | (key_segments[:, None, :] != query_segments[:, :, None])
    bias_BTS = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
    return Layout(cos, sin, False, bias_BTS[:, None], cache)


def attend(q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, layout: Layout) -> Tensor:
    """softmax(q k^T / sqrt(d_head)) v over the visible keys, each key/value head serving N / K query heads.

    PyTorch's fused kernel (without a mask it skips the hidden half of a causal square), except for training in 16 bits
    on a CPU, where `blocked_attention` is two to four times as fast up to MAX_BLOCKED tokens.

    Returns:
        [B, T, N, H] in q's dtype.
    """
    if layout.cache is None and _blocked_is_faster(q_BTNH):
        return blocked_attention(q_BTNH, k_BSKH, v_BSKH, layout.bias_B1TS)
    q, k, v = q_BTNH.transpose(1, 2), k_BSKH.transpose(1, 2), v_BSKH.transpose(1, 2)
    if q.shape[2] == 1 and not layout.causal and q.shape[1] != k.shape[1]:
        # One new token: the queries that share a key/value head stand in line, so that it is read once for them.
        q_BKGH = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])
        return F.scaled_dot_product_attention(q_BKGH, k, v, attn_mask=layout.bias_B1TS).reshape(q_BTNH.shape)
    if layout.bias_B1TS is not None and q.is_cuda and q.shape[1] != k.shape[1]:
        # CUDA's memory-efficient kernel takes a mask but no grouped heads.
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=layout.bias_B1TS, is_causal=layout.causal, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out.transpose(1, 2)


def _blocked_is_faster(q_BTNH: Tensor) -> bool:
    on_cpu_in_16_bits = q_BTNH.device.type == "cpu" and q_BTNH.dtype.itemsize == 2
    return on_cpu_in_16_bits and torch.is_grad_enabled() and q_BTNH.requires_grad and q_BTNH.shape[1] <= MAX_BLOCKED


class Attention(nn.Module):
    """Attention sublayer: q, k, v projections, QK norm and RoPE, kernel, output projection (report section 2).

    With `qk_norm` "width" a norm covers all heads of a projection, with "none" there is no norm.
    While `Transformer.unchanging` is open, `joined` makes q, k and v at once, with one norm for all heads of q and k.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.d_head = config.d_head
        self.rope_before_norm = config.rope_before_norm
        q_width, kv_width = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        bias = config.qkv_bias
        self.q = Linear(config.d_model, q_width, mup_width=config.d_model, shard="column", bias=bias)
        self.k = Linear(config.d_model, kv_width, mup_width=config.d_model, shard="column", bias=bias)
        self.v = Linear(config.d_model, kv_width, mup_width=config.d_model, shard="column", bias=bias)
        self.o = Linear(q_width, config.d_model, mup_width=config.d_model, shard="row")
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        self.norm_of_width = config.qk_norm == "width"
        if config.qk_norm != "none":
            self.q_norm = RMSNorm(q_width if self.norm_of_width else config.d_head, config.norm_eps)
            self.k_norm = RMSNorm(kv_width if self.norm_of_width else config.d_head, config.norm_eps)
        self.joined: Joined | None = None

    def forward(self, x_BTD: Tensor, layout: Layout, slots_B: Tensor | None = None) -> Tensor:
        """Mix tokens: [B, T, D] to [B, T, D]."""
        heads = (*x_BTD.shape[:2], -1, self.d_head)
        if self.joined is None or slots_B is not None:
            q_BTNH = self._norm_and_rotate(self.q(x_BTD, slots_B), self.q_norm, layout)
            k_BTKH = self._norm_and_rotate(self.k(x_BTD, slots_B), self.k_norm, layout)
            v_BTKH = self.v(x_BTD, slots_B).view(heads)
        else:
            q_width, kv_width = self.q.out_features, self.k.out_features
            qk_BTQ, v_BTV = self.joined(x_BTD).split((q_width + kv_width, kv_width), -1)
            qk_BTNH = self._norm_and_rotate(qk_BTQ, self.joined.norm, layout)
            q_BTNH, k_BTKH = qk_BTNH.split((q_width // self.d_head, kv_width // self.d_head), 2)
            v_BTKH = v_BTV.unflatten(-1, (-1, self.d_head))
        if layout.cache is not None:
            k_BTKH, v_BTKH = layout.cache.write(self.layer, k_BTKH, v_BTKH)
        out_BTNH = attend(q_BTNH, k_BTKH, v_BTKH, layout)
        mixed_BTD: Tensor = self.o(out_BTNH.flatten(2), slots_B)
        return mixed_BTD

    def join(self) -> tuple[Linear, ...]:
        """Set `joined`, if these projections and norms can be; which projections it stands for."""
        if self.norm_of_width:
            return ()
        norm = None
        if self.q_norm is not None and self.k_norm is not None:
            heads = (self.q_norm, self.q.out_features), (self.k_norm, self.k.out_features)
            gains = [norm.weight.detach().expand(width // self.d_head, -1) for norm, width in heads]
            norm = RMSNorm(self.d_head, self.q_norm.eps)
            norm.weight = nn.Parameter(torch.cat(gains), requires_grad=False)
        self.joined = join(self.q, self.k, self.v, norm=norm)
        return () if self.joined is None else (self.q, self.k, self.v)

    def part(self) -> None:
        """Forget what `join` has made."""
        self.joined = None

    def _norm_and_rotate(self, x_BTQ: Tensor, norm: RMSNorm | None, layout: Layout) -> Tensor:
        """All heads of a projection side by side to separate heads [B, T, N, H], normalised and rotated."""
        if norm is not None and self.norm_of_width:
            x_BTQ = norm(x_BTQ)
        x_BTNH = x_BTQ.unflatten(-1, (-1, self.d_head))
        if norm is None or self.norm_of_width:
            return rotate(x_BTNH, layout.cos, layout.sin)
        if self.rope_before_norm:
            rotated_BTNH: Tensor = norm(rotate(x_BTNH, layout.cos, layout.sin))
            return rotated_BTNH
        return rotate(norm(x_BTNH), layout.cos, layout.sin)
