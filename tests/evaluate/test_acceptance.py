"""Acceptance of a draft: against a decoding loop that really proposes and verifies token by token."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from pippin.evaluate.acceptance import Acceptance, acceptance, rounds_of
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

SHAPE = {"vocab_size": 12, "n_heads": 2, "n_kv_heads": 1, "d_head": 8, "max_seq_len": 64}
PROMPTS = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 10], [2, 2]]
STOP, ROOM = 11, 24


def model(seed: int, layers: int) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(ModelConfig(d_model=16, n_layers=layers, d_ff=24, **SHAPE), torch.float32)


def first_choice(model: Transformer, ids: list[int]) -> int:
    with torch.no_grad():
        return int(cast(Tensor, model(torch.tensor([ids])))[0, -1].argmax())


def speculate(target: Transformer, draft: Transformer, prompt: list[int], k: int) -> tuple[list[int], int, int]:
    """Answer, rounds and taken proposals of the loop as an engine would run it."""
    said: list[int] = []
    rounds = taken = 0
    while len(said) < ROOM and STOP not in said:
        rounds += 1
        proposed: list[int] = []
        while len(proposed) < k:
            proposed.append(first_choice(draft, prompt + said + proposed))
        for token in proposed:
            if len(said) == ROOM or STOP in said or token != first_choice(target, prompt + said):
                break
            said.append(token)
            taken += 1
        if len(said) < ROOM and STOP not in said:
            said.append(first_choice(target, prompt + said))
    return said, rounds, taken


@pytest.mark.parametrize("k", [1, 4])
def test_equals_the_real_loop(k: int) -> None:
    target = model(0, 2)
    draft = model(0, 2)
    with torch.no_grad():  # near the target, so that it is often right and often not
        for parameter in draft.parameters():
            parameter += 0.4 * parameter.std() * torch.randn(parameter.shape)
    loops = [speculate(target, draft, prompt, k) for prompt in PROMPTS]
    found = acceptance(target, draft, PROMPTS, stop_id=STOP, max_tokens=ROOM, k=k)
    assert found.tokens == sum(len(said) for said, _, _ in loops)
    assert (found.rounds, found.taken) == (sum(r for _, r, _ in loops), sum(t for _, _, t in loops))
    assert 0.2 < found.share < 0.95
    assert found.rounds < found.tokens


def test_a_draft_equal_to_its_target_is_always_taken() -> None:
    target = model(1, 1)
    found = acceptance(target, target, PROMPTS, stop_id=STOP, max_tokens=20, k=4)
    assert found.share == 1.0
    assert found.mean_accepted > 3
    assert acceptance(target, model(2, 1), PROMPTS, stop_id=STOP, max_tokens=20, k=4).share < 0.9


@pytest.mark.parametrize(
    ("agree", "k", "expected"),
    [
        ([], 4, (0, 0)),
        ([True] * 10, 4, (2, 8)),
        ([False] * 3, 4, (3, 0)),
        ([True, True, False, True], 4, (2, 3)),
        ([True, False, False, True, True, True], 2, (3, 3)),
    ],
)
def test_rounds(agree: list[bool], k: int, expected: tuple[int, int]) -> None:
    assert rounds_of(agree, k) == expected


def test_counts_add_up() -> None:
    both = Acceptance(10, 5, 4, 6) + Acceptance(2, 1, 2, 0)
    assert both == Acceptance(12, 6, 6, 6)
    assert (both.share, both.mean_accepted, both.tokens_per_round) == (0.5, 1.0, 2.0)
    assert Acceptance(0, 0, 0, 0).share == 0.0
