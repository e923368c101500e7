"""Palettization: every 16 output rows share one small table of values (report section 5.1; 16 rows, k-means).

A weight becomes `table[row // 16, code[row, k]] * scale[row]`. The table holds 16 values at 4 bits and 4 at 2 bits,
found by optimal one-dimensional k-means; the scale of each row stands beside it, since it costs one multiplication a
row and lowers the error. With the second moments of the inputs, what is minimised is the expected squared error of
the layer's output under a diagonal Hessian, sum over rows and k of E[x_k^2] (W[r, k] - W'[r, k])^2.

The tied embedding becomes int8 with one scale per vocabulary entry: our reading of the report's "8-bit per-channel",
since the entry is the output channel of the head, and its scale costs one multiplication a logit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pippin.errors import UserError
from pippin.model.codes import BITS, GROUP_ROWS, pack

if TYPE_CHECKING:
    from pippin.data.loader import Batch
    from pippin.model.linear import Linear
    from pippin.model.transformer import Transformer

# Share of the mean second moment that is added to each: channels that calibration never excited still count.
_DAMPING = 0.01
_BINS = 128  # candidate boundaries of the dynamic programme; the polish then moves them between any two weights
_ALTERNATIONS = 3  # rounds of {codes, row scales, table}; five more would lower the error by another 1 %
_POLISH_LIMIT = 50
_CHUNK_VALUES = 1 << 18  # weights that are clustered at a time: the working set stays in the cache


class Palette(NamedTuple):
    """A palettized weight matrix; table and scale hold numbers that float16 represents exactly."""

    indices: Tensor  # uint8 [out, in]
    table: Tensor  # float32 [groups, 2**bits], ascending
    scale: Tensor  # float32 [out]
    bits: int

    def dense(self) -> Tensor:
        """The weight that the palette stands for, float32 [out, in]."""
        rows = self.table.repeat_interleave(GROUP_ROWS, dim=0)[: len(self.indices)]
        return torch.gather(rows, 1, self.indices.long()) * self.scale[:, None]


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


def float16_exact(x: Tensor) -> Tensor:
    """`x` rounded to the nearest float16, as float32: packed models store tables and scales in 16 bits."""
    return x.to(torch.float16).float()


def _cluster(weight: Tensor, importance: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices, table and row scales of groups: weight [G, 16, K], importance [K] -> [G, 16, K], [G, size], [G, 16]."""
    # Measured on heavy-tailed and Gaussian rows: with 16 values tails are worth a common range, with 4 they are not.
    scale = float16_exact(weight.abs().amax(2) if size == 16 else weight.square().mean(2).sqrt())
    values, weights = _scaled(weight, importance, scale)
    table = float16_exact(optimal_table(values, weights, size))
    indices = nearest(values, table)
    for _ in range(_ALTERNATIONS):
        chosen = table.gather(1, indices).view_as(weight)
        norm = (importance * chosen.square()).sum(2)
        fitted = float16_exact((importance * chosen * weight).sum(2) / norm.where(norm > 0, 1))
        scale = torch.where(fitted > 0, fitted, scale)
        values, weights = _scaled(weight, importance, scale)
        mass = torch.zeros_like(table).scatter_add_(1, indices, weights)
        total = torch.zeros_like(table).scatter_add_(1, indices, weights * values)
        table = float16_exact(torch.where(mass > 0, total / mass, table)).sort(dim=1).values
        indices = nearest(values, table)
    return indices.view_as(weight), table, scale


def _scaled(weight: Tensor, importance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Values that the table must hold, and what an error in each of them costs, both [G, 16 K].

    A row of zeros has scale 0: it weighs nothing, and stays a row of zeros whatever its codes.
    """
    values = weight / scale.where(scale > 0, 1)[:, :, None]
    weights = (importance * scale.square()[:, :, None]).expand_as(weight)
    return values.flatten(1), weights.flatten(1)


@torch.no_grad()
def palettize_weight(weight: Tensor, bits: int, second_moment: Tensor | None = None) -> Palette:
    """Palettize a matrix.

    Starts from rows scaled to abs-max 1 (2 bits: to RMS 1) and the optimal table of each group, then alternates: row
    scale and table by weighted least squares, codes by nearest entry. No step raises the error, but for the rounding
    to float16.

    Args:
        weight: [out, in].
        bits: 4 or 2.
        second_moment: mean square of each input, [in]; None weighs all inputs alike.
    Raises:
        UserError: the weight or the moments hold a value that is not finite, or the moments have another length.
    """
    if bits not in BITS:
        raise ValueError(f"bits: value {bits!r}: must be one of {BITS}")
    out_features, in_features = weight.shape
    weight = weight.float()
    if not weight.isfinite().all():
        raise UserError("weight: holds NaN or infinity; the model is damaged or its training diverged")
    importance = _importance(second_moment, in_features, weight.device)
    groups = -(-out_features // GROUP_ROWS)
    padded = torch.nn.functional.pad(weight, (0, 0, 0, groups * GROUP_ROWS - out_features))
    chunk = max(1, _CHUNK_VALUES // (GROUP_ROWS * in_features))
    parts = [_cluster(part, importance, 2**bits) for part in padded.view(groups, GROUP_ROWS, in_features).split(chunk)]
    indices, table, scale = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    return Palette(
        indices.view(-1, in_features)[:out_features].to(torch.uint8), table, scale.view(-1)[:out_features], bits
    )


def _importance(second_moment: Tensor | None, in_features: int, device: torch.device) -> Tensor:
    """Weights of the inputs, mean near 1."""
    if second_moment is None:
        return torch.ones(in_features, device=device)
    moment = second_moment.to(device=device, dtype=torch.float32)
    if tuple(moment.shape) != (in_features,) or not moment.isfinite().all() or (moment < 0).any():
        raise UserError(
            f"second_moment: shape {tuple(moment.shape)}: must be {in_features} finite values of at least 0; "
            "collect it with this model"
        )
    mean = moment.mean()
    return moment / mean + _DAMPING if mean > 0 else torch.ones_like(moment)


def palettize_linear(linear: Linear, bits: int, second_moment: Tensor | None = None) -> None:
    """Replace the dense weight of `linear` by a palettized one (see `palettize_weight`), in place."""
    palette = palettize_weight(linear.weight, bits, second_moment)
    linear.pack(pack(palette.indices, bits), palette.table, palette.scale, bits)


def palettize(
    model: Transformer,
    bits: Mapping[str, int],
    second_moments: Mapping[str, Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Palettize every projection of `model` and turn its embedding into int8 rows, in place.

    Args:
        bits: 4 or 2 for each projection, by the names of `model.linears()` (see `pippin.compress.allocate`).
        second_moments: from `collect_second_moments`; None weighs all inputs alike.
        progress: called with the number of weights just done.
    Raises:
        UserError: the model is already palettized, or the plan names other projections than it has, or bits other
            than 4 and 2.
    """
    check_dense(model)
    linears = dict(model.linears())
    check_plan(bits, linears)
    for name, linear in linears.items():
        size = linear.weight.numel()
        palettize_linear(linear, bits[name], None if second_moments is None else second_moments[name])
        if progress is not None:
            progress(size)
    model.embed.pack_int8()
    if progress is not None:
        progress(model.config.n_params().embedding)


def check_dense(model: Transformer) -> None:
    """Refuse a model that is already palettized.

    Raises:
        UserError: a projection is packed.
    """
    if any(linear.codes is not None for _, linear in model.linears()):
        raise UserError("model: already palettized; start from the dense model")


def check_plan(bits: Mapping[str, int], names: Iterable[str]) -> None:
    """Compare a bit plan with the names of the projections.

    Raises:
        UserError: one is missing, unknown, or has bits other than 4 and 2.
    """
    names = list(names)
    missing, unknown = sorted(set(names) - set(bits)), sorted(set(bits) - set(names))
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"names {unknown[0]}, which the model does not have"
        raise UserError(f"bits: the plan {what}; make the plan from this model")
    for name in names:
        if bits[name] not in BITS:
            raise UserError(f"bits: value {bits[name]!r} for {name}: must be one of {BITS}")


@torch.no_grad()
def collect_second_moments(model: Transformer, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Mean square of every input channel of every projection over calibration text.

    Args:
        batches: tokens, positions and segment ids, all [B, T]; positions of segment 0 (padding) do not count.
    Returns:
        float32 [in] by projection name.
    Raises:
        UserError: the batches hold no token.
    """
    sums = {name: torch.zeros(linear.in_features, dtype=torch.float64) for name, linear in model.linears()}
    keep_BT = torch.empty(0)
    count = 0

    def hook(name: str) -> Callable[..., None]:
        def add(_module: Linear, inputs: tuple[Tensor, ...]) -> None:
            sums[name] += inputs[0][keep_BT].float().square().sum(0).double().cpu()

        return add

    handles = [linear.register_forward_pre_hook(hook(name)) for name, linear in model.linears()]
    device = next(model.parameters()).device
    try:
        for batch in batches:
            keep_BT = (batch.segment_ids != 0).to(device)
            count += int(keep_BT.sum())
            model(
                batch.tokens.to(device),
                positions_BT=batch.positions.to(device),
                segment_ids_BT=batch.segment_ids.to(device),
                last_only=True,
            )
    finally:
        for handle in handles:
            handle.remove()
    if not count:
        raise UserError("calibration: no token; give at least one batch of text")
    return {name: (total / count).float() for name, total in sums.items()}
