"""RMSNorm with a learned gain."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, gain initialised to 1 (Zhang and Sennrich 2019).

    Statistics and scaling are float32 whatever the activation dtype: AXLearn computes in the activation dtype, but
    the parity with transformers and between train and decode is worth more than the difference. Output: x's dtype.
    """

    weight: nn.Parameter

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gain 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x` [..., dim]."""
        x_wide = x.to(torch.promote_types(x.dtype, torch.float32))
        rstd = torch.rsqrt(x_wide.square().mean(-1, keepdim=True) + self.eps)
        return (x_wide * rstd * self.weight).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"
