"""Attention with gradients for bfloat16 on a CPU, from matrix products.

PyTorch's fused CPU kernel spends four times longer in its bfloat16 backward pass than these products take: the
probabilities are kept, in bfloat16, instead of being computed anew.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128  # queries; each block multiplies only with the keys up to its own end


def blocked_attention(q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor, bias_B1TT: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d_head) + bias) v; a key after its query is never visible, whatever the bias says.

    Scores and probabilities are rounded to q's dtype, sums are float32. Keeps T^2 / 2 probabilities per row and head
    for the backward pass.

    Args:
        bias_B1TT: 0 where visible, -inf where not, in q's dtype; None: causal.
    Returns:
        [B, T, N, H], contiguous.
    """
    out_BTNH: Tensor = _BlockedAttention.apply(q_BTNH, k_BTKH, v_BTKH, bias_B1TT)
    return out_BTNH


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


class _BlockedAttention(torch.autograd.Function):
    # Inside, rows and key/value heads are one batch dimension J = B K; the G query heads that share a key/value head
    # and the queries of a block are one dimension of rows.

    @staticmethod
    def forward(ctx: Any, q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor, bias_B1TT: Tensor | None) -> Tensor:
        batch, length, n_heads, d_head = q_BTNH.shape
        n_kv_heads = k_BTKH.shape[2]
        shape = batch * n_kv_heads, n_heads // n_kv_heads
        q_JGTH, k_JTH, v_JTH = _grouped(q_BTNH, shape), _flat(k_BTKH), _flat(v_BTKH)
        out_JGTH = torch.empty_like(q_JGTH)
        probabilities = []
        for start, end in _blocks(length):
            if bias_B1TT is None:
                hidden = torch.full((end - start, end), -torch.inf, dtype=q_BTNH.dtype, device=q_BTNH.device)
                bias = hidden.triu_(start + 1)
            else:
                bias = bias_B1TT[:, :, None, start:end, :end]
            scores = bias.expand(batch, *(n_kv_heads, shape[1]), end - start, end).reshape(shape[0], -1, end)
            q_JRH = q_JGTH[:, :, start:end].reshape(shape[0], -1, d_head)
            scores = torch.baddbmm(scores, q_JRH, k_JTH[:, :end].mT, alpha=d_head**-0.5)
            p_JRS = torch.softmax(scores, dim=-1)
            out_JGTH[:, :, start:end] = torch.bmm(p_JRS, v_JTH[:, :end]).view(*shape, -1, d_head)
            probabilities.append(p_JRS)
        ctx.save_for_backward(q_JGTH, k_JTH, v_JTH, *probabilities)
        return _ungrouped(out_JGTH, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTNH: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_JGTH, k_JTH, v_JTH, *probabilities = ctx.saved_tensors
        shape, (length, d_head) = q_JGTH.shape[:2], k_JTH.shape[1:]
        batch = grad_BTNH.shape[0]
        grad_JGTH = _grouped(grad_BTNH, shape)
        grad_q = torch.empty_like(q_JGTH)
        grad_k = torch.zeros_like(k_JTH, dtype=torch.promote_types(k_JTH.dtype, torch.float32))
        grad_v = torch.zeros_like(grad_k)
        for (start, end), p_JRS in zip(_blocks(length), probabilities, strict=True):
            q_JRH = q_JGTH[:, :, start:end].reshape(shape[0], -1, d_head)
            grad_JRH = grad_JGTH[:, :, start:end].reshape(shape[0], -1, d_head)
            grad_p = torch.bmm(grad_JRH, v_JTH[:, :end].mT)
            grad_scores = torch._softmax_backward_data(grad_p, p_JRS, -1, p_JRS.dtype)
            grad_q[:, :, start:end] = torch.bmm(grad_scores, k_JTH[:, :end]).view(*shape, -1, d_head)
            grad_k[:, :end] += torch.bmm(grad_scores.mT, q_JRH)
            grad_v[:, :end] += torch.bmm(p_JRS.mT, grad_JRH)
        scale = d_head**-0.5
        return (
            _ungrouped(grad_q.mul_(scale), batch),
            _unflat(grad_k.mul_(scale).to(k_JTH.dtype), batch),
            _unflat(grad_v.to(v_JTH.dtype), batch),
            None,
        )


def _grouped(x_BTNH: Tensor, shape: tuple[int, int]) -> Tensor:
    """[B, T, N, H] to [J, G, T, H]."""
    return x_BTNH.transpose(1, 2).reshape(*shape, *x_BTNH.shape[1::2])


def _ungrouped(x_JGTH: Tensor, batch: int) -> Tensor:
    """[J, G, T, H] to [B, T, N, H]."""
    return x_JGTH.reshape(batch, -1, *x_JGTH.shape[2:]).transpose(1, 2).contiguous()


def _flat(x_BTKH: Tensor) -> Tensor:
    """[B, T, K, H] to [J, T, H]."""
    return x_BTKH.transpose(1, 2).flatten(0, 1)


def _unflat(x_JTH: Tensor, batch: int) -> Tensor:
    """[J, T, H] to [B, T, K, H]."""
    return x_JTH.unflatten(0, (batch, -1)).transpose(1, 2).contiguous()
