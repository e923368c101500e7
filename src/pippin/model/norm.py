"""RMSNorm with a learned gain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
        if not torch.is_grad_enabled():  # the same numbers without the machinery around them
            return _normalise(x, self.weight, self.eps)[0]
        y: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
        return y

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


def _normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The result, and 1 / sqrt(mean(x^2) + eps).

    Operands are widened explicitly: on a CPU an operation on mixed dtypes is 15 times slower than two of one dtype.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    rstd = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    rstd = rstd.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    scaled = wide * rstd if wide.dtype == x.dtype else wide.mul_(rstd)  # what was widened here is nobody else's
    return scaled.mul_(weight).to(x.dtype), rstd


class _RMSNorm(torch.autograd.Function):
    """Half the passes over memory that autograd needs, and x is kept in its own dtype only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, rstd = _normalise(x, weight, eps)
        ctx.save_for_backward(x, rstd, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, rstd, weight = ctx.saved_tensors
        normed = x.to(rstd.dtype) * rstd
        grad = grad.to(rstd.dtype)
        grad_weight = (grad * normed).sum(tuple(range(x.dim() - 1)))
        scaled = grad * weight
        mean = (scaled * normed).mean(-1, keepdim=True)
        grad_x = scaled.addcmul_(normed, mean, value=-1).mul_(rstd)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None
