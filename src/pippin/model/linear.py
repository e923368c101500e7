"""The one linear layer: dense or palettized weight, bias, FFN mask, adapters in fixed slots."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pippin.model import codes as code_layout
from pippin.model.prepacked import multiply


class Linear(nn.Linear):
    """y = x W^T + bias + scale * B (A x); a subclass of nn.Linear, as tensor-parallel styles demand.

    The weight has one of two kinds, changed only before sharding and compiling:
    - dense: parameter `weight` [out, in], float32, cast to the activation's dtype when used;
    - packed: buffers `codes` uint8 [G, n_blocks, 64], `table` float32 [G, 2**bits] (one per 16 rows) and `scale`
      float32 [out]; `weight` is None and `bits` is 4 or 2.

    `bias` [out] is a float32 parameter in both kinds, None by default (some imported models have it on q, k and v).
    `mask` [in], if set, multiplies the input (FFN pruning, on `down`).
    Adapters (LoRA, Hu et al. 2021) live in fixed slots: `lora_A` [slots, r, in], `lora_B` [slots, out, r] and
    `lora_scale` [slots] (alpha / r), chosen per row of the batch; swapping one is a copy into its slot.

    `mup_width` is the width by which the optimizer scales the update (report section 3.1, simplified muP).
    `shard` says how tensor parallelism cuts it: "column" cuts out_features (weight, codes, table, scale, bias, lora_B),
    "row" cuts in_features (weight, codes, lora_A); the rank is never cut. `part` is then (which part this is, of how
    many), and `in_features` or `out_features` is the part's; so is the mask that a cut layer is given.

    `prepacked` is a copy of the weight that is multiplied by instead, while `Transformer.unchanging` is open.
    """

    codes: Tensor | None
    table: Tensor
    scale: Tensor
    lora_scale: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        mup_width: int,
        shard: Literal["column", "row"],
        bias: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.mup_width = mup_width
        self.shard = shard
        self.part = (0, 1)
        self.bits = 0
        self.mask: Tensor | None = None
        self.prepacked: Tensor | None = None
        for name in ("codes", "table", "scale", "lora_scale"):
            self.register_buffer(name, None)
        self.register_parameter("lora_A", None)
        self.register_parameter("lora_B", None)

    def reset_parameters(self) -> None:
        """Normal with variance 1 / fan_in, for every matrix (no depth scaling); bias 0."""
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x_BTI: Tensor, slots_B: Tensor | None = None) -> Tensor:
        """Multiply.

        Args:
            x_BTI: input, in the compute dtype.
            slots_B: adapter slot of each row, int64, -1 for none; None leaves all adapters out.
        Returns:
            [B, T, out] in the input's dtype.
        """
        if self.mask is not None:
            x_BTI = x_BTI * self.mask.to(x_BTI.dtype)
        bias = None if self.bias is None else self.bias.to(x_BTI.dtype)
        if self.prepacked is not None:
            y_BTO = multiply(x_BTI, self.prepacked, bias)
        else:
            y_BTO = F.linear(x_BTI, self.dense_weight().to(x_BTI.dtype), bias)
        if slots_B is None or self.lora_A is None:
            return y_BTO
        return y_BTO + self._adapter(x_BTI, slots_B)

    def _adapter(self, x_BTI: Tensor, slots_B: Tensor) -> Tensor:
        chosen_B = slots_B.clamp(min=0)
        a_BRI = self.lora_A[chosen_B].to(x_BTI.dtype)
        b_BOR = self.lora_B[chosen_B].to(x_BTI.dtype)
        scale_B = torch.where(slots_B >= 0, self.lora_scale[chosen_B], 0.0).to(x_BTI.dtype)
        h_BTR = torch.bmm(x_BTI, a_BRI.mT) * scale_B[:, None, None]
        return torch.bmm(h_BTR, b_BOR.mT)

    def dense_weight(self) -> Tensor:
        """The weight [out, in] as the model uses it, float32; bias, adapters and mask are not in it."""
        if self.codes is None:
            return self.weight
        indices = code_layout.unpack(self.codes, self.bits, self.out_features, self.in_features)
        tables = self.table.repeat_interleave(code_layout.GROUP_ROWS, dim=0)[: self.out_features]
        return torch.gather(tables, 1, indices.long()) * self.scale[:, None]

    @torch.no_grad()
    def pack(self, codes: Tensor, table: Tensor, scale: Tensor, bits: int) -> None:
        """Replace the dense weight by a palettized one.

        Args:
            codes: uint8 [G, n_blocks, 64], the layout of `pippin.model.codes`.
            table: [G, 2**bits], the values that codes stand for.
            scale: [out], multiplies each row.
            bits: 4 or 2.
        """
        expected = code_layout.codes_shape(bits, self.out_features, self.in_features)
        if codes.dtype != torch.uint8 or tuple(codes.shape) != expected:
            raise ValueError(f"codes: {codes.dtype} {tuple(codes.shape)}, expected uint8 {expected}")
        if tuple(table.shape) != (expected[0], 2**bits):
            raise ValueError(f"table: {tuple(table.shape)}, expected {(expected[0], 2**bits)}")
        if tuple(scale.shape) != (self.out_features,):
            raise ValueError(f"scale: {tuple(scale.shape)}, expected {(self.out_features,)}")
        self.bits = bits
        self.codes, self.table, self.scale = codes, table.float(), scale.float()
        self.register_parameter("weight", None)

    def add_adapters(self, slots: int, rank: int) -> None:
        """Create `slots` adapter slots: A normal with variance 1 / in, B zero (so an empty slot adds nothing).

        `lora_scale` starts at 1 (alpha = rank).
        """
        like = self.weight if self.codes is None else self.table
        self.lora_A = nn.Parameter(
            torch.randn(slots, rank, self.in_features, device=like.device) * self.in_features**-0.5
        )
        self.lora_B = nn.Parameter(torch.zeros(slots, self.out_features, rank, device=like.device))
        self.lora_scale = torch.ones(slots, device=like.device)

    @torch.no_grad()
    def load_adapter(self, slot: int, A: Tensor, B: Tensor, scale: float) -> None:
        """Copy an adapter into a slot, in place: graphs, shards and the base stay as they are.

        Args:
            slot: which slot.
            A: [r, in]. A smaller rank than the slot's is padded with zeros.
            B: [out, r].
            scale: alpha / r of the adapter.
        """
        if self.lora_A is None:
            raise ValueError("no adapter slots: call add_adapters first")
        rank = A.shape[0]
        slot_rank = self.lora_A.shape[1]
        if A.shape != (rank, self.in_features) or B.shape != (self.out_features, rank) or rank > slot_rank:
            raise ValueError(
                f"adapter A {tuple(A.shape)}, B {tuple(B.shape)}: does not fit in {self.in_features}, "
                f"out {self.out_features}, rank {slot_rank}"
            )
        self.lora_A[slot].zero_()
        self.lora_B[slot].zero_()
        self.lora_A[slot, :rank].copy_(A)
        self.lora_B[slot, :, :rank].copy_(B)
        self.lora_scale[slot] = scale

    def extra_repr(self) -> str:
        kind = f"packed {self.bits}-bit" if self.bits else "dense"
        return f"{self.in_features} -> {self.out_features}, {kind}, {self.shard}"
