"""Tables and row scales trained with their codes fixed: no bits are added.

Ours: rounding decides the codes from one layer's outputs at a time; what the values stand for can then be fitted to
the whole model's. The loss is the caller's (KL to the float model, `pippin.training.kl`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pippin.compress.matrix import sorted_palette
from pippin.model import codes as code_layout

if TYPE_CHECKING:
    from pippin.model.linear import Linear
    from pippin.model.transformer import Transformer


class Tunable(nn.Module):
    """The tables and the logarithms of the scales' growth of a palettized model, as parameters.

    Call `install` before each forward pass of the model, train, then `finish`.
    """

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self._linears: dict[str, tuple[Linear, Tensor]] = {}
        self.tables, self.growths = nn.ParameterDict(), nn.ParameterDict()
        for name, linear in model.linears():
            key = name.replace(".", "-")  # a parameter's name has no dots
            self._linears[key] = (linear, linear.scale)
            self.tables[key] = nn.Parameter(linear.table.clone())
            self.growths[key] = nn.Parameter(torch.zeros_like(linear.scale))

    def install(self) -> None:
        """Let the model's projections compute with the parameters as they are, differentiably."""
        for key, (linear, scale) in self._linears.items():
            linear.table = self.tables[key].clone()  # a Parameter would become one of the layer's
            growth = self.growths[key].exp()
            linear.scale = scale.to(growth.device) * growth

    @torch.no_grad()
    def finish(self) -> None:
        """Round to what the packed format holds and give the model plain tensors again."""
        for key, (linear, scale) in self._linears.items():
            assert linear.codes is not None
            indices = code_layout.unpack(linear.codes, linear.bits, linear.out_features, linear.in_features)
            growth = self.growths[key].detach().exp()
            grown = scale.to(growth.device) * growth
            palette = sorted_palette(indices, self.tables[key].detach(), grown, linear.bits)
            linear.pack(code_layout.pack(palette.indices, linear.bits), palette.table, palette.scale, linear.bits)
