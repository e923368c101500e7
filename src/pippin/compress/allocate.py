"""Which projections can do with 2 bits: a bit plan for a target of bits per weight (report section 5.1).

The report averages 3.7 bits per weight with some layers at 2 bits and the others at 4, and does not print its rule.
Ours: the rise of the layer's expected squared output error from 4 to 2 bits, relative to its output and per weight;
the projections where it is least go to 2 bits until the model fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pippin.compress.palettize import check_dense, palettize_weight
from pippin.compress.size import projection_bytes
from pippin.errors import UserError

if TYPE_CHECKING:
    from pippin.model.transformer import Transformer


@torch.no_grad()
def error_rises(
    model: Transformer,
    second_moments: Mapping[str, Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Rise of tr(dW H dW') / tr(W H W') from 4 to 2 bits for every projection, H the diagonal of `second_moments`.

    A proxy: it needs no evaluation of the model. `progress` is called with the number of weights just done.

    Raises:
        UserError: the model is already palettized.
    """
    check_dense(model)
    rises = {}
    for name, linear in model.linears():
        moment = None if second_moments is None else second_moments[name]
        weight = linear.weight.detach()
        importance = torch.ones(()) if moment is None else moment.to(weight.device)
        output = (importance * weight.square()).sum().clamp(min=torch.finfo(torch.float32).tiny)
        errors = {
            bits: (importance * (weight - palettize_weight(weight, bits, moment).dense()).square()).sum()
            for bits in (2, 4)
        }
        rises[name] = float((errors[2] - errors[4]) / output)
        if progress is not None:
            progress(weight.numel())
    return rises


def choose_bits(rises: Mapping[str, float], shapes: Mapping[str, tuple[int, int]], target_bpw: float) -> dict[str, int]:
    """Greedy bit plan: 2 bits where the rise per weight is least, until the average is at most the target.

    Args:
        rises: cost of going from 4 to 2 bits, by projection, in any one unit.
        shapes: (out, in) of each projection.
        target_bpw: bits per projection weight, tables and row scales included.
    Returns:
        4 or 2 for every projection, in the order of `shapes`; can be stored as JSON.
    Raises:
        UserError: even with 2 bits everywhere the model does not fit.
    """
    weights = {name: out * width for name, (out, width) in shapes.items()}
    cost = {name: {bits: projection_bytes(*shape, bits) for bits in (2, 4)} for name, shape in shapes.items()}
    budget = target_bpw * sum(weights.values()) / 8
    least = sum(sizes[2] for sizes in cost.values())
    if least > budget:
        raise UserError(
            f"target_bpw: value {target_bpw}: below {8 * least / sum(weights.values()):.3f}, what 2 bits everywhere "
            "cost with tables and row scales; raise it"
        )
    plan = dict.fromkeys(shapes, 4)
    total = sum(sizes[4] for sizes in cost.values())
    by_rise = sorted(shapes, key=lambda name: (rises[name] / weights[name], name))
    lowered = []
    for name in by_rise:
        if total <= budget:
            break
        plan[name] = 2
        total -= cost[name][4] - cost[name][2]
        lowered.append(name)
    for name in reversed(lowered):  # the last one overshot: give 4 bits back to whatever still fits
        if total + cost[name][4] - cost[name][2] <= budget:
            plan[name] = 4
            total += cost[name][4] - cost[name][2]
    return plan


def plan_bits(
    model: Transformer,
    target_bpw: float,
    second_moments: Mapping[str, Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Bit plan of a dense model for `target_bpw` bits per weight, tables and row scales included.

    See `error_rises` and `choose_bits`, which raises UserError when the target cannot be reached.
    """
    shapes = {name: (linear.out_features, linear.in_features) for name, linear in model.linears()}
    return choose_bits(error_rises(model, second_moments, progress), shapes, target_bpw)
