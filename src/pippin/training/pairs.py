"""Preference pairs as batches, and the loss of a reward model on them.

A pair is two rows, the chosen answer and then the rejected one, each after the prompt. As everywhere a batch is a
function of seed and step, so a resumed run sees the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from pippin.data.chat import ChatTokenizer, render
from pippin.data.loader import IGNORE, Batch
from pippin.data.mixture import derive, permute
from pippin.data.preferences import LEVELS, PROPERTIES, SIDES, Preference
from pippin.errors import UserError
from pippin.model.cross_entropy import Loss
from pippin.model.reward import Judged, RewardModel, last_tokens
from pippin.training.losses import SOFT_LABELS, grade_regulariser, margin_preference, soft_preference

Kind = Literal["soft", "hard", "margin"]
KINDS: tuple[Kind, ...] = ("soft", "hard", "margin")
# By level, and last without one: nothing is known of its strength then, so it is the plain loss (ours).
_SOFT = (*SOFT_LABELS, 1.0)
_HARD = (1.0,) * len(_SOFT)
_MARGINS = (1.0, 2 / 3, 1 / 3, 0.0, 0.0)  # evenly down to 0, as Llama 2 has them


class EncodedPair(NamedTuple):
    """Token ids of prompt and answer on both sides; the number of the level, 4 for none; grades, -100 where missing.

    The first `prompt` ids of both sides are the prompt's.
    """

    id: str
    sides: tuple[list[int], list[int]]
    level: int
    grades: tuple[list[int], list[int]]
    prompt: int


def encode_pair(tokenizer: ChatTokenizer, pair: Preference) -> EncodedPair:
    """The prompt as in a conversation, `<|assistant|>`, the answer, `<|end|>`."""
    prompt = render(tokenizer, pair["prompt"], add_generation_prompt=True, conversation_id=pair["id"]).ids
    sides = tuple(
        [*prompt, *tokenizer.encode(answer), tokenizer.end_id] for answer in (pair["chosen"], pair["rejected"])
    )
    grades = tuple([pair["grades"][side].get(name, IGNORE) for name in PROPERTIES] for side in SIDES)
    level = len(LEVELS) if pair["level"] is None else LEVELS.index(pair["level"])
    return EncodedPair(pair["id"], (sides[0], sides[1]), level, (grades[0], grades[1]), len(prompt))


@dataclass(kw_only=True)
class PairBatch(Batch):
    """Rows 2i and 2i + 1 are the chosen and the rejected side of pair i, one answer a row.

    The only target of a pair is at the last token of its chosen side: what the loop counts are pairs.

    Attributes:
        levels: of each pair, int64 [pairs].
        grades: of each row, int64 [rows, properties], -100 where missing.
    """

    levels: torch.Tensor
    grades: torch.Tensor

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch on `device`."""
        moved = (t.to(device) for t in (self.tokens, self.targets, self.positions, self.segment_ids))
        return PairBatch(*moved, levels=self.levels.to(device), grades=self.grades.to(device))


def pair_batch(pairs: Sequence[EncodedPair]) -> PairBatch:
    """Some pairs as one batch, as wide as its longest side."""
    rows = [ids for pair in pairs for ids in pair.sides]
    lengths = torch.tensor([len(ids) for ids in rows])
    width = int(lengths.max())
    tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids in rows])
    segment_ids = (torch.arange(width) < lengths[:, None]).long()
    targets = torch.full_like(tokens, IGNORE)
    chosen = torch.arange(0, len(rows), 2)
    ends = lengths[chosen] - 1
    targets[chosen, ends] = tokens[chosen, ends]
    return PairBatch(
        tokens, targets, torch.arange(width) * segment_ids, segment_ids,
        levels=torch.tensor([pair.level for pair in pairs]),
        grades=torch.tensor([grades for pair in pairs for grades in pair.grades]),
    )  # fmt: skip


class Pair(Protocol):
    """Two answers to one prompt, in whatever form; `id` names it in a log."""

    @property
    def id(self) -> str: ...


AnyPair = TypeVar("AnyPair", bound=Pair)


class PairLoader(Generic[AnyPair]):
    """Shuffled batches of pairs: each epoch takes every pair once, in an order keyed by (seed, epoch).

    Args:
        batch_size: rows, so twice the pairs.
        collate: some pairs as one batch, two rows a pair.

    Raises:
        UserError: no pair, or an odd batch size.
    """

    def __init__(
        self, pairs: Sequence[AnyPair], batch_size: int, seed: int, collate: Callable[[Sequence[AnyPair]], Batch]
    ) -> None:
        if not pairs:
            raise UserError("pairs: none left to train on; give more, or raise seq_len")
        if batch_size < 2 or batch_size % 2:
            raise UserError(f"batch_size={batch_size}: a pair is two rows; must be even and at least 2")
        self.pairs, self.batch_size, self.seed, self.collate = pairs, batch_size, seed, collate

    def rows(self, step: int, start: int, stop: int) -> Batch:
        """Rows start..stop-1 of the batch of a step.

        Raises:
            ValueError: the rows are not inside the batch, or split a pair.
        """
        if not 0 <= start < stop <= self.batch_size or step < 0 or start % 2 or stop % 2:
            raise ValueError(f"step {step}, rows {start}..{stop}: not whole pairs of the batch of {self.batch_size}")
        first = step * self.batch_size // 2
        return self.collate([self.pairs[i] for i in self._order(first + start // 2, first + stop // 2)])

    def identify(self, step: int) -> str:
        """Which pairs the batch of a step is made of, for a log."""
        first = step * self.batch_size // 2
        chosen = [self.pairs[i].id for i in self._order(first, first + self.batch_size // 2)]
        return f"seed {self.seed}, step {step}, pairs {', '.join(chosen)}"

    def _order(self, start: int, stop: int) -> list[int]:
        epochs, within = np.divmod(np.arange(start, stop), len(self.pairs))
        found = np.empty_like(within)
        for epoch in np.unique(epochs).tolist():
            now = epochs == epoch
            found[now] = permute(derive(self.seed, "pairs", epoch), len(self.pairs), within[now])
        return [int(i) for i in found]


def judge(reward: RewardModel, batch: Batch) -> Judged:
    """Rewards and grades of every row's answer, one answer a row."""
    judged: Judged = reward(batch.tokens, last_tokens(batch.segment_ids), batch.positions, batch.segment_ids)
    return judged


def pair_loss(reward: RewardModel, kind: Kind, grade_weight: float, batch: Batch, step: int) -> Loss:
    """The sum over pairs of L_rank + `grade_weight` L_regu (afm 7.4-7.6); `nll` is that of -log sigmoid(r_c - r_r).

    "soft" takes p by level, "hard" p = 1, "margin" subtracts a margin by level.
    """
    assert isinstance(batch, PairBatch)
    rewards, logits = judge(reward, batch)
    chosen, rejected = rewards[0::2], rewards[1::2]
    if kind == "margin":
        rank = margin_preference(chosen, rejected, rewards.new_tensor(_MARGINS)[batch.levels])
    else:
        labels = rewards.new_tensor(_SOFT if kind == "soft" else _HARD)
        rank = soft_preference(chosen, rejected, labels[batch.levels])
    total = rank.sum() + grade_weight * grade_regulariser(logits, batch.grades).sum()
    return Loss(total, -F.logsigmoid((chosen - rejected).detach()).sum(), (batch.targets != IGNORE).sum())


class PairVerdict(NamedTuple):
    """What a reward model says of a pair: both rewards, and for each side the grades that it finds most likely."""

    chosen: float
    rejected: float
    grades: tuple[list[int], list[int]]


def judge_pairs(reward: RewardModel, pairs: Sequence[EncodedPair], at_once: int = 16) -> list[PairVerdict]:
    """Judge pairs in order, `at_once` of similar length in a batch. The model's mode is put back as it was.

    Raises:
        UserError: a reward is not a number.
    """
    device = reward.score.weight.device
    was_training = reward.training
    order = sorted(range(len(pairs)), key=lambda i: max(map(len, pairs[i].sides)))
    found: dict[int, PairVerdict] = {}
    reward.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(order), at_once):
                numbers = order[start : start + at_once]
                judged = judge(reward, pair_batch([pairs[i] for i in numbers]).to(device))
                rewards, grades = judged.rewards_N.tolist(), judged.grades_NPG.argmax(-1).tolist()
                if not judged.rewards_N.isfinite().all():
                    raise UserError(
                        f"reward: value nan or inf in the batch of {pairs[numbers[0]].id}: the reward model is broken; "
                        "lower lr, or begin from another model"
                    )
                found |= {
                    i: PairVerdict(rewards[2 * at], rewards[2 * at + 1], (grades[2 * at], grades[2 * at + 1]))
                    for at, i in enumerate(numbers)
                }
    finally:
        reward.train(was_training)
    return [found[i] for i in range(len(pairs))]
