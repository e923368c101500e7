"""Rewards of responses by a reward model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pippin.data.loader import IGNORE, Batch
from pippin.errors import UserError
from pippin.model.reward import RewardModel
from pippin.training.pairs import judge


@torch.no_grad()
def reward_responses(reward: RewardModel, rows: Sequence[Sequence[int]], end_id: int, at_once: int = 32) -> list[float]:
    """The reward of each row, a prompt and its response as token ids, in order.

    What is judged stands at `<|end|>`, where the reward model learnt to judge; a response without it gets one.

    Args:
        rows: tokens of the reward model's own tokenizer.
        end_id: of `<|end|>`.
        at_once: rows of like length in a batch.

    Raises:
        UserError: a reward is not a number.
    """
    ended = [[*row, *([] if row and row[-1] == end_id else [end_id])] for row in rows]
    order = sorted(range(len(ended)), key=lambda i: len(ended[i]))
    device = reward.score.weight.device
    training = reward.training
    reward.eval()
    found = [0.0] * len(ended)
    try:
        for start in range(0, len(order), at_once):
            numbers = order[start : start + at_once]
            lengths = torch.tensor([len(ended[i]) for i in numbers])
            width = int(lengths.max())
            tokens = torch.tensor([ended[i] + [0] * (width - len(ended[i])) for i in numbers])
            segment_ids = (torch.arange(width) < lengths[:, None]).long()
            batch = Batch(tokens, torch.full_like(tokens, IGNORE), torch.arange(width) * segment_ids, segment_ids)
            values = judge(reward, batch.to(device)).rewards_N
            if not values.isfinite().all():
                raise UserError(
                    "reward: value nan or inf: every response needs a finite reward; the reward model is broken: "
                    "train it again with a lower lr"
                )
            for i, value in zip(numbers, values.tolist(), strict=True):
                found[i] = value
    finally:
        reward.train(training)
    return found
