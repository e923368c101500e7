"""Held-out figures of a model, source by source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pippin.data.loader import EvalReader
from pippin.evaluate.bits_per_byte import BpbResult, bits_per_byte
from pippin.model.transformer import Transformer

ROWS = 16


def heldout(
    model: Transformer, tokens: Path, sources: Sequence[str], seq_len: int, max_tokens: int, slot: int | None = None
) -> dict[str, BpbResult]:
    """Score the first documents of each source's held-out split.

    Args:
        max_tokens: about how many tokens to score of each source.
        slot: the adapter slot to use; None for none.
    """
    return {
        source: bits_per_byte(model, EvalReader(tokens, source, "heldout", seq_len, ROWS, max_tokens), slot=slot)
        for source in sources
    }


def as_bpb(results: Mapping[str, BpbResult]) -> dict[str, float]:
    """`bpb_<source>`: bits per byte."""
    return {f"bpb_{source}": result.bits_per_byte for source, result in results.items()}


def as_losses(results: Mapping[str, BpbResult]) -> dict[str, float]:
    """`loss_<source>`: nats per token, the unit of the training loss."""
    return {f"loss_{source}": result.nll_nats_total / result.tokens for source, result in results.items()}
