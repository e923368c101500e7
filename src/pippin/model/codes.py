"""The block layout of palette codes: which bits of which byte name the value of weight [row, k].

A group is 16 output rows that share one table of values. A block is 64 bytes: 16 rows x 8 inputs at 4 bits, or
16 rows x 16 inputs at 2 bits. Inside a block, byte `4 r + j` belongs to row r, and its bit-field f (the f-th nibble
or crumb from the low end) is the code of input `4 f + j` of the block. A group is contiguous over its inputs.

One 64-byte block is one 512-bit register with a 32-bit lane a row, so that a kernel looks codes up with a shift and
a permute, without masking; the same bytes serve integer, bfloat16 and float32 kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP_ROWS = 16
BLOCK_BYTES = 64
BITS = (2, 4)
_LANE = 4  # bytes of a row in a block


def block_inputs(bits: int) -> int:
    """Number of inputs (columns) that one block covers: 8 at 4 bits, 16 at 2 bits.

    Raises:
        ValueError: `bits` is neither 4 nor 2.
    """
    if bits not in BITS:
        raise ValueError(f"bits: value {bits!r}: must be one of {BITS}")
    return _LANE * (8 // bits)


def codes_shape(bits: int, out_features: int, in_features: int) -> tuple[int, int, int]:
    """Shape (groups, blocks, 64) of the codes of an [out_features, in_features] weight; partial ones are padded."""
    return -(-out_features // GROUP_ROWS), -(-in_features // block_inputs(bits)), BLOCK_BYTES


def pack(indices: Tensor, bits: int) -> Tensor:
    """Pack table indices [out, in] (integers in 0 .. 2**bits - 1) into codes uint8 [groups, blocks, 64].

    Rows beyond the last group of 16 and inputs beyond the last block are padded with code 0.

    Raises:
        ValueError: not a matrix, an index outside the table, or `bits` neither 4 nor 2.
    """
    if indices.dim() != 2:
        raise ValueError(f"indices: shape {tuple(indices.shape)}: must be [out, in]")
    groups, blocks, _ = codes_shape(bits, *indices.shape)
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < 2**bits:
        raise ValueError(f"indices: values {int(indices.min())} .. {int(indices.max())}: must be in 0 .. {2**bits - 1}")
    padded = indices.new_zeros(groups * GROUP_ROWS, blocks * block_inputs(bits), dtype=torch.uint8)
    padded[: indices.shape[0], : indices.shape[1]] = indices
    # [group, row, block, field, lane byte] -> [field, group, block, row, lane byte]
    fields = padded.view(groups, GROUP_ROWS, blocks, 8 // bits, _LANE).permute(3, 0, 2, 1, 4)
    codes = fields[0].clone()
    for field in range(1, 8 // bits):
        codes |= fields[field] << (bits * field)
    return codes.reshape(groups, blocks, BLOCK_BYTES)


def unpack(codes: Tensor, bits: int, out_features: int, in_features: int) -> Tensor:
    """The table indices uint8 [out_features, in_features] of `codes` [groups, blocks, 64]: the inverse of `pack`.

    Raises:
        ValueError: the shape of `codes` is not that of such a weight, or `bits` neither 4 nor 2.
    """
    groups, blocks, _ = shape = codes_shape(bits, out_features, in_features)
    if tuple(codes.shape) != shape:
        raise ValueError(f"codes: shape {tuple(codes.shape)}: must be {shape} for [{out_features}, {in_features}]")
    lanes = codes.view(groups, blocks, GROUP_ROWS, _LANE).transpose(1, 2)
    mask = 2**bits - 1
    fields = torch.stack([(lanes >> (bits * field)) & mask for field in range(8 // bits)], dim=3)
    # [group, row, block, field, lane byte]
    indices = fields.reshape(groups * GROUP_ROWS, blocks * block_inputs(bits))
    return indices[:out_features, :in_features]
