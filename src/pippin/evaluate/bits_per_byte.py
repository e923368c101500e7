"""Bits per byte: how many bits a model needs for each UTF-8 byte of a text; it compares across tokenizers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from pippin.data.loader import EvalReader
from pippin.data.packing import TokenStream
from pippin.evaluate.ngram import KneserNey
from pippin.model.cross_entropy import Loss, Targets
from pippin.model.transformer import Transformer


@dataclass(frozen=True)
class BpbResult:
    """What a text costs under a model: `bits_per_byte` is nll_nats_total / (ln 2 * bytes).

    `tokens` are those scored, the final `<eos>` of each document included; `bytes` are those of the text.
    """

    bits_per_byte: float
    nll_nats_total: float
    tokens: int
    bytes: int

    @classmethod
    def of(cls, nll_nats_total: float, tokens: int, n_bytes: int) -> BpbResult:
        """The result for a total of nats over a text of n_bytes UTF-8 bytes."""
        return cls(nll_nats_total / (math.log(2) * n_bytes), nll_nats_total, tokens, n_bytes)


def bits_per_byte(model: Transformer, reader: EvalReader, *, slot: int | None = None) -> BpbResult:
    """Score every token that `reader` covers, once. The model's mode is put back as it was.

    Args:
        slot: the adapter slot to use for all rows; None: no adapters.

    Raises:
        ValueError: the reader gave another number of targets than it announced.
        UserError: a token on disk is damaged.
    """
    device = next(chain(model.parameters(), model.buffers())).device
    was_training = model.training
    model.eval()
    nll, tokens = 0.0, 0  # a Python float is float64: batches add up exactly enough
    try:
        with torch.no_grad():  # not inference mode: FSDP goes on training with what it gathers here
            for batch in reader:
                batch = batch.to(device)
                slots_B = None if slot is None else torch.full((len(batch.tokens),), slot, device=device)
                loss = model(
                    batch.tokens,
                    positions_BT=batch.positions,
                    segment_ids_BT=batch.segment_ids,
                    slots_B=slots_B,
                    targets=Targets(batch.targets),
                )
                assert isinstance(loss, Loss)
                nll += float(loss.nll)
                tokens += int(loss.count)
    finally:
        model.train(was_training)
    if tokens != reader.n_tokens:
        raise ValueError(f"the reader gave {tokens} targets, not {reader.n_tokens}")
    return BpbResult.of(nll, tokens, reader.n_bytes)


def train_ngram(streams: Sequence[TokenStream]) -> KneserNey:
    """The Kneser-Ney 5-gram of all documents of some streams.

    Raises:
        UserError: a token on disk is damaged.
    """
    starts = [np.zeros(1, np.int64)]
    for stream in streams:
        starts.append(stream.starts[1:] + starts[-1][-1])
    tokens = np.concatenate([stream.read(0, stream.n_tokens) for stream in streams])
    return KneserNey.train(tokens, np.concatenate(starts), streams[0].vocab_size)


def ngram_bits_per_byte(ngram: KneserNey, stream: TokenStream, n_documents: int | None = None) -> BpbResult:
    """Score the first `n_documents` of a stream (None: all).

    With the `n_documents` of the `EvalReader` that a model was scored with, both cover the same tokens and bytes.

    Raises:
        ValueError: the stream has a loss mask, so that a model is not scored on all of its tokens.
        UserError: a token on disk is damaged.
    """
    if stream.masked:
        raise ValueError(f"{stream.path}: has a loss mask; bits per byte are of whole texts")
    starts = stream.starts[: (stream.n_documents if n_documents is None else n_documents) + 1]
    log2 = ngram.log2_probs(stream.read(0, int(starts[-1])), starts)
    return BpbResult.of(-float(log2.sum()) * math.log(2), len(log2), int(stream.doc_bytes[: len(starts) - 1].sum()))
