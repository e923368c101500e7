"""What a frozen teacher says: its most likely next token at every position."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pippin.data.loader import Batch
from pippin.model.cross_entropy import CHUNK_LOGITS, MIN_CHUNK
from pippin.model.transformer import Transformer


@torch.no_grad()
def most_likely(teacher: Transformer, batch: Batch) -> Tensor:
    """The teacher's top-1 next token at each position, int64 [B, T].

    Logits exist for some hundreds of tokens at a time. Of tokens that are equally likely in the teacher's compute
    type, the lowest id wins on a processor.
    """
    where = {"positions_BT": batch.positions, "segment_ids_BT": batch.segment_ids}
    h_BTD = cast(Tensor, teacher(batch.tokens, **where, hidden_only=True))
    head_VD = teacher.head_weight().to(h_BTD.dtype)
    chunk = max(MIN_CHUNK, CHUNK_LOGITS // head_VD.shape[0])
    part = (teacher.embed if teacher.head is None else teacher.head).part
    logits = (F.linear(h, head_VD) for h in h_BTD.flatten(0, 1).split(chunk))
    found = [each.argmax(-1) if part is None else part.arg_max(each) for each in logits]
    return torch.cat(found).view(h_BTD.shape[:2])
