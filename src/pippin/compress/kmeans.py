"""Optimal one-dimensional k-means: which few values stand best for many."""

from __future__ import annotations

import torch
from torch import Tensor

_BINS = 128  # candidate boundaries of the dynamic programme; the polish then moves them between any two weights
_POLISH_LIMIT = 50


def optimal_table(values: Tensor, weights: Tensor, size: int) -> Tensor:
    """Weighted one-dimensional k-means of each row, by dynamic programming and Lloyd's iteration.

    Exact when a row has at most 128 values. Otherwise the programme considers 128 boundaries, half of them equally
    spaced in rank and half in value (so that neither a dense centre nor far outliers are starved), and Lloyd's
    iteration polishes the result on all values. Deterministic: there are no restarts.

    Args:
        values: [G, N].
        weights: [G, N], at least 0.
        size: number of table entries.
    Returns:
        [G, size] float64, ascending in each row. Entries that a row has no use for repeat a neighbour.
    Source: the dynamic programme is that of Wang and Song, Ckmeans.1d.dp (R Journal 2011).
    """
    sorted_values, order = values.double().sort(dim=1)
    sorted_weights = weights.double().gather(1, order)
    moments = torch.stack([sorted_weights, sorted_weights * sorted_values, sorted_weights * sorted_values.square()])
    prefix = torch.nn.functional.pad(moments.cumsum(2), (1, 0))  # [3, G, N + 1]
    edges = _candidate_edges(sorted_values)
    cuts = _best_cuts(prefix.gather(2, edges.expand(3, *edges.shape)), size)
    bounds = edges.gather(1, cuts)  # [G, size + 1] positions in the sorted rows
    table = _segment_means(prefix, bounds, sorted_values)
    for _ in range(_POLISH_LIMIT):
        middles = (table[:, 1:] + table[:, :-1]) / 2
        moved = bounds.clone()
        moved[:, 1:-1] = torch.searchsorted(sorted_values, middles.contiguous())
        if torch.equal(moved, bounds):
            break
        bounds = moved
        table = _segment_means(prefix, bounds, sorted_values)
    return table


def _candidate_edges(sorted_values: Tensor) -> Tensor:
    """Positions [G, M] between sorted values where a cluster may begin or end: 0 first, N last, ascending."""
    groups, count = sorted_values.shape
    if count <= _BINS:
        return torch.arange(count + 1, device=sorted_values.device).expand(groups, -1)
    steps = torch.linspace(0, 1, _BINS // 2 + 1, dtype=torch.float64, device=sorted_values.device)
    by_rank = (steps * count).round().long().expand(groups, -1)
    low, high = sorted_values[:, :1], sorted_values[:, -1:]
    by_value = torch.searchsorted(sorted_values, low + (high - low) * steps[1:-1])
    return torch.cat([by_rank, by_value], dim=1).sort(dim=1).values


def _best_cuts(prefix: Tensor, size: int) -> Tensor:
    """Choose `size` + 1 of the M candidate edges so that the squared error of the segments is least.

    `prefix` [3, G, M]: sums of w, w x and w x^2 before each edge. Returns indices [G, size + 1] into the edges.
    """
    weight, first, second = (p[:, None, :] - p[:, :, None] for p in prefix)  # [G, from, to]
    cost = (second - first.square() / weight.clamp(min=torch.finfo(torch.float64).tiny)).clamp_(min=0).float()
    edges = cost.shape[1]
    cost.masked_fill_(torch.ones(edges, edges, dtype=torch.bool, device=cost.device).tril(-1), torch.inf)
    backward = cost.mT.contiguous()  # [G, to, from]: the minimum runs over the last dimension
    reached = [backward[:, :, 0]]  # error of the best clustering of everything before an edge, into 1, 2 ... clusters
    for _ in range(size - 1):
        reached.append((backward + reached[-1][:, None, :]).amin(dim=2))
    rows = torch.arange(len(cost), device=cost.device)
    cut = torch.full_like(rows, edges - 1)
    cuts = [cut]
    for errors in reversed(reached[:-1]):
        cut = (backward[rows, cut] + errors).argmin(dim=1)
        cuts.append(cut)
    cuts.append(torch.zeros_like(rows))
    return torch.stack(cuts[::-1], dim=1)


def _segment_means(prefix: Tensor, bounds: Tensor, sorted_values: Tensor) -> Tensor:
    """Weighted mean between successive bounds; a segment without weight takes the value at its left end."""
    weight, first, _ = prefix.gather(2, bounds.expand(3, *bounds.shape)).diff(dim=2)
    left = sorted_values.gather(1, bounds[:, :-1].clamp(max=sorted_values.shape[1] - 1))
    means = torch.where(weight > 0, first / weight.clamp(min=torch.finfo(torch.float64).tiny), left)
    return means.sort(dim=1).values  # prefix sums leave rounding of 1e-16 of the total


def nearest(values: Tensor, table: Tensor) -> Tensor:
    """Index of the nearest entry of an ascending table for every value: [G, N], [G, size] -> int64 [G, N]."""
    middles = (table[:, 1:] + table[:, :-1]) / 2
    return torch.searchsorted(middles.contiguous(), values.contiguous())
