"""A model of ours as a writer: its texts are those of its rollouts."""

from __future__ import annotations

import pytest
import torch

from pippin.data.chat import render
from pippin.data.tokenizer import Tokenizer, train_tokenizer
from pippin.errors import UserError
from pippin.generate import generate
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.writer import ModelWriter

ASKED = [[{"role": "user", "content": text}] for text in ("harbour", "the rope and the bridge", "ship")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = ["A ship lies in the harbour, the rope and the bridge are wet: 1 2 3 4 5 6 7 8 9 0."] * 50
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer") / "t", 320, or_fewer=True)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, d_model=32, n_layers=1, n_heads=1, n_kv_heads=1, d_head=32, d_ff=32,
        max_seq_len=96,
    )  # fmt: skip
    model = Transformer(config, torch.float32)
    with torch.no_grad():
        model.embed.weight.mul_(0.1)
        model.norm.weight.mul_(8)
    return model


def test_greedy_text_is_that_of_generate(model: Transformer, tokenizer: Tokenizer) -> None:
    found = ModelWriter(model, tokenizer, "small").write(ASKED, max_tokens=12, temperature=0)
    for messages, texts in zip(ASKED, found, strict=True):
        prompt = render(tokenizer, messages, add_generation_prompt=True).ids
        assert texts == [tokenizer.decode(generate(model, tokenizer, [prompt], max_tokens=12)[0])]
    assert all(texts[0] for texts in found)


def test_samples_differ_and_come_again(model: Transformer, tokenizer: Tokenizer) -> None:
    writer = ModelWriter(model, tokenizer, "small", batch_size=2)
    found = writer.write(ASKED, n=3, max_tokens=12, seed=5)
    assert [len(texts) for texts in found] == [3, 3, 3]
    assert all(len(set(texts)) == 3 for texts in found)
    assert writer.write(ASKED, n=3, max_tokens=12, seed=5) == found
    assert writer.write(ASKED, n=3, max_tokens=12, seed=6) != found


def test_a_conversation_that_is_too_long_is_one_line(model: Transformer, tokenizer: Tokenizer) -> None:
    long = [*ASKED, [{"role": "user", "content": "harbour " * 200}]]
    with pytest.raises(UserError, match=r"small: conversation 3: its \d+ tokens and max_tokens 12 exceed") as error:
        ModelWriter(model, tokenizer, "small").write(long, max_tokens=12)
    assert "\n" not in str(error.value)
