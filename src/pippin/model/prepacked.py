"""Dense weights laid out as oneDNN multiplies fastest, for many forward passes between which they do not change.

A decoding step multiplies few rows by every matrix. The library behind `F.linear` on a CPU reads a plain matrix of
[out, in] slowly then: a third of the memory's speed for one row, less than half of oneDNN's arithmetic for 64 rows
where this was measured (docs/rollouts.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pippin.model.norm import RMSNorm

if TYPE_CHECKING:
    from pippin.model.linear import Linear
    from pippin.model.transformer import Transformer

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


@dataclass(frozen=True)
class Joined:
    """Linear layers of one input as one product: their outputs side by side. `norm` is for its caller's use."""

    weight: Tensor
    bias: Tensor | None
    norm: RMSNorm | None

    def __call__(self, x_BTI: Tensor) -> Tensor:
        """[B, T, sum of the widths]; no adapters."""
        return multiply(x_BTI, self.weight, self.bias)


def join(*linears: Linear, norm: RMSNorm | None = None) -> Joined | None:
    """Layers of one input as one; None where they cannot be prepacked."""
    if any(linear.mask is not None for linear in linears):
        return None
    weight = prepack(torch.cat([linear.dense_weight().detach() for linear in linears]))
    biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
    return None if weight is None else Joined(weight, torch.cat(biases) if biases else None, norm)


@contextmanager
def unchanging(model: Transformer, *, adapters: bool = False) -> Iterator[None]:
    """While it is open the weights must not change, and there are no gradients: products are those of copies.

    The copies take the memory of the matrices and of the head once more. Packed weights are made dense once.

    Args:
        adapters: whether forward passes will ask for adapter slots; without, fewer and larger products are made.
    """
    sublayers: list[Any] = [sublayer for block in model.blocks for sublayer in (block.attention, block.ffn)]
    modules: list[Any] = [model.embed if model.head is None else model.head]
    modules += (linear for _, linear in model.linears())
    try:
        if model.compute_dtype == torch.float32:
            joined: set[nn.Module] = set()
            for sublayer in () if adapters else sublayers:
                joined.update(sublayer.join())
            for module in modules:
                if module not in joined:
                    module.prepacked = prepack(module.dense_weight())
        yield
    finally:
        for sublayer in sublayers:
            sublayer.part()
        for module in modules:
            module.prepacked = None
