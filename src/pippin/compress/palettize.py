"""Palettization of a model: every projection by a bit plan, block by block, the embedding as int8 rows.

The tied embedding becomes int8 with one scale per vocabulary entry: our reading of the report's "8-bit per-channel",
since the entry is the output channel of the head, and its scale costs one multiplication a logit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from pippin.compress.calibrate import SHARED_INPUT, second_moments, token_weights
from pippin.compress.matrix import Palette, compensated, palettize_weight, rounding
from pippin.errors import UserError
from pippin.model.codes import BITS, pack, unpack
from pippin.model.embedding import Embedding
from pippin.model.linear import Linear

if TYPE_CHECKING:
    from pippin.data.loader import Batch
    from pippin.model.transformer import Transformer

Progress = Callable[[int], None]  # called with the number of weights just done


class Candidate(NamedTuple):
    """A projection palettized at some bits, packed; `error` is the share of its squared output that is lost."""

    codes: Tensor
    table: Tensor
    scale: Tensor
    bits: int
    error: float

    def dense(self, out_features: int, in_features: int) -> Tensor:
        """The weight that it stands for, float32 [out, in]."""
        indices = unpack(self.codes, self.bits, out_features, in_features)
        return Palette(indices, self.table, self.scale, self.bits).dense()


Candidates = dict[str, dict[int, Candidate]]


def candidates(
    model: Transformer,
    batches: Sequence[Batch],
    bits: Mapping[str, tuple[int, ...]] | None = None,
    load_block: Callable[[int], None] | None = None,
    drop_block: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> Candidates:
    """Palettize every projection at every choice of bits, with error compensation; the model stays as it is.

    Args:
        model: dense.
        batches: calibration text (see `second_moments`).
        bits: choices for each projection; None tries 2 and 4 for all.
        load_block, drop_block: called with a block's number before it is needed and when it is done, so that a model
            larger than memory can pass through, with one sweep and no refits, since such a model takes long; None if
            the model is loaded, then tokens count by `token_weights`.
        progress: called with the number of weights just done.
    Raises:
        UserError: the model is already palettized, the weights or inputs are not finite, or there is no token.
    """
    check_dense(model)
    found: Candidates = {}
    weights = token_weights(model, batches) if load_block is None else None
    effort: dict[str, int] = {} if load_block is None else {"refits": 0, "sweeps": 1}
    for number, moments in second_moments(model, batches, load_block, weights):
        block = model.blocks[number]
        for first, names in SHARED_INPUT.items():
            inputs = rounding(moments.pop(first))
            for name in names:
                linear = block.get_submodule(name)
                assert isinstance(linear, Linear)
                weight = linear.weight
                full = f"blocks.{number}.{name}"
                choices = BITS if bits is None else bits[full]
                found[full] = {choice: _candidate(*compensated(weight, choice, inputs, **effort)) for choice in choices}
                if progress is not None:
                    progress(weight.numel())
        if drop_block is not None:
            drop_block(number)
    return {name: found[name] for name, _ in model.linears()}


def _candidate(palette: Palette, error: float) -> Candidate:
    return Candidate(pack(palette.indices, palette.bits), palette.table, palette.scale, palette.bits, error)


def install(model: Transformer, chosen: Mapping[str, Candidate]) -> None:
    """Replace every projection of `model` by its candidate, and every embedding by int8 rows, in place."""
    for name, linear in model.linears():
        codes, table, scale, bits, _ = chosen[name]
        linear.pack(codes, table, scale, bits)
    for module in model.modules():
        if isinstance(module, Embedding):
            module.pack_int8()


def palettize(
    model: Transformer,
    bits: Mapping[str, int],
    batches: Sequence[Batch] | None = None,
    progress: Progress | None = None,
) -> None:
    """Palettize `model` by a bit plan, in place.

    Args:
        bits: 4 or 2 for each projection, by the names of `model.linears()` (see `pippin.compress.allocate`).
        batches: calibration text for error compensation; without it each weight is rounded by itself.
        progress: called with the number of weights just done.
    Raises:
        UserError: the model is already palettized, or the plan names other projections than it has, or bits other
            than 4 and 2.
    """
    check_dense(model)
    check_plan(bits, (name for name, _ in model.linears()))
    if batches is not None:
        found = candidates(model, batches, {name: (choice,) for name, choice in bits.items()}, progress=progress)
        install(model, {name: found[name][choice] for name, choice in bits.items()})
        return
    chosen = {}
    for name, linear in model.linears():
        chosen[name] = _candidate(palettize_weight(linear.weight, bits[name]), 0.0)
        if progress is not None:
            progress(linear.weight.numel())
    install(model, chosen)


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
