"""Exchanges between processes that gradients flow through."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Renamed in torch 2.13.
_all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather(x: Tensor, group: dist.ProcessGroup, dim: int = 1) -> Tensor:
    """The parts of all processes side by side along `dim`; the gradient of a part is the sum of what all give it."""
    whole: Tensor = _Gather.apply(x, group, dim)
    return whole


def scatter_sum(x: Tensor, group: dist.ProcessGroup, dim: int = 1) -> Tensor:
    """This process's part along `dim` of the sum over all processes; the inverse of `gather`, as is its gradient."""
    part: Tensor = _ScatterSum.apply(x, group, dim)
    return part


def all_gather(x: Tensor, group: dist.ProcessGroup, dim: int) -> Tensor:
    """`gather` without a gradient."""
    n = dist.get_world_size(group)
    out = x.new_empty((n, *x.shape))
    _all_gather_single(out.flatten(0, 1), x.contiguous(), group=group)
    return out.movedim(0, dim).flatten(dim, dim + 1)


def _reduce_scatter(x: Tensor, group: dist.ProcessGroup, dim: int) -> Tensor:
    n = dist.get_world_size(group)
    parts = x.unflatten(dim, (n, -1)).movedim(dim, 0).contiguous()
    out = torch.empty_like(parts[0])
    _reduce_scatter_single(out, parts.flatten(0, 1), group=group)
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup, dim: int) -> Tensor:
        ctx.where = group, dim
        return all_gather(x, group, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _reduce_scatter(grad, *ctx.where), None, None


class _ScatterSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup, dim: int) -> Tensor:
        ctx.where = group, dim
        return _reduce_scatter(x, group, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return all_gather(grad, *ctx.where), None, None
