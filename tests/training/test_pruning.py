"""Soft-Top-K: its sum, its optimality, its gradient, its limits; slicing against the masked parent."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.training.pruning import annealed_eps, clear_masks, hard_top_k, install_masks, slice_ffn, soft_top_k


def by_bisection(scores: list[float], k: int, eps: float) -> list[float]:
    """The definition, solved for `a` in plain Python."""

    def at(a: float) -> list[float]:
        return [math.exp(min(0.0, (s + a) / eps)) for s in scores]

    low, high = -max(scores) - eps * math.log(len(scores) / k) - 1, -min(scores)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) < k else (low, middle)
    return at(high)


@pytest.mark.parametrize("eps", [1.0, 0.1, 0.01, 1e-3])
def test_sum_is_exact(eps: float) -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 4096, dtype=torch.float64)
    mask = soft_top_k(scores, 1376, eps)
    assert (mask.sum(-1) - 1376).abs().max() < 1e-6
    assert mask.min() >= 0
    assert mask.max() <= 1
    narrow = soft_top_k(scores.float(), 1376, eps)
    assert narrow.dtype == torch.float32
    assert (narrow.double().sum(-1) - 1376).abs().max() < 1e-4  # rounding of 4,096 float32 values
    assert (narrow - soft_top_k(scores.float().double(), 1376, eps)).abs().max() < 1e-5
    assert narrow.max() <= 1


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=12), st.data(), st.sampled_from([1.0, 0.3, 0.05]), st.booleans())
def test_equals_bisection(scores: list[float], data: st.DataObject, eps: float, tie: bool) -> None:
    if tie:
        scores = [*scores, *scores[: len(scores) // 2]]
    k = data.draw(st.integers(1, len(scores)))
    ours = soft_top_k(torch.tensor(scores, dtype=torch.float64), k, eps)
    assert ours.tolist() == pytest.approx(by_bisection(scores, k, eps), abs=1e-9)


def test_some_are_saturated_and_some_are_not() -> None:
    """Guards the other tests: they must meet both branches."""
    mask = soft_top_k(torch.linspace(-2, 2, 50, dtype=torch.float64), 20, 0.5)
    assert 0 < (mask == 1).sum() < 20


def test_gradient() -> None:
    torch.manual_seed(1)
    scores = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    for k, eps in [(1, 1.0), (4, 0.5), (8, 1.0), (4, 0.1)]:
        assert torch.autograd.gradcheck(lambda s, k=k, eps=eps: soft_top_k(s, k, eps), scores, eps=1e-7)
    soft_top_k(scores, 9, 0.5).sum().backward()
    assert scores.grad is not None
    assert scores.grad.abs().max() == 0  # k = F: all ones, nothing to learn


def test_limits() -> None:
    torch.manual_seed(2)
    scores = torch.randn(2, 64)
    hard = torch.zeros(2, 64).scatter(1, scores.topk(10).indices, 1.0)
    assert torch.equal(soft_top_k(scores, 64, 0.1), torch.ones(2, 64))
    assert torch.equal(soft_top_k(scores, 10, 0.0), hard)
    assert torch.allclose(soft_top_k(scores, 10, 1e-9), hard)
    assert soft_top_k(scores, 10, 1e9).tolist() == [pytest.approx([10 / 64] * 64)] * 2


def test_equal_and_huge_scores() -> None:
    assert soft_top_k(torch.zeros(8), 2, 1e-6).tolist() == [0.25] * 8
    huge = torch.tensor([3e38, 3e38, -3e38, 1.0, 0.0, -3e38], requires_grad=True)
    mask = soft_top_k(huge, 3, 1e-3)
    mask.sum().backward()
    assert mask.tolist() == [1, 1, 0, 1, 0, 0]
    assert huge.grad is not None
    assert huge.grad.isfinite().all()
    offset = torch.tensor([0.1, 0.5, 0.3], dtype=torch.float64)
    assert torch.allclose(soft_top_k(offset + 1e6, 2, 0.1), soft_top_k(offset, 2, 0.1), atol=1e-7)


def test_hard_top_k_is_sorted_and_breaks_ties_by_place() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    assert hard_top_k(scores, 2).tolist() == [[1, 3], [0, 1]]


def test_learned_mask_finds_the_useful_dimensions() -> None:
    """A gradient that rewards dimensions 0 to 3 ends, after annealing, in a hard mask of exactly these."""
    torch.manual_seed(3)
    use = torch.zeros(16).index_fill(0, torch.arange(4), 1.0)
    scores = torch.nn.Parameter(1e-3 * torch.randn(1, 16))
    optimizer = torch.optim.SGD([scores], lr=0.05)
    for step in range(100):
        optimizer.zero_grad()
        mask = soft_top_k(scores, 4, annealed_eps(step, steps=100))
        if mask.requires_grad:
            (-(mask * use).sum()).backward()
            optimizer.step()
    assert torch.equal(mask.detach()[0], use)


def test_annealing() -> None:
    eps = [annealed_eps(step, steps=100, start=1.0, end=0.01) for step in range(101)]
    assert eps[0] == 1.0
    assert eps[79] == pytest.approx(0.01)
    assert eps[80:] == [0.0] * 21
    ratios = [b / a for a, b in zip(eps[:79], eps[1:80], strict=True)]
    assert ratios == pytest.approx([ratios[0]] * 79)
    assert annealed_eps(1, steps=2) == 0.0


@pytest.mark.parametrize("call", [
    lambda: soft_top_k(torch.zeros(4), 5, 1.0),
    lambda: soft_top_k(torch.zeros(4), 0, 1.0),
    lambda: soft_top_k(torch.zeros(4), 2, -0.1),
    lambda: soft_top_k(torch.zeros(4), 2, math.nan),
    lambda: annealed_eps(0, steps=10, start=0.1, end=1.0),
    lambda: annealed_eps(0, steps=1),
])  # fmt: skip
def test_impossible_numbers_are_one_clear_line(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=r"^\w+: value [^\n]*$"):
        call()


@pytest.fixture
def parent() -> Transformer:
    torch.manual_seed(4)
    return Transformer(ModelConfig(50, 32, 3, 4, 2, 8, 48, 16), torch.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_sliced_model_equals_masked_parent(parent: Transformer, dtype: torch.dtype, tolerance: float) -> None:
    parent.compute_dtype = dtype
    scores = torch.randn(3, 48)
    tokens = torch.randint(50, (2, 16))
    with torch.no_grad():
        whole = parent(tokens)
        install_masks(parent, scores, 20, 0.0)
        masked = parent(tokens)
        small = slice_ffn(parent, hard_top_k(scores, 20))
        sliced = small(tokens)
        clear_masks(parent)
        assert torch.equal(parent(tokens), whole)
    assert small.config.d_ff == 20
    assert small.compute_dtype == dtype
    assert (sliced - masked).abs().max() < tolerance
    assert (sliced - whole).abs().max() > 3 * tolerance
    assert {n: tuple(p.shape) for n, p in small.named_parameters()} == {
        n: tuple(p.shape) for n, p in Transformer(small.config).named_parameters()
    }
    small.embed.weight.data.zero_()  # its own tensors, not views of the parent's
    assert parent.embed.weight.abs().sum() > 0


def test_masks_carry_gradients_to_the_scores(parent: Transformer) -> None:
    scores = torch.zeros(3, 48).add_(0.01 * torch.randn(3, 48)).requires_grad_()
    install_masks(parent, scores, 16, 1.0)
    parent(torch.randint(50, (2, 16))).square().mean().backward()
    assert scores.grad is not None
    assert (scores.grad.abs().sum(1) > 0).all()


def test_slicing_refuses_what_it_cannot_do(parent: Transformer) -> None:
    for keep in [[[0, 1]] * 2, [[0, 1], [0], [0, 1]], [[0, 0]] * 3, [[0, 48]] * 3, [[-1, 0]] * 3]:
        with pytest.raises(ValueError, match="keep"):
            slice_ffn(parent, keep)
    with pytest.raises(ValueError, match="scores"):
        install_masks(parent, torch.zeros(3, 47), 2, 1.0)
    parent.blocks[1].ffn.up.add_adapters(2, 4)
    with pytest.raises(ValueError, match="adapters"):
        slice_ffn(parent, [[0, 1]] * 3)
