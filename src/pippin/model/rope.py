"""Rotary position embedding, split-half layout (Su et al. 2021, as in Llama and Qwen)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


# Opaque to the compiler, which would compute sines anew for every head of every layer.
@torch.library.custom_op("pippin::rope_tables", mutates_args=())
def rope_tables(
    positions: Tensor, d_head: int, base: float, scaling: Sequence[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * base^(-2i/d_head), float32, for both halves of a head.

    Computed from the configuration at every forward pass and kept nowhere: a changed base takes effect at once, and
    materialising a model from the meta device has no buffer to forget. Angles are float64: a float32 frequency is
    off by 0.002 rad at position 32768.

    Args:
        positions: [T] or [B, T] integers.
        scaling: the four numbers of `RopeScaling`, in order; None leaves the frequencies as they are.
    Returns:
        Two tensors [..., T, 1, d_head], to broadcast over heads; the sine of the first half is negated.
    """
    exponents = torch.arange(0, d_head, 2, dtype=torch.float64, device=positions.device) / d_head
    frequencies = base**-exponents
    if scaling is not None:
        factor, low, high, original_len = scaling
        turns = original_len * frequencies / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        frequencies = frequencies * (kept + (1 - kept) / factor)
    angles = positions.to(torch.float64)[..., None, None] * frequencies
    cos, sin = angles.cos().float(), angles.sin().float()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


@rope_tables.register_fake
def _(positions: Tensor, d_head: int, base: float, scaling: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
    shape = (*positions.shape, 1, d_head)
    return positions.new_empty(shape, dtype=torch.float32), positions.new_empty(shape, dtype=torch.float32)


def rotate(x_BTNH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x_i, x_{i + d_head/2}) of every head by the tables' angles; keeps dtype and shape."""
    if not torch.is_grad_enabled():  # the same numbers without the machinery around them
        return _rotate(x_BTNH, cos, sin)
    rotated_BTNH: Tensor = _Rotate.apply(x_BTNH, cos, sin)
    return rotated_BTNH


def _rotate(x_BTNH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    wide = x_BTNH.to(torch.promote_types(x_BTNH.dtype, torch.float32))
    swapped = wide.roll(x_BTNH.shape[-1] // 2, -1)
    return (wide * cos).addcmul_(swapped, sin).to(x_BTNH.dtype)


class _Rotate(torch.autograd.Function):
    """The gradient of a rotation is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x_BTNH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x_BTNH, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTNH: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate(grad_BTNH, cos, -sin), None, None
