"""Exact match read off one forward pass is the one of greedy decoding, token by token."""

from __future__ import annotations

import torch

from pippin.data.long_questions import Row
from pippin.evaluate.retrieval import proportion, retrieved
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

EOS = 1


def greedy(model: Transformer, ids: list[int], n: int) -> list[int]:
    said: list[int] = []
    for _ in range(n):
        with torch.no_grad():
            logits = model(torch.tensor([[EOS, *ids, *said]]))
        assert isinstance(logits, torch.Tensor)
        said.append(int(logits[0, -1].argmax()))
    return said


def test_right_is_what_greedy_decoding_says() -> None:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(40, 32, 2, 2, 1, 16, 64, max_seq_len=12), torch.float32)
    rows, expected = [], []
    generator = torch.Generator().manual_seed(1)
    for number in range(12):
        prompt = torch.randint(2, 40, (20,), generator=generator).tolist()  # longer than the model was made for
        answer = greedy(model, prompt, 3)
        if number % 3:  # wrong in the first, or in the last token only
            place = 0 if number % 3 == 1 else 2
            answer[place] = 2 + (answer[place] + 1) % 38
        rows.append(Row([*prompt, *answer], ((2, 4), (20, 23)), 5))
        expected.append(number % 3 == 0)
    assert retrieved(model, rows, EOS) == expected
    assert retrieved(model, rows, EOS, batch_tokens=50) == expected
    assert proportion(expected).share == 1 / 3
