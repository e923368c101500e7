"""Bits per byte: the sum that it claims to be, for models, adapters and n-grams, over the same tokens and bytes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pippin.data.loader import EvalReader
from pippin.data.packing import TokenSet, TokenWriter
from pippin.evaluate.bits_per_byte import bits_per_byte, ngram_bits_per_byte, train_ngram
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

VOCAB, EOS = 40, 1
CONFIG = ModelConfig(VOCAB, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, d_head=8, d_ff=24, max_seq_len=64)


@pytest.fixture
def documents() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[int(t) for t in rng.integers(2, VOCAB, size=n)] for n in (3, 1, 14, 7, 9, 2)]


@pytest.fixture
def tokens(tmp_path: Path, documents: list[list[int]]) -> Path:
    with TokenWriter(tmp_path / "tokens", VOCAB, EOS) as writer:
        for document in documents:
            writer.add("real", "heldout", document, n_bytes=3 * len(document))
            writer.add("real", "train", document, n_bytes=3 * len(document))
            writer.add("other", "train", document[::-1], n_bytes=3 * len(document))
            writer.add("masked", "heldout", document, n_bytes=3 * len(document), loss_mask=[1] * len(document))
    return tmp_path / "tokens"


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(CONFIG, compute_dtype=torch.float32)


def by_hand(model: Transformer, documents: list[list[int]], slot: int | None = None) -> float:
    """Nats of all tokens, one document at a time."""
    nats = 0.0
    with torch.no_grad():
        for document in documents:
            slots = None if slot is None else torch.tensor([slot])
            logits = model(torch.tensor([[EOS, *document]]), slots_B=slots)
            nats += float(F.cross_entropy(logits[0].double(), torch.tensor([*document, EOS]), reduction="sum"))
    return nats


@pytest.mark.parametrize("batch_size", [1, 3])
def test_is_the_sum_over_all_tokens(
    tokens: Path, documents: list[list[int]], model: Transformer, batch_size: int
) -> None:
    result = bits_per_byte(model, EvalReader(tokens, "real", "heldout", 16, batch_size))
    nats, n_bytes = by_hand(model, documents), 3 * sum(map(len, documents))
    assert result.nll_nats_total == pytest.approx(nats, rel=1e-5)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
    assert result.tokens == sum(map(len, documents)) + len(documents)
    assert result.bytes == n_bytes


def test_scores_with_the_adapter_of_a_slot(tokens: Path, documents: list[list[int]], model: Transformer) -> None:
    for _, linear in model.linears():
        linear.add_adapters(slots=2, rank=2)
        torch.nn.init.normal_(linear.lora_B)
    reader = EvalReader(tokens, "real", "heldout", 16, 2)
    results = [bits_per_byte(model, reader, slot=slot).nll_nats_total for slot in (None, 0, 1)]
    assert results == pytest.approx([by_hand(model, documents, slot) for slot in (None, 0, 1)], rel=1e-5)
    assert len(set(results)) == 3


def test_leaves_the_model_as_it_was(tokens: Path, model: Transformer) -> None:
    model.train()
    reader = EvalReader(tokens, "real", "heldout", 16, 2)
    bits_per_byte(model, reader)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    loss = model(torch.tensor([[1, 2, 3]]))
    loss.sum().backward()


def test_an_ngram_covers_the_same_tokens_and_bytes(tokens: Path, model: Transformer) -> None:
    data = TokenSet(tokens)
    ngram = train_ngram([data.open("real", "train"), data.open("other", "train")])
    for max_tokens in (None, 25):
        reader = EvalReader(tokens, "real", "heldout", 16, 2, max_tokens)
        ours = bits_per_byte(model, reader)
        theirs = ngram_bits_per_byte(ngram, data.open("real", "heldout"), reader.n_documents)
        assert (theirs.tokens, theirs.bytes) == (ours.tokens, ours.bytes)
        assert 0 < theirs.bits_per_byte < ours.bits_per_byte  # it was trained on these very documents
    everything = ngram_bits_per_byte(ngram, data.open("real", "heldout"))
    assert everything.tokens == data.open("real", "heldout").n_tokens
    with pytest.raises(ValueError, match="loss mask"):
        ngram_bits_per_byte(ngram, data.open("masked", "heldout"))


def test_ngram_trains_on_every_stream(tokens: Path) -> None:
    data = TokenSet(tokens)
    real, other = data.open("real", "train"), data.open("other", "train")
    assert ngram_bits_per_byte(train_ngram([real, other]), other).bits_per_byte < (
        ngram_bits_per_byte(train_ngram([real]), other).bits_per_byte
    )
