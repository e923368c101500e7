"""Can a model find a fact in a long row? Greedy exact match on the answer, one question a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pippin.data.long_questions import Row
from pippin.evaluate.exact_match import Proportion
from pippin.model.transformer import Transformer


def retrieved(model: Transformer, rows: Sequence[Row], eos_id: int, batch_tokens: int = 16_384) -> list[bool]:
    """For each row whether greedy decoding after the last question gives exactly its answer.

    The answer is given as input and every one of its tokens must be the model's most likely one: then, and only then,
    greedy decoding would have written it. Rows have one length. Longer ones than the model was trained for are computed
    all the same: that is the question.

    Args:
        eos_id: what stands before a document, as in training.
        batch_tokens: at a time.
    """
    device = next(model.parameters()).device
    found: list[bool] = []
    at_once = max(1, batch_tokens // (1 + len(rows[0].ids)))
    with torch.inference_mode():
        for first in range(0, len(rows), at_once):
            part = rows[first : first + at_once]
            tokens_BT = torch.tensor([[eos_id, *row.ids] for row in part], device=device)
            h_BTD = cast(Tensor, model(tokens_BT[:, :-1], hidden_only=True))
            head_VD = model.head_weight().to(h_BTD.dtype)
            for number, row in enumerate(part):
                start, stop = row.answers[-1]
                said = F.linear(h_BTD[number, start:stop], head_VD).argmax(-1)
                found.append(bool(torch.equal(said, tokens_BT[number, start + 1 : stop + 1])))
    return found


def proportion(found: Sequence[bool]) -> Proportion:
    """How many of the rows."""
    return Proportion(sum(found), len(found))
