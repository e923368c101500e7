"""The chunked head against a plain float64 einsum: sums, gradients, teacher, z-loss, ignored positions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pippin.model import cross_entropy
from pippin.model.cross_entropy import Targets, linear_cross_entropy

B, T, D, V = 3, 70, 16, 37


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Targets]:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(B, T, D, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64).to(dtype)
    tokens = torch.randint(0, V, (B, T), generator=generator)
    tokens[torch.rand(B, T, generator=generator) < 0.3] = -100
    teacher = torch.randint(0, V, (B, T), generator=generator)
    teacher[0, :20] = -100
    return h.requires_grad_(), weight.requires_grad_(), Targets(tokens, teacher, teacher_weight=0.9, z_loss=1e-2)


def plain(h: Tensor, weight: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    logits = torch.einsum("btd,vd->btv", h, weight)
    log_p = logits.log_softmax(-1)
    total = nll = torch.zeros((), dtype=h.dtype)
    for b in range(B):
        for t in range(T):
            true = int(targets.tokens_BT[b, t])
            if true == -100:
                continue
            taught = int(targets.teacher_BT[b, t]) if isinstance(targets.teacher_BT, Tensor) else true
            taught = true if taught == -100 else taught
            w = targets.teacher_weight if targets.teacher_BT is not None else 0.0
            total = total - (1 - w) * log_p[b, t, true] - w * log_p[b, t, taught]
            total = total + targets.z_loss * logits[b, t].logsumexp(-1) ** 2
            nll = nll - log_p[b, t, true].detach()
    return total, nll


@pytest.mark.parametrize("chunk_logits", [1, 100 * V, 2**22])
@pytest.mark.parametrize("kind", ["plain", "teacher", "z", "all"])
def test_equals_plain(monkeypatch: pytest.MonkeyPatch, chunk_logits: int, kind: str) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", chunk_logits)
    monkeypatch.setattr(cross_entropy, "MIN_CHUNK", 64)
    h, weight, targets = inputs(torch.float64)
    if kind in ("plain", "z"):
        targets.teacher_BT = None
    if kind in ("plain", "teacher"):
        targets.z_loss = 0.0
    loss = linear_cross_entropy(h, weight, targets)
    gradients = torch.autograd.grad(loss.total * 3, (h, weight))
    total, nll = plain(h, weight, targets)
    expected = torch.autograd.grad(total * 3, (h, weight))
    torch.testing.assert_close(loss.total, total, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.nll, nll, rtol=1e-12, atol=0)
    assert not loss.nll.requires_grad
    assert int(loss.count) == int((targets.tokens_BT >= 0).sum())
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)


def test_gradcheck() -> None:
    h, weight, targets = inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets).total, (h, weight), fast_mode=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_lower_precision_is_close(dtype: torch.dtype, tolerance: float) -> None:
    h, weight, targets = inputs(torch.float64)
    expected = torch.autograd.grad(linear_cross_entropy(h, weight, targets).total, (h, weight))
    h_low, weight_32 = h.detach().to(dtype).requires_grad_(), weight.detach().float().requires_grad_()
    loss = linear_cross_entropy(h_low, weight_32, targets)
    assert loss.total.dtype == torch.float32
    gradients = torch.autograd.grad(loss.total, (h_low, weight_32))
    assert gradients[0].dtype == dtype
    assert gradients[1].dtype == torch.float32
    for gradient, other in zip(gradients, expected, strict=True):
        assert (gradient.double() - other).norm() < tolerance * other.norm()


def test_frozen_and_ungraded_inputs() -> None:
    h, weight, targets = inputs(torch.float32)
    both = torch.autograd.grad(linear_cross_entropy(h, weight, targets).total, (h, weight))
    frozen = linear_cross_entropy(h, weight.detach(), targets).total
    torch.testing.assert_close(torch.autograd.grad(frozen, h)[0], both[0])
    frozen = linear_cross_entropy(h.detach(), weight, targets).total
    torch.testing.assert_close(torch.autograd.grad(frozen, weight)[0], both[1])
    with torch.no_grad():
        loss = linear_cross_entropy(h, weight, targets)
    assert not loss.total.requires_grad


def test_backward_can_be_repeated() -> None:
    h, weight, targets = inputs(torch.float32)
    total = linear_cross_entropy(h, weight, targets).total
    first = torch.autograd.grad(total, (h, weight), retain_graph=True)
    second = torch.autograd.grad(total * 2, (h, weight))
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(one * 2, two)


def test_nothing_counted_is_zero() -> None:
    h, weight, _ = inputs(torch.float32)
    loss = linear_cross_entropy(h, weight, Targets(torch.full((B, T), -100)))
    assert (loss.total.item(), loss.nll.item(), loss.count.item()) == (0.0, 0.0, 0)
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss.total, (h, weight)))


def test_certain_and_huge_logits_stay_finite() -> None:
    h = torch.full((1, 2, D), 30.0, requires_grad=True)
    weight = torch.stack([torch.full((D,), 10.0), torch.full((D,), -10.0)])
    loss = linear_cross_entropy(h, weight, Targets(torch.tensor([[0, 1]]), z_loss=1e-6))
    assert float(loss.nll) == pytest.approx(2 * 30 * 10 * D)
    assert torch.autograd.grad(loss.total, h)[0].isfinite().all()
