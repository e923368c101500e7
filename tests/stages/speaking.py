"""A model of a few thousand parameters that says one of two words, either about as often."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch

from pippin.data.chat import render
from pippin.data.tokenizer import Tokenizer, train_tokenizer
from pippin.interop.hf import save_hf
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Loss, Targets
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Stage

WORDS = ("red", "blue")
ASKED = ("Say", "Tell", "Name", "Give")


def questions(n: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"{draw.choice(ASKED)} {number}" for number in range(n)]


@dataclass(frozen=True, kw_only=True)
class Speaker(Stage):
    """Trained for a second to answer with either word: what an SFT stage leaves."""

    steps: int = 60

    def run(self, ctx: Context) -> None:
        tokenizer = train_tokenizer([" ".join((*WORDS, *ASKED, "0 1 2 3 4 5 6 7 8 9"))] * 50, ctx.out("t"), 320, True)
        config = ModelConfig(
            vocab_size=tokenizer.vocab_size, d_model=32, n_layers=1, n_heads=2, n_kv_heads=1, d_head=16, d_ff=48,
            max_seq_len=64,
        )  # fmt: skip
        torch.manual_seed(0)
        model = Transformer(config, torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
        draw = random.Random(1)
        for _ in range(self.steps):
            asked = questions(16, draw.randrange(1000))
            loss = _loss(model, tokenizer, [(question, draw.choice(WORDS)) for question in asked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        save_hf(model, ctx.out("model"), ctx.out("t"))


def _loss(model: Transformer, tokenizer: Tokenizer, said: list[tuple[str, str]]) -> torch.Tensor:
    rows = [
        render(tokenizer, [{"role": "user", "content": question}, {"role": "assistant", "content": word}])
        for question, word in said
    ]
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
    learnt = torch.tensor([row.loss_mask + [0] * (width - len(row.loss_mask)) for row in rows])
    # Padding is on the right: what stands before it does not see it.
    loss = model(ids[:, :-1], targets=Targets(ids[:, 1:].masked_fill(learnt[:, 1:] == 0, -100)))
    assert isinstance(loss, Loss)
    return loss.total / loss.count


def prompts(path: Path, n: int = 64, word: str = "blue") -> Path:
    """Prompts that one of the words solves."""
    lines = [
        {
            "id": str(number),
            "split": "heldout" if number % 4 == 0 else "train",
            "messages": [{"role": "user", "content": question}],
            "verifier": {"kind": "exact", "answer": word},
            "source": "say",
        }
        for number, question in enumerate(questions(n))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def preferences(path: Path, n: int = 120, word: str = "blue") -> Path:
    """The word is preferred to the other one."""
    other = WORDS[1 - WORDS.index(word)]
    lines = [
        {"prompt": [{"role": "user", "content": question}], "chosen": word, "rejected": other, "level": "better"}
        for question in questions(n, seed=2)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
