"""Held-out bits per byte of a model, source by source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pippin.data.loader import EvalReader
from pippin.evaluate.bits_per_byte import bits_per_byte
from pippin.model.transformer import Transformer

ROWS = 16


def heldout(
    model: Transformer, tokens: Path, sources: Sequence[str], seq_len: int, max_tokens: int, slot: int | None = None
) -> dict[str, float]:
    """`bpb_<source>` for each source: bits per byte over the first documents of its held-out split.

    Args:
        max_tokens: about how many tokens to score of each source.
        slot: the adapter slot to use; None for none.
    """
    return {
        f"bpb_{source}": bits_per_byte(
            model, EvalReader(tokens, source, "heldout", seq_len, ROWS, max_tokens), slot=slot
        ).bits_per_byte
        for source in sources
    }
