"""The block layout of codes: a fixed formula, checked element by element, and an exact round trip."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pippin.model import codes


def scalar_code(packed: torch.Tensor, bits: int, row: int, k: int) -> int:
    """The code of weight [row, k], written from the format's text and with plain integers."""
    per_block = {4: 8, 2: 16}[bits]
    field, lane = divmod(k % per_block, 4)
    byte = int(packed[row // 16, k // per_block, 4 * (row % 16) + lane])
    return byte // (2**bits) ** field % 2**bits


@given(bits=st.sampled_from([2, 4]), rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_unpack_is_the_inverse_of_pack(bits: int, rows: int, columns: int, seed: int) -> None:
    indices = torch.randint(2**bits, (rows, columns), generator=torch.Generator().manual_seed(seed))
    packed = codes.pack(indices, bits)
    assert packed.dtype == torch.uint8
    assert tuple(packed.shape) == codes.codes_shape(bits, rows, columns)
    assert torch.equal(codes.unpack(packed, bits, rows, columns).long(), indices)


@pytest.mark.parametrize("bits", [2, 4])
def test_layout_is_the_documented_one(bits: int) -> None:
    indices = torch.randint(2**bits, (35, 37), generator=torch.Generator().manual_seed(1))
    packed = codes.pack(indices, bits)
    for row in range(35):
        for k in range(37):
            assert scalar_code(packed, bits, row, k) == indices[row, k]


def test_one_byte_by_hand() -> None:
    indices = torch.zeros(16, 16, dtype=torch.long)
    indices[3, 2] = 0x9  # block 0, byte 4*3+2, low nibble
    indices[3, 6] = 0xC  # same byte, high nibble
    packed = codes.pack(indices, 4)
    assert packed[0, 0, 14] == 0xC9
    assert int(packed.sum()) == 0xC9
    crumbs = torch.zeros(16, 16, dtype=torch.long)
    crumbs[3, [2, 6, 10, 14]] = torch.tensor([1, 2, 3, 0])
    packed = codes.pack(crumbs, 2)
    assert packed[0, 0, 14] == 1 + 4 * 2 + 16 * 3
    assert int(packed.sum()) == 57


def test_padding_is_code_zero() -> None:
    packed = codes.pack(torch.full((17, 9), 3), 2)
    whole = codes.unpack(packed, 2, 32, 16)
    assert int(whole[17:].sum()) == 0
    assert int(whole[:, 9:].sum()) == 0


def test_bad_input_raises() -> None:
    with pytest.raises(ValueError, match="must be in 0"):
        codes.pack(torch.tensor([[4]]), 2)
    with pytest.raises(ValueError, match="bits"):
        codes.pack(torch.tensor([[1]]), 3)
    with pytest.raises(ValueError, match="codes: shape"):
        codes.unpack(torch.zeros(1, 2, 64, dtype=torch.uint8), 4, 16, 8)
