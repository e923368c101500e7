"""What a step of a full-size model holds, on tensors without memory; and how many graphs its blocks compile to."""

from __future__ import annotations

import pytest
import torch
from tests.tracking import Tracker
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Loss, Targets
from pippin.model.transformer import Transformer


@pytest.mark.parametrize("vocab_size", [49_152, 102_400])
def test_the_logits_never_exist_whole(vocab_size: int) -> None:
    """In a whole step the largest tensor is a chunk of the logits; twice the tokens hold hardly more than before."""
    # Narrow, so that nothing is as large as what has the vocabulary's width.
    model = ModelConfig(vocab_size, 128, 2, n_heads=4, n_kv_heads=2, d_head=32, d_ff=336, max_seq_len=256)
    peaks = {}
    for rows in (8, 16):
        given = {name: torch.zeros((rows, 256), dtype=torch.int64) for name in ("tokens_BT", "segment_ids_BT")}
        given["positions_BT"] = torch.arange(256).expand(rows, 256)
        targets = Targets(given["tokens_BT"], given["tokens_BT"], 0.9, 1e-6)
        with FakeTensorMode(allow_non_fake_inputs=True), Tracker() as tracker:
            loss = Transformer(model)(**given, targets=targets)
            assert isinstance(loss, Loss)
            (loss.total / loss.count).backward()
        logits_bytes = 2 * rows * 256 * vocab_size  # in 16 bits
        assert tracker.largest == 4 * 256 * vocab_size <= logits_bytes / 4
        peaks[rows] = tracker.peak
    assert peaks[16] - peaks[8] < 0.2 * 2 * 8 * 256 * vocab_size


def test_one_graph_serves_all_blocks() -> None:
    model = Transformer(ModelConfig(64, 32, 4, n_heads=2, n_kv_heads=1, d_head=16, d_ff=48, max_seq_len=64))
    counter = CompileCounterWithBackend("aot_eager")
    for block in model.blocks:
        block.compile(backend=counter)
    tokens = torch.randint(0, 64, (2, 32))
    where = {"positions_BT": torch.arange(32).expand(2, 32).contiguous(), "segment_ids_BT": torch.ones_like(tokens)}
    for _ in range(3):
        loss = model(tokens, targets=Targets(tokens), **where)
        (loss.total / loss.count).backward()
    assert counter.frame_count == 1
