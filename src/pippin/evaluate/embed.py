"""Texts as vectors by a model of ours: the mean of its final hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from pippin.errors import UserError
from pippin.model.transformer import Transformer


@torch.inference_mode()
def mean_hidden_states(model: Transformer, sequences: Sequence[Sequence[int]], batch_size: int = 32) -> np.ndarray:
    """The mean over its tokens of what the head would multiply, float32 [N, D]; see `data.embedding_dedup.unit`.

    Args:
        sequences: token ids; of longer ones the first max_seq_len are read.
        batch_size: of sequences of like length, padded on the right.

    Raises:
        UserError: an empty sequence.
    """
    if empty := [number for number, ids in enumerate(sequences) if not ids]:
        raise UserError(f"sequence {empty[0]}: has no tokens; leave empty texts out")
    device = next(model.parameters()).device
    found = np.zeros((len(sequences), model.config.d_model), np.float32)
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
    for begin in range(0, len(order), batch_size):
        numbers = order[begin : begin + batch_size]
        rows = [list(sequences[number])[: model.config.max_seq_len] for number in numbers]
        longest = max(map(len, rows))
        tokens_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
        lengths_B1 = torch.tensor([[len(row)] for row in rows], device=device)
        segments_BT = (torch.arange(longest, device=device) < lengths_B1).long()
        h_BTD = cast(Tensor, model(tokens_BT, segment_ids_BT=segments_BT, hidden_only=True)).float()
        means_BD = (h_BTD * segments_BT[..., None]).sum(1) / lengths_B1
        found[numbers] = means_BD.cpu().numpy()
    return found
