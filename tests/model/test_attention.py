"""Every path through the attention kernel against a plain einsum, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.model import reference
from tests.model.reference import TINY
from torch import Tensor
from torch.nn import functional as F

from pippin.model import attention
from pippin.model.attention import Layout, attend, make_layout
from pippin.model.blocked_attention import blocked_attention
from pippin.model.cache import KVCache
from pippin.model.rope import rope_tables, rotate

B, T, N, K, H = 2, 13, 6, 2, 10


def heads(length: int = T, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, length, n, H, generator=generator, requires_grad=True) for n in (N, K, K)]


def compare(layout: Layout, q: Tensor, k: Tensor, v: Tensor, visible_BTS: Tensor) -> None:
    out = attend(q, k, v, layout)
    inputs = [x for x in (q, k, v) if x.requires_grad]
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(9))
    gradients = torch.autograd.grad((out * weight).sum(), inputs)
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = reference.attention(*wide, visible_BTS)
    expected_gradients = torch.autograd.grad((expected * weight.double()).sum(), wide)
    torch.testing.assert_close(out, expected.float(), atol=2e-6, rtol=1e-5)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other.float(), atol=1e-5, rtol=1e-5)


def test_causal_kernel() -> None:
    layout = make_layout(TINY, torch.zeros(B, T, dtype=torch.int64), None, None, None, torch.float32)
    assert layout.causal
    assert layout.bias_B1TS is None
    compare(layout, *heads(), torch.ones(B, T, T, dtype=torch.bool).tril())


def test_masked_kernel_with_segments_and_padding() -> None:
    segments_BT = torch.tensor([[1] * 5 + [2] * 6 + [0] * 2, [1] * 1 + [2] * 4 + [3] * 8])
    positions_BT = torch.tensor([[*range(5), *range(6), 0, 1], [0, *range(4), *range(8)]])
    layout = make_layout(TINY, torch.zeros(B, T, dtype=torch.int64), positions_BT, segments_BT, None, torch.float32)
    same = segments_BT[:, :, None] == segments_BT[:, None, :]
    compare(layout, *heads(), same & torch.ones(T, T, dtype=torch.bool).tril())


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("length", [7, 128, 300])
def test_blocked_kernel(length: int, is_packed: bool) -> None:
    """In float32 exactly; in bfloat16, where it is used, as close as PyTorch's own kernel."""
    bias, visible_BTS = None, torch.ones(B, length, length, dtype=torch.bool).tril()
    if is_packed:
        segments_BT = torch.randint(1, 4, (B, length), generator=torch.Generator().manual_seed(5)).sort(1).values
        visible_BTS &= segments_BT[:, :, None] == segments_BT[:, None]
        bias = torch.zeros(B, 1, length, length).masked_fill_(~visible_BTS[:, None], -torch.inf)
    exact = [x.detach().double().requires_grad_() for x in heads(length)]
    weight = torch.randn(B, length, N, H, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    expected = reference.attention(*exact, visible_BTS)
    expected = [expected, *torch.autograd.grad(expected, exact, weight)]

    def errors(kernel: Callable[..., Tensor], dtype: torch.dtype) -> Tensor:
        inputs = [x.detach().to(dtype).requires_grad_() for x in exact]
        out = kernel(*inputs, bias if bias is None else bias.to(dtype))
        results = [out, *torch.autograd.grad(out, inputs, weight.to(dtype))]
        assert all(result.dtype == dtype for result in results)
        return torch.stack([(r.double() - e).norm() / e.norm() for r, e in zip(results, expected, strict=True)])

    def fused(q: Tensor, k: Tensor, v: Tensor, bias_B1TT: Tensor | None) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, bias_B1TT, is_causal=bias_B1TT is None, enable_gqa=True)
        return out.transpose(1, 2)

    assert (errors(blocked_attention, torch.float32) < 1e-5).all()
    assert (errors(blocked_attention, torch.bfloat16) < 2 * errors(fused, torch.bfloat16)).all()


def test_blocked_kernel_serves_training_in_bfloat16_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(attention, "blocked_attention", lambda *inputs: calls.append(1) or blocked_attention(*inputs))
    layout = make_layout(TINY, torch.zeros(B, T, dtype=torch.int64), None, None, None, torch.bfloat16)
    attend(*heads(), layout)
    q, k, v = (x.bfloat16() for x in heads())
    with torch.no_grad():
        attend(q, k, v, layout)
    assert not calls
    attend(q, k, v, layout)
    assert calls


@pytest.mark.parametrize("new", [1, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_cached_kernel(new: int, padded: bool) -> None:
    tokens_BT = torch.zeros(B, T, dtype=torch.int64)
    cache = KVCache(TINY, B, T + 5, torch.float32)
    old = T - new
    segments_BT = torch.ones(B, old, dtype=torch.int64)
    positions_BT = None
    if padded:  # second row: three places of padding on the left
        segments_BT[1, :3] = 0
        positions_BT = torch.stack((torch.arange(old), torch.arange(-3, old - 3).clamp(min=0)))
    make_layout(TINY, tokens_BT[:, :old], positions_BT, segments_BT if padded else None, cache, torch.float32)
    q, k, v = (x.detach() for x in heads())
    cache.write(0, k[:, :old], v[:, :old])
    later = positions_BT[:, -1:] + 1 + torch.arange(new) if padded else None
    layout = make_layout(TINY, tokens_BT[:, old:], later, None, cache, torch.float32)
    assert (layout.bias_B1TS is None) == (new == 1 and not padded)
    k_all, v_all = cache.write(0, k[:, old:], v[:, old:])
    visible_BTS = torch.ones(B, T, T, dtype=torch.bool).tril()[:, old:].clone()
    if padded:
        visible_BTS[1, :, :3] = False
    compare(layout, q[:, old:].requires_grad_(), k_all.requires_grad_(), v_all.requires_grad_(), visible_BTS)


def test_full_cache_is_refused() -> None:
    cache = KVCache(TINY, B, 4, torch.float32)
    with pytest.raises(ValueError, match="5 tokens do not fit in 4 slots"):
        make_layout(TINY, torch.zeros(B, 5, dtype=torch.int64), None, None, cache, torch.float32)


def test_rotation() -> None:
    x = torch.randn(B, T, N, H, dtype=torch.float64)
    positions_BT = torch.stack((torch.arange(T), torch.arange(100, 100 + T)))
    cos, sin = rope_tables(positions_BT, H, 500.0)
    torch.testing.assert_close(rotate(x, cos, sin), reference.rope(x, positions_BT, 500.0), atol=1e-5, rtol=0)
    assert rotate(x.bfloat16(), cos, sin).dtype == torch.bfloat16


def test_rotation_is_precise_far_out() -> None:
    cos, _ = rope_tables(torch.tensor([131_071]), 128, 500_000.0)
    exact = torch.cos(131_071 * 500_000.0 ** (-torch.arange(64, dtype=torch.float64) / 64))
    torch.testing.assert_close(cos[0, 0, :64].double(), exact, atol=1e-6, rtol=0)


def test_scores_depend_on_distance_only() -> None:
    q, k, _ = heads()
    scores = []
    for shift in (0, 7):
        cos, sin = rope_tables(torch.arange(shift, shift + T), H, 100.0)
        scores.append(torch.einsum("btnh,bsnh->bnts", rotate(q, cos, sin)[:, :, :K], rotate(k, cos, sin)))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=0)
