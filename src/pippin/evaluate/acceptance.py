"""How many tokens of a draft model a target model would take: what speculative decoding can save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor

from pippin.generate import generate_many
from pippin.model.transformer import Transformer

BATCH = 32


@dataclass(frozen=True)
class Acceptance:
    """Counts of a draft under greedy decoding; they add up.

    Attributes:
        tokens: of the target's answers, ends included.
        agreed: of them, where the draft's first choice after the same prefix is the target's.
        rounds: forward passes of the target that the answers take with the draft; without it there are `tokens`.
        taken: proposed tokens that stand in the answers.
    """

    tokens: int
    agreed: int
    rounds: int
    taken: int

    def __add__(self, other: Acceptance) -> Acceptance:
        return Acceptance(
            self.tokens + other.tokens, self.agreed + other.agreed, self.rounds + other.rounds, self.taken + other.taken
        )

    @property
    def share(self) -> float:
        """Acceptance rate: agreed / tokens."""
        return self.agreed / max(1, self.tokens)

    @property
    def mean_accepted(self) -> float:
        """Proposed tokens that are taken, per round."""
        return self.taken / max(1, self.rounds)

    @property
    def tokens_per_round(self) -> float:
        """Tokens of the answer for each forward pass of the target."""
        return self.tokens / max(1, self.rounds)

    def as_dict(self) -> dict[str, float]:
        """Counts and shares, ready for JSON."""
        shares = {name: getattr(self, name) for name in ("share", "mean_accepted", "tokens_per_round")}
        return asdict(self) | shares


def rounds_of(agree: Sequence[bool], k: int) -> tuple[int, int]:
    """Rounds that one answer takes, and proposals taken in all (Leviathan et al. 2023, greedy case).

    In a round the draft proposes k tokens; the target takes those before the first that differs from its own and adds
    its own next token. What is proposed beyond the answer's end is not counted.

    Args:
        agree: for each token of the target's answer, whether the draft would have chosen it too.
    """
    place = rounds = taken = 0
    while place < len(agree):
        run = 0
        while run < k and place + run < len(agree) and agree[place + run]:
            run += 1
        rounds += 1
        taken += run
        place += run + 1
    return rounds, taken


@torch.inference_mode()
def acceptance(
    target: Transformer,
    draft: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    stop_id: int,
    max_tokens: int,
    k: int = 4,
    slot: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Acceptance:
    """Answer every prompt greedily with the target, then ask the draft what it would have said at each place.

    A draft token counts only after a prefix of the target's own, so one pass of the draft over the finished answer
    gives what it would have proposed in every round.

    Args:
        target: the model whose answers these are; `slot` is its adapter, if any.
        draft: of the same vocabulary and a context at least as long.
        stop_id: ends an answer, and is a token of it.
        max_tokens: of an answer.
    """
    answers = generate_many(
        target, None, prompts, batch_size=BATCH, max_tokens=max_tokens, stop_ids=(stop_id,),
        slots_B=None if slot is None else [slot] * len(prompts), progress=progress,
    )  # fmt: skip
    found = Acceptance(0, 0, 0, 0)
    for prompt, answer in zip(prompts, answers, strict=True):
        said = [*answer, stop_id] if len(answer) < max_tokens else list(answer)
        logits_BTV = cast(Tensor, draft(torch.tensor([[*prompt, *said[:-1]]])))
        chosen = logits_BTV[0, len(prompt) - 1 :].argmax(-1).tolist()
        agree = [own == other for own, other in zip(chosen, said, strict=True)]
        found += Acceptance(len(said), sum(agree), *rounds_of(agree, k))
    return found
