"""Bits per byte of a model that is larger than the memory."""

from __future__ import annotations

import torch
from torch import Tensor

from pippin.data.loader import Batch, EvalReader
from pippin.evaluate.bits_per_byte import BpbResult
from pippin.interop.hf import BlockReader
from pippin.model.attention import Layout, make_layout
from pippin.model.cross_entropy import Targets, linear_cross_entropy


def streamed_bits_per_byte(
    model_reader: BlockReader, reader: EvalReader, compute_dtype: torch.dtype = torch.bfloat16
) -> BpbResult:
    """What `bits_per_byte` gives, reading one block at a time and taking all rows through it before the next.

    In memory are one block or one table in float32 and the hidden states of every row.
    """
    model = model_reader.skeleton(compute_dtype)
    batches = list(reader)

    def layout(batch: Batch) -> Layout:
        return make_layout(model.config, batch.tokens, batch.positions, batch.segment_ids, None, compute_dtype)

    with torch.no_grad():
        model_reader.load(model, "embed")
        hidden: list[Tensor] = [model.embed(batch.tokens).to(compute_dtype) for batch in batches]
        model.embed.to("meta")
        for number, block in enumerate(model.blocks):
            model_reader.load(model, f"blocks.{number}")
            hidden = [block(x_BTD, layout(batch)) for x_BTD, batch in zip(hidden, batches, strict=True)]
            block.to("meta")
        for part in ("norm", "embed" if model.head is None else "head"):
            model_reader.load(model, part)
        nll, tokens = 0.0, 0
        for x_BTD, batch in zip(hidden, batches, strict=True):
            loss = linear_cross_entropy(model.norm(x_BTD), model.head_weight(), Targets(batch.targets))
            nll += float(loss.nll)
            tokens += int(loss.count)
    return BpbResult.of(nll, tokens, reader.n_bytes)
