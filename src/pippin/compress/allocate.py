"""Which projections can do with 2 bits: the bit plan of least expected loss for a size (report section 5.1).

The report averages 3.7 bits per weight with some layers at 2 bits and the others at 4, and does not print its rule.
Ours: the rise of the loss when one projection alone is palettized, at 2 and at 4 bits; rises add up; the plan with the
least sum that fits is found exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from pippin.compress.palettize import Candidates, check_dense
from pippin.compress.size import projection_bytes
from pippin.errors import UserError
from pippin.model.cross_entropy import IGNORE

if TYPE_CHECKING:
    from pippin.data.loader import Batch
    from pippin.model.transformer import Transformer

Rises = dict[str, dict[int, float]]  # projection -> bits -> rise of the loss
# Above so many partial plans, sizes are counted in steps of 1 / MAX_PARTIAL_PLANS of what has to be saved.
MAX_PARTIAL_PLANS = 100_000
Unit = Literal["KL nats per token", "relative output error"]


@torch.no_grad()
def kl_rises(model: Transformer, found: Candidates, batches: Iterable[Batch]) -> Rises:
    """Mean KL(float model || model with one palettized projection), in nats per token, for every candidate.

    Computed in float32: differences are small.

    Args:
        model: dense; its weights are swapped while this runs and are as before when it returns.
        batches: held-in text; a few thousand tokens are enough to rank.
    """
    check_dense(model)
    compute_dtype, model.compute_dtype = model.compute_dtype, torch.float32
    try:
        reference = [(batch, torch.log_softmax(_logits(model, batch), dim=1)) for batch in batches]
        rises: Rises = {}
        for name, linear in model.linears():
            weight = linear.weight.data
            rises[name] = {}
            for bits, candidate in found[name].items():
                linear.weight.data = candidate.dense(*weight.shape).to(weight)
                rises[name][bits] = _mean_kl(model, reference)
            linear.weight.data = weight
    finally:
        model.compute_dtype = compute_dtype
    return rises


def _logits(model: Transformer, batch: Batch) -> Tensor:
    """[N, V] over the places that have a target."""
    device = model.norm.weight.device
    tokens, positions, segments = (t.to(device) for t in (batch.tokens, batch.positions, batch.segment_ids))
    return model(tokens, positions_BT=positions, segment_ids_BT=segments)[batch.targets.to(device) != IGNORE]


def _mean_kl(model: Transformer, reference: list[tuple[Batch, Tensor]]) -> float:
    total = sum(
        float(
            torch.nn.functional.kl_div(
                torch.log_softmax(_logits(model, batch), 1), logp, reduction="sum", log_target=True
            )
        )
        for batch, logp in reference
    )
    return max(0.0, total / sum(len(logp) for _, logp in reference))


def error_rises(found: Candidates) -> Rises:
    """A proxy that needs no evaluation: the share of each projection's expected squared output that is lost."""
    return {name: {bits: candidate.error for bits, candidate in options.items()} for name, options in found.items()}


def as_sensitivity(rises: Rises, unit: Unit, tokens: int) -> dict[str, Any]:
    """The form of `sensitivity.json`: {"unit", "tokens", "rises": {projection: {"2": rise, "4": rise}}}."""
    table = {name: {str(bits): rise for bits, rise in sorted(options.items())} for name, options in rises.items()}
    return {"unit": unit, "tokens": tokens, "rises": table}


def choose_bits(rises: Rises, shapes: Mapping[str, tuple[int, int]], target_bpw: float) -> dict[str, int]:
    """The plan whose rises have the least sum among all whose average is at most the target.

    Projections of one shape save the same bytes, so among them those that rise least go to 2 bits: only their number
    is open. The shapes are combined by dynamic programming over (bytes saved, sum of rises), keeping what nothing beats
    in both: exact while there are fewer than MAX_PARTIAL_PLANS such partial plans, which all models of few shapes keep.

    Args:
        rises: rise of the loss at 2 and 4 bits by projection, in any one unit.
        shapes: (out, in) of each projection.
        target_bpw: bits per projection weight, tables and row scales included.
    Returns:
        4 or 2 for every projection, in the order of `shapes`; can be stored as JSON.
    Raises:
        UserError: even with 2 bits everywhere the model does not fit.
    """
    weights = sum(out * width for out, width in shapes.values())
    at_4, at_2 = (sum(projection_bytes(*shape, bits) for shape in shapes.values()) for bits in (4, 2))
    need = int(np.ceil(at_4 - target_bpw * weights / 8))
    if need > at_4 - at_2:
        raise UserError(
            f"bits_per_weight: value {target_bpw}: below {8 * at_2 / weights:.3f}, what 2 bits everywhere cost with "
            "tables and row scales; raise it"
        )
    groups: dict[int, list[str]] = {}
    for name, shape in shapes.items():
        groups.setdefault(projection_bytes(*shape, 4) - projection_bytes(*shape, 2), []).append(name)
    costs = {name: rises[name][2] - rises[name][4] for name in shapes}
    ranked = [(saving, sorted(names, key=lambda name: (costs[name], name))) for saving, names in groups.items()]
    chosen: list[str] = []
    for (_, names), count in zip(ranked, _best_counts(ranked, costs, max(0, need)), strict=True):
        chosen += names[:count]
    return {name: 2 if name in set(chosen) else 4 for name in shapes}


def _best_counts(ranked: list[tuple[int, list[str]]], costs: Mapping[str, float], need: int) -> list[int]:
    """How many of each group, cheapest first, save `need` bytes at the least sum of costs."""
    saved, cost = np.zeros(1), np.zeros(1)
    steps: list[tuple[np.ndarray, np.ndarray]] = []  # per group: the partial plan before it, and the count
    for saving, names in ranked:
        sums = np.concatenate([[0.0], np.cumsum([costs[name] for name in names])])
        counts = np.arange(len(names) + 1)
        all_saved = np.minimum(saved[:, None] + saving * counts, need).ravel()
        all_costs = (cost[:, None] + sums).ravel()
        if len(all_saved) > MAX_PARTIAL_PLANS and need:
            step = need / MAX_PARTIAL_PLANS
            all_saved = np.where(all_saved >= need, need, np.floor(all_saved / step) * step)
        order = np.lexsort((all_costs, -all_saved))
        lowest = np.minimum.accumulate(all_costs[order])
        kept = order[np.concatenate([[True], lowest[1:] < lowest[:-1]])]
        saved, cost = all_saved[kept], all_costs[kept]
        steps.append((kept // len(counts), kept % len(counts)))
    state = int(np.flatnonzero(saved >= need)[np.argmin(cost[saved >= need])])
    found = []
    for before, count in reversed(steps):
        found.append(int(count[state]))
        state = int(before[state])
    return found[::-1]
