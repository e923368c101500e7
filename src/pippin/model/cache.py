"""Key/value cache for token-by-token decoding, for rows of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from pippin.model.config import ModelConfig


class KVCache:
    """Keys and values of the tokens seen so far; every forward pass with it appends its tokens to all rows.

    Slots are used in order; what a slot means is in `positions_BS` and `segments_BS`: segment 0 is padding or
    not yet written, so rows of different lengths share a cache (pad the shorter ones with segment 0, left or right).
    Forward passes with a cache are for inference: gradients do not flow through it.

    Args:
        config: the model's shape.
        batch: rows.
        max_len: slots per row, in tokens.
        dtype: of keys and values: the model's compute dtype.
        device: where it lives.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        max_len: int,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str | None = None,
    ) -> None:
        # Zeros, not empty: a masked slot has weight 0, and 0 times whatever memory held may be NaN.
        shape = (config.n_layers, batch, config.n_kv_heads, max_len, config.d_head)  # as attention reads them
        self.k_LBKSH = torch.zeros(shape, dtype=dtype, device=device)
        self.v_LBKSH = torch.zeros(shape, dtype=dtype, device=device)
        self.positions_BS = torch.zeros(batch, max_len, dtype=torch.int64, device=device)
        self.segments_BS = torch.zeros(batch, max_len, dtype=torch.int64, device=device)
        self.length = 0
        self.plain = True  # every slot so far: segment 1, position = slot (known without reading the device)

    @property
    def max_len(self) -> int:
        """Slots per row."""
        return self.segments_BS.shape[1]

    @torch.no_grad()
    def append(self, positions: Tensor, segment_ids_BT: Tensor | None, plain: bool) -> None:
        """Claim the next slots of all rows for T tokens and describe them; `write` then fills them layer by layer.

        Raises:
            ValueError: the cache is full.
        """
        new_length = self.length + positions.shape[-1]
        if new_length > self.max_len:
            raise ValueError(f"cache: {new_length} tokens do not fit in {self.max_len} slots")
        self.positions_BS[:, self.length : new_length] = positions
        self.segments_BS[:, self.length : new_length] = 1 if segment_ids_BT is None else segment_ids_BT
        self.length = new_length
        self.plain = self.plain and plain

    @torch.no_grad()
    def write(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values in the slots claimed last; returns all [B, length, K, H] so far."""
        start = self.length - k_BTKH.shape[1]
        k_BSKH = self.k_LBKSH[layer, :, :, : self.length].transpose(1, 2)
        v_BSKH = self.v_LBKSH[layer, :, :, : self.length].transpose(1, 2)
        k_BSKH[:, start:] = k_BTKH
        v_BSKH[:, start:] = v_BTKH
        return k_BSKH, v_BSKH

    # For batches whose rows come and go (`pippin.rollout`): tokens lie anywhere in a row, as its slots' meaning allows.

    @torch.no_grad()
    def clear(self, length: int) -> None:
        """Forget all rows; the next token will lie after `length` slots, which `place` may fill."""
        self.segments_BS.zero_()
        self.length = length
        self.plain = True

    @torch.no_grad()
    def place(self, row: int, k_LKTH: Tensor, v_LKTH: Tensor) -> int:
        """Make a row hold one document alone: T tokens at positions 0, 1 ... in its last slots. Returns the first slot.

        After `clear` every row must be given a document before the next forward pass.

        Raises:
            ValueError: the cache is shorter than the document.
        """
        first = self.length - k_LKTH.shape[2]
        if first < 0:
            raise ValueError(f"cache: {k_LKTH.shape[2]} tokens do not fit in the {self.length} slots so far")
        self.k_LBKSH[:, row, :, first : self.length] = k_LKTH
        self.v_LBKSH[:, row, :, first : self.length] = v_LKTH
        self.segments_BS[row] = 0
        self.segments_BS[row, first : self.length] = 1
        self.positions_BS[row, first : self.length] = torch.arange(self.length - first, device=self.positions_BS.device)
        self.plain = self.plain and first == 0
        return first

    @torch.no_grad()
    def realign(self, first: int, length: int) -> None:
        """Let the slots from `first` on be the last of `length` ones; what is before them is forgotten."""
        count = self.length - first
        self.plain = self.plain and first == 0 and length == self.length
        for stored, dim in ((self.k_LBKSH, 3), (self.v_LBKSH, 3), (self.positions_BS, 1), (self.segments_BS, 1)):
            stored.narrow(dim, length - count, count).copy_(stored.narrow(dim, first, count).clone())
        self.segments_BS[:, : length - count] = 0
        self.length = length

    @torch.no_grad()
    def keep(self, rows: list[int]) -> None:
        """Only these rows stay, in this order."""
        self.k_LBKSH, self.v_LBKSH = self.k_LBKSH[:, rows], self.v_LBKSH[:, rows]
        self.positions_BS, self.segments_BS = self.positions_BS[rows], self.segments_BS[rows]
