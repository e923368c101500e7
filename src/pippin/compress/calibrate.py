"""What calibration text puts into each matrix: second moments of the inputs, block by block in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pippin.errors import UserError
from pippin.model.attention import make_layout

if TYPE_CHECKING:
    from pippin.data.loader import Batch
    from pippin.model.linear import Linear
    from pippin.model.transformer import Transformer

# Projections of a block that read the same input, by the one at which it is looked at.
SHARED_INPUT = {
    "attention.q": ("attention.q", "attention.k", "attention.v"),
    "attention.o": ("attention.o",),
    "ffn.gate": ("ffn.gate", "ffn.up"),
    "ffn.down": ("ffn.down",),
}


@torch.no_grad()
def second_moments(
    model: Transformer, batches: Iterable[Batch], load_block: Callable[[int], None] | None = None
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """H = E[x x'] of the inputs of every matrix, one block of the float model after the other.

    Between two blocks only the residual stream of the calibration tokens is kept, so that a model that does not fit in
    memory can be read block by block.

    Args:
        model: its embedding is loaded; its blocks too, unless `load_block` is given.
        batches: tokens, positions and segment ids, all [B, T]; positions of segment 0 (padding) do not count.
        load_block: called with the number of each block before it runs; the caller may drop it when the next is asked.
    Yields:
        (block, {first projection that reads the input: float32 [in, in]}), keys of SHARED_INPUT.
    Raises:
        UserError: the batches hold no token.
    """
    streams, layouts, keeps = [], [], []
    device = model.norm.weight.device
    for batch in batches:
        tokens, positions, segments = (t.to(device) for t in (batch.tokens, batch.positions, batch.segment_ids))
        layouts.append(make_layout(model.config, tokens, positions, segments, None, model.compute_dtype))
        streams.append(model.embed(tokens).to(model.compute_dtype))
        keeps.append(segments != 0)
    count = sum(int(keep_BT.sum()) for keep_BT in keeps)
    if not count:
        raise UserError("calibration: no token; give at least one batch of text")
    for number, block in enumerate(model.blocks):
        if load_block is not None:
            load_block(number)
        sums: dict[str, Tensor] = {}
        for i, (layout, keep_BT) in enumerate(zip(layouts, keeps, strict=True)):
            handles = _watch(block, keep_BT, sums)
            try:
                streams[i] = block(streams[i], layout)
            finally:
                for handle in handles:
                    handle.remove()
        yield number, {name: total / count for name, total in sums.items()}


def _watch(block: nn.Module, keep_BT: Tensor, sums: dict[str, Tensor]) -> list[torch.utils.hooks.RemovableHandle]:
    """Add x'x of what the block's matrices read to `sums` while it runs."""

    def hook(name: str) -> Callable[..., None]:
        def add(_linear: Linear, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0][keep_BT].float()
            if name not in sums:
                sums[name] = torch.zeros(rows.shape[1], rows.shape[1], device=rows.device)
            sums[name].addmm_(rows.T, rows)

        return add

    return [block.get_submodule(name).register_forward_pre_hook(hook(name)) for name in SHARED_INPUT]
