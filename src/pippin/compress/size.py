"""What a compressed model costs, counted in two ways that are often confused.

Bits per weight: the projections alone, with their tables and row scales. Bits per parameter: everything in the file,
embedding, norms and (if asked for) a 16-bit adapter included, over all parameters of the base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pippin.model.codes import GROUP_ROWS, codes_shape

if TYPE_CHECKING:
    from pippin.model.transformer import Transformer

_FLOAT16_BYTES = 2
_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Size:
    """Bytes of the tensors of a model as stored, by part, and what they serve."""

    projection_weights: int
    parameters: int
    projection_bytes: int
    embedding_bytes: int
    norm_bytes: int
    adapter_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits for one weight of the projections, tables and row scales included (the report's bpw)."""
        return 8 * self.projection_bytes / self.projection_weights

    @property
    def total_bytes(self) -> int:
        """All tensors; a file adds its header, and the directory its configuration and tokenizer."""
        return self.projection_bytes + self.embedding_bytes + self.norm_bytes + self.adapter_bytes

    @property
    def bits_per_parameter(self) -> float:
        """Bits of everything, adapter included, for one parameter of the base."""
        return 8 * self.total_bytes / self.parameters


def projection_bytes(out_features: int, in_features: int, bits: int) -> int:
    """Bytes of a palettized projection: codes with their padding, int8 tables and float16 row scales."""
    tables = -(-out_features // GROUP_ROWS) * 2**bits
    return math.prod(codes_shape(bits, out_features, in_features)) + tables + _FLOAT16_BYTES * out_features


def model_size(model: Transformer, bits: Mapping[str, int] | None = None, adapter_rank: int = 0) -> Size:
    """Size of `model` as it is, or as it would be after palettizing by a plan.

    Args:
        bits: plan by projection name; with it, the embedding counts as int8. None counts the model as it is
            (dense tensors as float32).
        adapter_rank: rank of one 16-bit adapter on all projections to count; 0 for none.
    """
    projections = adapter = 0
    for name, linear in model.linears():
        out_features, in_features = linear.out_features, linear.in_features
        chosen = linear.bits if bits is None else bits[name]
        if chosen:
            projections += projection_bytes(out_features, in_features, chosen)
        else:
            projections += _FLOAT32_BYTES * out_features * in_features
        adapter += _FLOAT16_BYTES * adapter_rank * (out_features + in_features)
    rows, width = model.embed.num_embeddings, model.embed.embedding_dim
    tables = 1 if model.head is None else 2
    int8 = bits is not None or model.embed.codes is not None
    counts = model.config.n_params()
    weights = model.config.n_matmul_params()
    return Size(
        projection_weights=weights,
        parameters=counts.total,
        projection_bytes=projections,
        embedding_bytes=tables * rows * (width + _FLOAT32_BYTES if int8 else _FLOAT32_BYTES * width),
        norm_bytes=_FLOAT32_BYTES * (counts.non_embedding - weights),
        adapter_bytes=adapter,
    )
