"""Palettization of one matrix: every 16 output rows share one small table of values (report section 5.1).

A weight becomes `table[row // 16, code[row, k]] * scale[row]`. The table holds 16 values at 4 bits and 4 at 2 bits,
multiples of 1 / 127 so that it is stored in int8; the scale of each row is a float16.

The report says k-means and no more. Ours goes further, in two steps. `palettize_weight` finds table, scales and codes
by optimal one-dimensional k-means, weighted by the inputs' second moments, and alternation. With the whole matrix
H = E[x x'] of the inputs, `compensated` then minimises what the layer's output loses, tr((W - W') H (W - W')'): it
rounds one input after the other onto the table and lets the inputs that are still to come make up for the error
(Frantar et al. 2022, GPTQ); then, in turns, it chooses each code anew with all others fixed (coordinate descent, as
Behdin et al. 2023, QuantEase) and refits tables and scales to the codes in closed form.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pippin.compress.kmeans import nearest, optimal_table
from pippin.errors import UserError
from pippin.model.codes import BITS, GROUP_ROWS

# Share of the mean second moment that is added to each: channels that calibration never excited still count.
DAMPING = 0.01
TABLE_STEPS = 127  # table values are multiples of 1 / 127 between -1 and 1
_ALTERNATIONS = 3  # rounds of {codes, row scales, table}; five more would lower the error by another 1 %
_CHUNK_VALUES = 1 << 18  # weights that are clustered at a time: the working set stays in the cache
# Refits of table and scales, each followed by sweeps. With 16 values one gains 1 % and would take half an hour of a 3B
# model's on two cores; with 4 values the second still gains (docs/LOG.md).
REFITS = {2: 2, 4: 0}
SWEEPS = 3
_COLUMNS = 128  # inputs that take their turns before the rest hears of their changes in one product
_PRODUCT_COLUMNS = 512
_REFIT_ROWS = 64
_REFIT_TURNS = 4


class Palette(NamedTuple):
    """A palettized weight matrix, in numbers that the packed format represents exactly."""

    indices: Tensor  # uint8 [out, in]
    table: Tensor  # float32 [groups, 2**bits], multiples of 1 / 127 in [-1, 1], ascending
    scale: Tensor  # float32 [out], float16 values, at least 0
    bits: int

    def rows(self) -> Tensor:
        """What each code means in each row, float32 [out, 2**bits]."""
        tables = self.table.repeat_interleave(GROUP_ROWS, dim=0)[: len(self.indices)]
        return tables * self.scale[:, None]

    def dense(self) -> Tensor:
        """The weight that the palette stands for, float32 [out, in]."""
        return torch.gather(self.rows(), 1, self.indices.long())


def storable(table: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Round tables and row scales to what the packed format holds: [G, size], [out] -> float32, same shapes.

    A group's largest value becomes 1; its rows' scales take the factor.
    """
    largest = table.abs().amax(1, keepdim=True)
    factor = torch.where(largest > 0, largest, 1.0)
    steps = (table / factor * TABLE_STEPS).round()
    grown = scale * factor[:, 0].repeat_interleave(GROUP_ROWS)[: len(scale)]
    if (grown > torch.finfo(torch.float16).max).any():
        raise UserError("weight: holds values above 65,504, which the packed format cannot scale; is it damaged?")
    return (steps / TABLE_STEPS).float(), grown.to(torch.float16).float()


def _cluster(weight: Tensor, importance: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices, table and row scales of groups: weight [G, 16, K], importance [K] -> [G, 16, K], [G, size], [G, 16]."""
    # Measured on heavy-tailed and Gaussian rows: with 16 values tails are worth a common range, with 4 they are not.
    scale = weight.abs().amax(2) if size == 16 else weight.square().mean(2).sqrt()
    values, weights = _scaled(weight, importance, scale)
    table = optimal_table(values, weights, size).float()
    indices = nearest(values, table)
    for _ in range(_ALTERNATIONS):
        chosen = table.gather(1, indices).view_as(weight)
        norm = (importance * chosen.square()).sum(2)
        fitted = (importance * chosen * weight).sum(2) / norm.where(norm > 0, 1)
        scale = torch.where(fitted > 0, fitted, scale)
        values, weights = _scaled(weight, importance, scale)
        mass = torch.zeros_like(table).scatter_add_(1, indices, weights)
        total = torch.zeros_like(table).scatter_add_(1, indices, weights * values)
        table = torch.where(mass > 0, total / mass, table).sort(dim=1).values
        indices = nearest(values, table)
    rounded, flat = storable(table, scale.flatten())
    scale = flat.view_as(scale)
    return nearest(_scaled(weight, importance, scale)[0], rounded).view_as(weight), rounded, scale


def _scaled(weight: Tensor, importance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Values that the table must hold, and what an error in each of them costs, both [G, 16 K].

    A row of zeros has scale 0: it weighs nothing, and stays a row of zeros whatever its codes.
    """
    values = weight / scale.where(scale > 0, 1)[:, :, None]
    weights = (importance * scale.square()[:, :, None]).expand_as(weight)
    return values.flatten(1), weights.flatten(1)


@torch.no_grad()
def palettize_weight(weight: Tensor, bits: int, importance: Tensor | None = None) -> Palette:
    """Palettize a matrix, each weight by itself.

    Starts from rows scaled to abs-max 1 (2 bits: to RMS 1) and the optimal table of each group, then alternates: row
    scale and table by weighted least squares, codes by nearest entry. No step raises the error, but for the final
    rounding of tables and scales.

    Args:
        weight: [out, in].
        bits: 4 or 2.
        importance: weight of an error at each input, at least 0, [in]; None weighs all inputs alike.
    Raises:
        UserError: the weight or the importance hold a value that is not finite, or the importance has another length.
    """
    weight = _checked(weight, bits)
    out_features, in_features = weight.shape
    if importance is None:
        importance = torch.ones(in_features, device=weight.device)
    if tuple(importance.shape) != (in_features,) or not importance.isfinite().all() or (importance < 0).any():
        raise UserError(
            f"importance: shape {tuple(importance.shape)}: must be {in_features} finite values of at least 0; "
            "collect them with this model"
        )
    mean = importance.mean()
    importance = (importance / mean + DAMPING if mean > 0 else torch.ones_like(importance)).to(weight)
    groups = -(-out_features // GROUP_ROWS)
    padded = torch.nn.functional.pad(weight, (0, 0, 0, groups * GROUP_ROWS - out_features))
    chunk = max(1, _CHUNK_VALUES // (GROUP_ROWS * in_features))
    parts = [_cluster(part, importance, 2**bits) for part in padded.view(groups, GROUP_ROWS, in_features).split(chunk)]
    indices, table, scale = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    return Palette(
        indices.view(-1, in_features)[:out_features].to(torch.uint8), table, scale.view(-1)[:out_features], bits
    )


def _checked(weight: Tensor, bits: int) -> Tensor:
    if bits not in BITS:
        raise ValueError(f"bits: value {bits!r}: must be one of {BITS}")
    weight = weight.detach().float()
    if not weight.isfinite().all():
        raise UserError("weight: holds NaN or infinity; the model is damaged or its training diverged")
    return weight


def damped(moments: Tensor) -> Tensor:
    """H with DAMPING times its mean diagonal added to the diagonal, float32 [in, in]; the identity if H is zero.

    Raises:
        UserError: it holds a value that is not finite.
    """
    moments = moments.float()
    if not moments.isfinite().all():
        raise UserError(
            "calibration: the inputs of a layer are not finite; the model is damaged or its training diverged"
        )
    mean = moments.diagonal().mean()
    if not mean > 0:
        return torch.eye(len(moments), device=moments.device)
    return moments + DAMPING * mean * torch.eye(len(moments), device=moments.device)


def squared_output(weight: Tensor, moments: Tensor) -> float:
    """tr(W H W'), the expected squared output of a matrix [out, in] for inputs of second moments [in, in].

    By symmetry, half the product does.
    """
    total = torch.zeros((), dtype=torch.float64, device=weight.device)
    for start in range(0, weight.shape[1], _PRODUCT_COLUMNS):
        end = min(start + _PRODUCT_COLUMNS, weight.shape[1])
        own = weight[:, start:end]
        product = own @ moments[start:end, start:end] + 2 * (weight[:, end:] @ moments[end:, start:end])
        total += (product * own).sum(dtype=torch.float64)
    return float(total)


def output_error(weight: Tensor, palette: Palette, moments: Tensor) -> float:
    """tr((W - W') H (W - W')') / tr(W H W'): the share of the layer's expected squared output that is lost."""
    whole = squared_output(weight, moments)
    return squared_output(weight - palette.dense(), moments) / whole if whole > 0 else 0.0


class Rounding(NamedTuple):
    """What `compensated` needs of H for every matrix that reads the same inputs: computed once.

    With P the permutation to `order`, P H P' = U D U' with U unit upper triangular: U' is `lower`, D `variances`.
    """

    moments: Tensor  # damped H [in, in]
    order: Tensor  # inputs by falling second moment
    lower: Tensor  # [in, in]
    variances: Tensor  # [in]


def rounding(moments: Tensor) -> Rounding:
    """Prepare the second moments [in, in] of some inputs for `compensated`.

    Raises:
        UserError: they are not finite.
    """
    moments = damped(moments)
    order = moments.diagonal().argsort(descending=True, stable=True)
    backwards = order.flip(0)
    factor = torch.linalg.cholesky(moments[backwards][:, backwards].double())  # lower: turned around, it is upper
    spread = factor.diagonal()
    return Rounding(moments, order, (factor / spread).flip(0, 1).T.float(), spread.square().flip(0).float())


@torch.no_grad()
def compensated(
    weight: Tensor, bits: int, inputs: Rounding, refits: int | None = None, sweeps: int = SWEEPS
) -> tuple[Palette, float]:
    """Palettize a matrix so that its output, not its weights, changes least.

    Args:
        weight: [out, in].
        bits: 4 or 2.
        inputs: the second moments of its inputs, from `rounding`.
        refits: of table and scales; None takes REFITS.
        sweeps: of coordinate descent, after the first codes and after each refit.
    Returns:
        The palette and its `output_error`: the best on the way.
    Raises:
        UserError: the weight holds a value that is not finite.
    """
    weight = _checked(weight, bits)
    palette = best = palettize_weight(weight, bits, inputs.moments.diagonal())
    least = squared_output(weight - best.dense(), inputs.moments)
    codes, lost = compensated_codes(weight, palette, inputs)
    palette = palette._replace(indices=codes)
    for refit in range(1 + (REFITS[bits] if refits is None else refits)):
        if refit:
            palette = refitted(weight, palette, inputs.moments)
            lost = squared_output(weight - palette.dense(), inputs.moments)
        codes, gained = descended_codes(weight, palette, inputs, sweeps)
        palette, lost = palette._replace(indices=codes), lost - gained
        if lost < least:
            best, least = palette, lost
    whole = squared_output(weight, inputs.moments)
    return best, least / whole if whole > 0 else 0.0


def compensated_codes(weight: Tensor, palette: Palette, inputs: Rounding) -> tuple[Tensor, float]:
    """Codes uint8 [out, in]: inputs in order, each making up for the errors of those before it. And what they lose.

    With R = W - W' in that order, tr(R H R') = |R U sqrt(D)|^2, and (R U)[:, j] = R[:, j] + R[:, :j] U[:j, j]: so the
    best value of W'[:, j] is W[:, j] + R[:, :j] U[:j, j], and what is lost is its distance from there, squared, times
    D[j]. This is GPTQ without an inverse (Chee et al. 2023, QuIP, theorem 6).
    """
    turns = _Turns(palette)
    wanted_KO = weight.T[inputs.order]
    changes_KO, codes_KO = torch.empty_like(wanted_KO), torch.empty_like(wanted_KO, dtype=torch.uint8)
    lost = 0.0
    for start in range(0, len(wanted_KO), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        was_KO, lower = wanted_KO[part], inputs.lower[part]
        best_KO = torch.addmm(was_KO, lower[:, :start], changes_KO[:start], alpha=-1)
        codes_KO[part], changes_KO[part] = turns.take(was_KO, best_KO, -lower[:, part])
        missed_KO = best_KO - was_KO - changes_KO[part]
        lost += float((inputs.variances[part, None] * missed_KO.square()).sum(dtype=torch.float64))
    return torch.empty_like(codes_KO).index_copy_(0, inputs.order, codes_KO).T.contiguous(), lost


def descended_codes(weight: Tensor, palette: Palette, inputs: Rounding, sweeps: int = SWEEPS) -> tuple[Tensor, float]:
    """Codes uint8 [out, in] after sweeps in which each takes the entry that is best with all others as they are.

    With R = W - W' and G = R H, the best value of W'[:, k] is W'[:, k] + G[:, k] / H[k, k]. Nothing gets worse: the
    second result is by how much less is lost.
    """
    turns = _Turns(palette)
    codes_KO = palette.indices.T.contiguous()
    residual_KO = (weight - palette.dense()).T.contiguous()
    gained = 0.0
    for part in inputs.order.split(_COLUMNS) * sweeps:
        moments = inputs.moments[part]
        among = moments[:, part]
        scale = among.diagonal()[:, None]
        was_KO = turns.values_of(codes_KO[part])
        best_KO = was_KO + (moments @ residual_KO) / scale
        codes_KO[part], changes_KO = turns.take(was_KO, best_KO, -among / scale)
        residual_KO[part] -= changes_KO
        gained += float((scale * changes_KO * (2 * (best_KO - was_KO) - changes_KO)).sum(dtype=torch.float64))
    return codes_KO.T.contiguous(), gained


class _Turns:
    """Gives some inputs their codes, one after the other; all rows at once, which lie along the last dimension.

    Inputs come first because what is done with one of them is then done in contiguous memory.
    """

    def __init__(self, palette: Palette) -> None:
        self.values = palette.rows()
        self.middles = ((self.values[:, 1:] + self.values[:, :-1]) / 2).contiguous()

    def values_of(self, codes_KO: Tensor) -> Tensor:
        return self.values.gather(1, codes_KO.T.long()).T.contiguous()

    def take(self, was_KO: Tensor, best_KO: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and changes, both [K, O], of K inputs.

        Args:
            was_KO: their weights before.
            best_KO: which weights would be best if no other of them changed; in place, it becomes what would be best
                after the changes of those before.
            response: [K, K]; [j, i] is how much a change of i moves the best weight of j > i.
        """
        codes_KO, changes_KO = torch.empty_like(best_KO, dtype=torch.uint8), torch.empty_like(best_KO)
        for j, best in enumerate(best_KO):
            best += response[j, :j] @ changes_KO[:j]
            index = torch.searchsorted(self.middles, best[:, None])
            torch.sub(self.values.gather(1, index)[:, 0], was_KO[j], out=changes_KO[j])
            codes_KO[j] = index[:, 0]
        return codes_KO, changes_KO


def refitted(weight: Tensor, palette: Palette, moments: Tensor) -> Palette:
    """Tables and row scales that lose least for given codes, by least squares in turns; rounded to the format.

    With Z the one-hot codes of a row, what it loses depends on its table t and scale s through M = Z H Z' and
    v = Z H w alone: s^2 t'M t - 2 s t'v.
    """
    size, rows = 2**palette.bits, len(weight)
    products = torch.empty(rows, size, size, dtype=torch.float64, device=weight.device)
    for part in torch.arange(rows, device=weight.device).split(_REFIT_ROWS):
        hot = torch.nn.functional.one_hot(palette.indices[part].long(), size).to(moments)  # [R, K, size]
        spread = moments @ hot.transpose(0, 1).flatten(1)  # [K, R * size]
        products[part] = torch.bmm(hot.mT, spread.view(len(moments), len(part), size).transpose(0, 1)).double()
    table, scale = palette.table.double(), palette.scale.double()
    groups = len(table)
    of_row = torch.arange(rows, device=weight.device) // GROUP_ROWS
    residual = (weight - palette.dense()) @ moments
    target = torch.zeros(rows, size, dtype=torch.float64, device=weight.device)
    target.scatter_add_(1, palette.indices.long(), residual.double())
    target += scale[:, None] * torch.einsum("rij,rj->ri", products, table[of_row])
    for _ in range(_REFIT_TURNS):
        left = torch.zeros(groups, size, size, dtype=torch.float64, device=weight.device)
        left.index_add_(0, of_row, scale.square()[:, None, None] * products)
        right = torch.zeros(groups, size, dtype=torch.float64, device=weight.device)
        right.index_add_(0, of_row, scale[:, None] * target)
        # An entry that no weight uses keeps its value: the ridge pulls towards the table as it is.
        ridge = 1e-6 * left.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
        left = left + ridge[:, None, None] * torch.eye(size, dtype=torch.float64, device=weight.device)
        table = torch.linalg.solve(left, right + ridge[:, None] * table)
        chosen = table[of_row]
        norm = torch.einsum("ri,rij,rj->r", chosen, products, chosen)
        fitted = (chosen * target).sum(1) / norm.clamp(min=torch.finfo(torch.float64).tiny)
        scale = torch.where((fitted > 0) & (norm > 0), fitted, scale)
    return sorted_palette(palette.indices, table, scale, palette.bits)


def sorted_palette(indices: Tensor, table: Tensor, scale: Tensor, bits: int) -> Palette:
    """A palette of these codes (uint8 [out, in]), its table rounded and ascending, its codes renumbered to match."""
    rounded, scale = storable(table, scale)
    rounded, order = rounded.sort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    of_row = rank.repeat_interleave(GROUP_ROWS, dim=0)[: len(indices)]
    return Palette(torch.gather(of_row, 1, indices.long()).to(torch.uint8), rounded, scale, bits)
