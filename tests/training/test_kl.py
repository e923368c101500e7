"""KL to a teacher: sums and gradients against whole logits in float64, whatever the chunk."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pippin.data.loader import IGNORE, Batch
from pippin.model import cross_entropy
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Loss
from pippin.model.transformer import Transformer
from pippin.training.kl import kl_divergence

SHAPE = {"vocab_size": 50, "n_heads": 2, "n_kv_heads": 1, "d_head": 8, "max_seq_len": 32}
Z = 1e-2


def models() -> tuple[Transformer, Transformer]:
    torch.manual_seed(0)
    student = Transformer(ModelConfig(d_model=16, n_layers=1, d_ff=24, **SHAPE), torch.float64).double()
    teacher = Transformer(ModelConfig(d_model=24, n_layers=2, d_ff=32, **SHAPE), torch.float64).double()
    for _, linear in student.linears():
        linear.add_adapters(2, 3)
        linear.double()
        torch.nn.init.normal_(linear.lora_B)
    return student, teacher


def a_batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(0, 50, (2, 3, 20), generator=generator)
    targets[torch.rand(3, 20, generator=generator) < 0.4] = IGNORE
    segments = (torch.arange(20) >= 8).long()[None].expand(3, -1) + 1
    return Batch(tokens, targets, torch.arange(20)[None].expand(3, -1) - 8 * (segments - 1), segments)


def whole(student: Transformer, teacher: Transformer, batch: Batch, slot: int | None, weight: float) -> Tensor:
    where = {"positions_BT": batch.positions, "segment_ids_BT": batch.segment_ids}
    with torch.no_grad():
        log_q = teacher(batch.tokens, **where).log_softmax(-1)
    logits = student(batch.tokens, **where, slots_B=None if slot is None else torch.full((3,), slot))
    log_p = logits.log_softmax(-1)
    kl_BT = (log_q.exp() * (log_q - log_p)).sum(-1)
    nll_BT = -log_p.gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0]
    each = weight * kl_BT + (1 - weight) * nll_BT + Z * logits.logsumexp(-1) ** 2
    return each[batch.targets != IGNORE].sum()


@pytest.mark.parametrize("chunk", [7, 1_000])
@pytest.mark.parametrize("slot", [None, 1])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_equals_whole_logits(monkeypatch: pytest.MonkeyPatch, chunk: int, slot: int | None, weight: float) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(cross_entropy, "MIN_CHUNK", chunk)
    (student, teacher), batch = models(), a_batch()
    parameters = [p for name, p in student.named_parameters() if slot is not None or "lora" not in name]
    loss = kl_divergence(student, teacher, batch, slot, weight, Z)
    expected = whole(student, teacher, batch, slot, weight)
    torch.testing.assert_close(loss.total, expected, rtol=1e-10, atol=0)
    assert int(loss.count) == int((batch.targets != IGNORE).sum())
    ours, theirs = torch.autograd.grad(loss.total, parameters), torch.autograd.grad(expected, parameters)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-12)
    assert all(p.grad is None for p in teacher.parameters())


def test_a_model_does_not_diverge_from_itself() -> None:
    student, _ = models()
    loss = kl_divergence(student, student, a_batch())
    torch.testing.assert_close(loss.total, torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-9)
    for gradient in torch.autograd.grad(loss.total, [p for n, p in student.named_parameters() if "lora" not in n]):
        assert float(gradient.abs().max()) < 1e-9


def test_the_true_tokens_loss_is_reported_beside() -> None:
    (student, teacher), batch = models(), a_batch()
    plain = student(
        batch.tokens, positions_BT=batch.positions, segment_ids_BT=batch.segment_ids,
        targets=cross_entropy.Targets(batch.targets),
    )  # fmt: skip
    assert isinstance(plain, Loss)
    torch.testing.assert_close(kl_divergence(student, teacher, batch).nll, plain.nll, rtol=1e-10, atol=0)
