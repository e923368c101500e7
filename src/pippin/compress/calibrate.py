"""What calibration text puts into each matrix: second moments of the inputs, block by block in bounded memory.

Not every token matters alike: where the model is sure of what comes next, a changed activation changes nothing. With
`token_weights` an input counts as much as the loss feels an error in what is computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pippin.errors import UserError
from pippin.model.attention import make_layout
from pippin.model.cross_entropy import IGNORE

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


# No token counts for more than this many average ones: a few surprises must not decide alone.
MOST_WEIGHT = 10.0
_COLUMNS = 512  # of H that are summed in one product
Weights = dict[tuple[int, str], Tensor]  # (block, first projection that reads the input) -> [B, T]


def token_weights(model: Transformer, batches: Iterable[Batch], seed: int = 0) -> list[Weights]:
    """How much the loss feels an error in the outputs of each group of matrices, for each token of each batch.

    The mean square of the loss' gradient in those outputs, the loss being that of tokens drawn from the model's own
    predictions: the trace of the Fisher information of a token's outputs. Scaled to mean 1 over the tokens and cut at
    MOST_WEIGHT. The model is whole in memory; its parameters are left as they are.

    Source: ours in this form; Kim et al. 2025 (GuidedQuant) weigh by gradients for groups of outputs.
    """
    generator = torch.Generator().manual_seed(seed)
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    model.embed.weight.requires_grad_(True)  # so that there is a graph at all
    found = []
    try:
        for batch in batches:
            squares: Weights = {}
            handles = [
                module.register_forward_hook(_gradient_hook(squares, (number, first)))
                for number, block in enumerate(model.blocks)
                for first, names in SHARED_INPUT.items()
                for module in map(block.get_submodule, names)
            ]
            try:
                _drawn_loss(model, batch, generator).backward()
            finally:
                for handle in handles:
                    handle.remove()
            model.embed.weight.grad = None
            keep_BT = batch.segment_ids.to(model.norm.weight.device) != 0
            found.append({key: _scaled(square_BT, keep_BT) for key, square_BT in squares.items()})
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    return found


def _gradient_hook(squares: Weights, key: tuple[int, str]) -> Callable[..., None]:
    def watch(_module: nn.Module, _inputs: tuple[Tensor, ...], output_BTO: Tensor) -> None:
        def add(gradient_BTO: Tensor) -> None:
            square_BT = gradient_BTO.float().square().sum(2)
            squares[key] = squares[key] + square_BT if key in squares else square_BT

        output_BTO.register_hook(add)

    return watch


def _drawn_loss(model: Transformer, batch: Batch, generator: torch.Generator) -> Tensor:
    device = model.norm.weight.device
    tokens, positions, segments = (t.to(device) for t in (batch.tokens, batch.positions, batch.segment_ids))
    logits_BTV = model(tokens, positions_BT=positions, segment_ids_BT=segments)
    logits = logits_BTV[batch.targets.to(device) != IGNORE]
    drawn = torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=generator)[:, 0]
    return torch.nn.functional.cross_entropy(logits, drawn.to(device), reduction="sum")


def _scaled(square_BT: Tensor, keep_BT: Tensor) -> Tensor:
    mean = square_BT[keep_BT].mean()
    return (square_BT / mean).clamp(max=MOST_WEIGHT) if mean > 0 else torch.ones_like(square_BT)


@torch.no_grad()
def second_moments(
    model: Transformer,
    batches: Iterable[Batch],
    load_block: Callable[[int], None] | None = None,
    weights: Sequence[Weights] | None = None,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """H = E[w x x'] of the inputs of every matrix, one block of the float model after the other.

    Between two blocks only the residual stream of the calibration tokens is kept, so that a model that does not fit in
    memory can be read block by block.

    Args:
        model: its embedding is loaded; its blocks too, unless `load_block` is given.
        batches: tokens, positions and segment ids, all [B, T]; positions of segment 0 (padding) do not count.
        load_block: called with the number of each block before it runs; the caller may drop it when the next is asked.
        weights: of the tokens, from `token_weights` with the same batches; None weighs all alike.
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
            of_block = {key: w for (n, key), w in weights[i].items() if n == number} if weights else {}
            handles = _watch(block, keep_BT, sums, of_block)
            try:
                streams[i] = block(streams[i], layout)
            finally:
                for handle in handles:
                    handle.remove()
        yield number, {name: (half.triu() + half.triu(1).T).div_(count) for name, half in sums.items()}


def _watch(
    block: nn.Module, keep_BT: Tensor, sums: dict[str, Tensor], weights: dict[str, Tensor]
) -> list[torch.utils.hooks.RemovableHandle]:
    """Add w x'x of what the block's matrices read to `sums` while it runs: on and above the diagonal."""

    def hook(name: str) -> Callable[..., None]:
        def add(_linear: Linear, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0][keep_BT].float()
            if name in weights:
                rows = rows * weights[name][keep_BT].sqrt()[:, None]
            if name not in sums:
                sums[name] = torch.zeros(rows.shape[1], rows.shape[1], device=rows.device)
            for start in range(0, rows.shape[1], _COLUMNS):
                part = slice(start, start + _COLUMNS)
                sums[name][part, start:].addmm_(rows[:, part].T, rows[:, start:])

        return add

    return [block.get_submodule(name).register_forward_pre_hook(hook(name)) for name in SHARED_INPUT]
