"""Dropout whose masks are a function of seed, step and token: no generator has a state to save.

A mask does not depend on how many processes share a batch, on micro-batches, or on whether activations are computed
again in the backward pass. The report says 0.1 (afm 6.3), not where. AXLearn sets one rate for all its dropouts; of
these we have the embedding's and the two sublayers' outputs, before they are added to the residual stream, and not
those inside attention (its kernels take no mask of the weights), inside the FFN and behind the last norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


def _signed(value: int, bits: int) -> int:
    """An integer as one of so many bits, as tensors have it."""
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


# Multipliers and shifts of splitmix64 and of murmur3's 32-bit finaliser, both in the public domain.
_STEP = _signed(0x9E3779B97F4A7C15, 64)
_MIX_64 = ((30, _signed(0xBF58476D1CE4E5B9, 64)), (27, _signed(0x94D049BB133111EB, 64)), (31, 1))
_MIX_32 = ((16, _signed(0x85EBCA6B, 32)), (13, _signed(0xC2B2AE35, 32)), (16, 1))
_CHANNEL = _signed(0x9E3779B1, 32)


def _mix(x: Tensor, rounds: tuple[tuple[int, int], ...], bits: int) -> Tensor:
    for shift, factor in rounds:
        # Shifts of signed integers bring copies of the sign: they are masked off.
        x = (x ^ ((x >> shift) & ((1 << (bits - shift)) - 1))) * factor
    return x


class Drop(NamedTuple):
    """What one place of the model drops: a key [B, T] (int64) for each token, and the rate."""

    keys_BT: Tensor
    rate: float

    def at(self, place: int) -> Drop:
        """The same for another place."""
        return Drop(_mix(self.keys_BT + _signed(place * _STEP, 64), _MIX_64, 64), self.rate)

    def own(self, part: int, length: int) -> Drop:
        """Part number `part` of tokens that are cut into parts of `length`."""
        return Drop(self.keys_BT.split(length, dim=1)[part], self.rate)


@dataclass(frozen=True)
class Dropout:
    """What the rows of one micro-batch drop.

    Attributes:
        rate: the share of values that become 0, from 0 to below 1; the others are divided by 1 - rate.
        seed: of the run.
        step: of the batch.
        first_row: number of the micro-batch's first row in the batch of the step.
    """

    rate: float
    seed: int
    step: int
    first_row: int

    def tokens(self, tokens_BT: Tensor, positions_BT: Tensor | None, segment_ids_BT: Tensor | None) -> Drop:
        """The keys of tokens, by row, segment and position; None as in the model's forward pass."""
        rows, length = tokens_BT.shape
        device = tokens_BT.device
        if positions_BT is None:
            positions_BT = torch.arange(length, device=device).expand(rows, length)
        keys = torch.full((rows, 1), _signed(self.seed, 64), dtype=torch.int64, device=device)
        numbers = torch.arange(self.first_row, self.first_row + rows, device=device)[:, None]
        segments = torch.ones_like(positions_BT) if segment_ids_BT is None else segment_ids_BT
        for each in (torch.full_like(keys, self.step), numbers, segments, positions_BT):
            keys = _mix(keys * _STEP + each, _MIX_64, 64)
        return Drop(keys, self.rate)


def dropped(x_BTD: Tensor, drop: Drop | None, place: int = 0) -> Tensor:
    """Set values to 0, the others divided by 1 - rate; without a `drop`, x itself."""
    if drop is None:
        return x_BTD
    keys_BT1 = drop.at(place).keys_BT[..., None].to(torch.int32)
    channels_D = torch.arange(x_BTD.shape[-1], dtype=torch.int32, device=x_BTD.device) * _CHANNEL
    noise_BTD = _mix(keys_BT1 + channels_D, _MIX_32, 32)
    falls_BTD = noise_BTD < round(drop.rate * 2**32) - 2**31
    return (x_BTD * (1 / (1 - drop.rate))).masked_fill(falls_BTD, 0)
