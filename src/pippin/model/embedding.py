"""The table that reads tokens and, tied, writes logits; an untied head is a second one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pippin.model.prepacked import multiply
from pippin.model.vocabulary import VocabularyPart


class Embedding(nn.Embedding):
    """Token embedding [V, D], dense float32 or int8 with one scale per row (report section 5.1: 8-bit embedding).

    The table is used unscaled at both ends of the model. `weight` is None when the table is int8; the buffers
    `codes` int8 [V, D] and `scale` float32 [V] are None when it is dense. Where tensor parallelism has cut the table,
    `part` says which rows are here, and `num_embeddings` counts those. `prepacked`: as in `Linear`, for `logits`.
    """

    codes: Tensor | None
    scale: Tensor

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__(vocab_size, d_model)
        self.part: VocabularyPart | None = None
        self.prepacked: Tensor | None = None
        self.register_buffer("codes", None)
        self.register_buffer("scale", None)

    def reset_parameters(self) -> None:
        """Normal with variance 1 / d_model, so that logits start with variance 1."""
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Rows [..., D] for `tokens` [...], float32 (the dtype of the table's scale or weight)."""
        if self.codes is None:
            return F.embedding(tokens, self.weight)
        return self.codes[tokens] * self.scale[tokens][..., None]

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Products with all rows, [B, T, V] in x's dtype: the table as a head."""
        if self.prepacked is not None:
            return multiply(x_BTD, self.prepacked)
        return F.linear(x_BTD, self.dense_weight().to(x_BTD.dtype))

    def dense_weight(self) -> Tensor:
        """The table [V, D] as the model uses it, float32."""
        if self.codes is None:
            return self.weight
        return self.codes * self.scale[:, None]

    @torch.no_grad()
    def pack_int8(self) -> None:
        """Replace the dense table by int8 codes with symmetric scales (absolute maximum of the row / 127)."""
        if self.codes is not None:
            raise ValueError("the embedding is already int8")
        scale = self.weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.codes = (self.weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.scale = scale.float()
        self.register_parameter("weight", None)
