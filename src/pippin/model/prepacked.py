"""Dense weights laid out as oneDNN multiplies fastest, for many forward passes between which they do not change.

A decoding step multiplies few rows by every matrix. The library behind `F.linear` on a CPU reads a plain matrix of
[out, in] slowly then: a third of the memory's speed for one row, less than half of oneDNN's arithmetic for 64 rows
where this was measured (docs/rollouts.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
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


@contextmanager
def unchanging(model: Transformer) -> Iterator[None]:
    """While it is open the weights must not change, and there are no gradients: products are those of copies.

    The copies take the memory of the matrices and of the head once more. Packed weights are made dense once.
    """
    head = model.embed if model.head is None else model.head
    modules = [module for module in (*(linear for _, linear in model.linears()), head) if module.prepacked is None]
    try:
        for module in modules:
            module.prepacked = prepack(module.dense_weight().to(model.compute_dtype))
        yield
    finally:
        for module in modules:
            module.prepacked = None
