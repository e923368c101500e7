"""Dense weights laid out as oneDNN multiplies fastest, for many forward passes between which they do not change.

A decoding step multiplies few rows by every matrix. The library behind `F.linear` on a CPU reads a plain matrix of
[out, in] slowly then: a third of the memory's speed for one row, less than half of oneDNN's arithmetic for 64 rows
where this was measured (docs/rollouts.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pippin.model.norm import RMSNorm

ROWS = 64  # that the layout is made for; other numbers are as fast

# Private, but what the compiler's own code calls for frozen weights; where they are missing nothing is prepacked.
_OPS: Any = torch.ops.mkldnn


def prepack(weight_OI: Tensor) -> Tensor | None:
    """A copy for `multiply`; None where there is no such layout: not on a CPU, not float32, sharded, no oneDNN."""
    plain = type(weight_OI) in (Tensor, nn.Parameter) and weight_OI.device.type == "cpu"
    if not plain or weight_OI.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return None
    if not hasattr(_OPS, "_reorder_linear_weight") or not hasattr(_OPS, "_linear_pointwise"):
        return None
    packed: Tensor = _OPS._reorder_linear_weight(weight_OI.detach(), ROWS)
    return packed


def multiply(x_BTI: Tensor, prepacked: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias, [B, T, out]; no gradients."""
    y_BTO: Tensor = _OPS._linear_pointwise(x_BTI, prepacked, bias, "none", [], "")
    return y_BTO


class Matrix(Protocol):
    """The part of `Linear` that `join` needs."""

    bias: Any
    mask: Tensor | None

    def dense_weight(self) -> Tensor:
        """The weight [out, in]."""


@dataclass(frozen=True)
class Joined:
    """Linear layers of one input as one product: their outputs side by side. `norm` is for its caller's use."""

    weight: Tensor
    bias: Tensor | None
    norm: RMSNorm | None

    def __call__(self, x_BTI: Tensor) -> Tensor:
        """[B, T, sum of the widths]; no adapters."""
        return multiply(x_BTI, self.weight, self.bias)


def join(*linears: Matrix, norm: RMSNorm | None = None) -> Joined | None:
    """Layers of one input as one; None where they cannot be prepacked."""
    if any(linear.mask is not None for linear in linears):
        return None
    weight = prepack(torch.cat([linear.dense_weight().detach() for linear in linears]))
    biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
    return None if weight is None else Joined(weight, torch.cat(biases) if biases else None, norm)
