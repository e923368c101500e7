"""Rotary position embedding, split-half layout (Su et al. 2021, as in Llama and Qwen)."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_tables(positions: Tensor, d_head: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * base^(-2i/d_head), float32.

    Computed from the configuration at every forward pass and kept nowhere: a changed base takes effect at once, and
    materialising a model from the meta device has no buffer to forget.

    Args:
        positions: [T] or [B, T] integers.
    Returns:
        Two tensors [..., T, 1, d_head / 2], to broadcast over heads.
    """
    # Computed in float64: at position 32768 a float32 frequency is already wrong in the third digit of the angle.
    exponents = torch.arange(0, d_head, 2, dtype=torch.float64, device=positions.device) / d_head
    angles = positions.to(torch.float64)[..., None, None] * base**-exponents
    return angles.cos().float(), angles.sin().float()


def rotate(x_BTNH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x_i, x_{i + d_head/2}) of every head by the tables' angles; keeps dtype and shape."""
    first, second = x_BTNH.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_BTNH.dtype)
