"""Palettization: the table is optimal where that can be checked, and no step makes things worse."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pippin.compress.palettize import (
    collect_second_moments,
    float16_exact,
    nearest,
    optimal_table,
    palettize,
    palettize_linear,
    palettize_weight,
)
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.linear import Linear
from pippin.model.transformer import Transformer

TINY = ModelConfig(vocab_size=40, d_model=24, n_layers=2, n_heads=2, n_kv_heads=1, d_head=10, d_ff=36, max_seq_len=32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cost(values: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """Weighted squared error of each row with the nearest entries, by brute force over entries."""
    distances = (values.double()[:, :, None] - table.double()[:, None, :]).square().amin(2)
    return (weights.double() * distances).sum(1)


def brute_force(values: list[float], weights: list[float], size: int) -> float:
    """Least error over every way to cut the sorted values into `size` runs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    best = float("inf")
    for cuts in combinations(range(1, len(values)), min(size, len(values)) - 1):
        total = 0.0
        for start, stop in zip((0, *cuts), (*cuts, len(values)), strict=True):
            run = order[start:stop]
            mass = sum(weights[i] for i in run)
            mean = sum(weights[i] * values[i] for i in run) / mass
            total += sum(weights[i] * (values[i] - mean) ** 2 for i in run)
        best = min(best, total)
    return best


@given(count=st.integers(2, 9), size=st.sampled_from([2, 4]), seed=st.integers(0, 9999))
@settings(max_examples=60)
def test_table_is_optimal_on_tiny_inputs(count: int, size: int, seed: int) -> None:
    values = random(3, count, seed=seed).round(decimals=1)  # with ties
    weights = random(3, count, seed=seed + 1).abs() + 0.01
    errors = cost(values, weights, optimal_table(values, weights, size))
    for row in range(3):
        best = brute_force(values[row].tolist(), weights[row].tolist(), size)
        assert errors[row] == pytest.approx(best, rel=1e-5, abs=1e-6)


def test_many_values_stay_within_a_percent_of_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    gauss = random(2, 600)
    values = torch.cat([gauss, gauss.sign() * gauss.abs() ** 2.5])  # two of them with heavy tails
    weights = random(4, 600, seed=1).abs()
    fast = cost(values, weights, optimal_table(values, weights, 16))
    monkeypatch.setattr("pippin.compress.palettize._BINS", 600)  # every cut is considered: the exact programme
    exact = cost(values, weights, optimal_table(values, weights, 16))
    assert (fast <= exact * 1.01).all()
    assert (fast >= exact * (1 - 1e-6)).all()


def test_every_entry_is_the_mean_of_what_it_stands_for() -> None:
    values, weights = random(2, 3000).double(), random(2, 3000, seed=1).abs().double()
    table = optimal_table(values, weights, 16)
    indices = nearest(values, table)
    mass = torch.zeros_like(table).scatter_add_(1, indices, weights)
    total = torch.zeros_like(table).scatter_add_(1, indices, weights * values)
    assert torch.allclose(table, total / mass, atol=2e-3)


@given(size=st.integers(2, 15), seed=st.integers(0, 999))
@settings(max_examples=20)
def test_more_values_never_cost_more(size: int, seed: int) -> None:
    values, weights = random(2, 90, seed=seed), random(2, 90, seed=seed + 1).abs()
    fewer, more = (cost(values, weights, optimal_table(values, weights, n)) for n in (size, size + 1))
    assert (more <= fewer * (1 + 1e-6)).all()


def test_nearest_is_nearest() -> None:
    table = random(3, 16).sort(dim=1).values
    values = random(3, 200, seed=1)
    assert torch.equal(nearest(values, table), (values[:, :, None] - table[:, None, :]).abs().argmin(2))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("shape", [(16, 16), (33, 21), (5, 3)])
def test_palette_of_any_shape(bits: int, shape: tuple[int, int]) -> None:
    weight = random(*shape)
    palette = palettize_weight(weight, bits)
    assert palette.dense().shape == shape
    assert palette.table.shape == (-(-shape[0] // 16), 2**bits)
    assert torch.equal(float16_exact(palette.table), palette.table)
    assert torch.equal(float16_exact(palette.scale), palette.scale)
    error = (palette.dense() - weight).norm() / weight.norm()
    assert error < {2: 0.36, 4: 0.11}[bits]
    # Codes are the best ones for this table and these scales.
    rows = palette.table.repeat_interleave(16, 0)[: shape[0]] * palette.scale[:, None]
    best = (weight[:, :, None] - rows[:, None, :]).abs().amin(2)
    assert torch.allclose((palette.dense() - weight).abs(), best, atol=1e-6)


def test_bits_and_row_scales_lower_the_error() -> None:
    weight = random(32, 64) * random(32, 1, seed=1).exp()
    two, four = (palettize_weight(weight, bits).dense() for bits in (2, 4))
    assert (four - weight).norm() < 0.5 * (two - weight).norm()
    # A table alone, without row scales, is what the scales must beat on rows of different size.
    values = weight.view(2, -1)
    table = optimal_table(values, torch.ones_like(values), 16).float()
    plain = table.gather(1, nearest(values, table)).view_as(weight)
    assert (four - weight).norm() < 0.8 * (plain - weight).norm()


def test_second_moments_move_error_to_quiet_inputs() -> None:
    weight = random(16, 64)
    moment = torch.cat([torch.full((32,), 100.0), torch.ones(32)])

    def weighted(dense: Tensor) -> float:
        return float((moment * (dense - weight).square()).sum())

    for bits in (2, 4):
        without, with_ = palettize_weight(weight, bits).dense(), palettize_weight(weight, bits, moment).dense()
        assert weighted(with_) < 0.95 * weighted(without)


def test_dead_channels_and_zero_rows_stay_finite() -> None:
    weight = random(20, 24)
    weight[3] = 0
    weight[:, :12] = 5 * weight[:, :12].sign()  # far from the others, on inputs that the calibration never saw
    moment = torch.ones(24)
    moment[:12] = 0
    palette = palettize_weight(weight, 4, moment)
    assert palette.dense().isfinite().all()
    assert not palette.dense()[3].any()
    assert (palette.dense() - weight)[:, :12].norm() / weight[:, :12].norm() < 0.3
    assert not palettize_weight(torch.zeros(16, 8), 2).dense().any()


def test_few_distinct_values_are_kept() -> None:
    weight = torch.tensor([-1.0, -0.5, 0.25, 1.0])[torch.randint(4, (16, 40), generator=torch.Generator())]
    weight[:, 0] = 1.0  # so that every row has the same RMS scale up to rounding
    assert torch.allclose(palettize_weight(weight, 4).dense(), weight, atol=2e-3)


def test_is_deterministic() -> None:
    weight = random(48, 100)
    first, second = palettize_weight(weight, 4), palettize_weight(weight, 4)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


def test_groups_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random(64, 40)
    whole = palettize_weight(weight, 4)
    monkeypatch.setattr("pippin.compress.palettize._CHUNK_VALUES", 1)
    assert torch.equal(palettize_weight(weight, 4).dense(), whole.dense())


def test_damaged_input_is_one_line() -> None:
    weight = random(16, 8)
    with pytest.raises(UserError, match="second_moment"):
        palettize_weight(weight, 4, torch.ones(9))
    weight[2, 2] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        palettize_weight(weight, 4)


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_forward_equals_the_dense_forward_of_the_same_values(bits: int) -> None:
    torch.manual_seed(0)
    packed = Linear(21, 37, mup_width=21, shard="column")
    weight = packed.weight.detach().clone()
    palettize_linear(packed, bits)
    dense = palettize_weight(weight, bits).dense()
    x = random(2, 3, 21)
    assert packed.bits == bits
    assert packed.weight is None
    assert torch.equal(packed(x), torch.nn.functional.linear(x, dense))


def test_whole_model() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY, torch.float32)
    tokens = torch.randint(40, (2, 9))
    before = model(tokens)
    done: list[int] = []
    palettize(model, {name: 4 for name, _ in model.linears()}, progress=done.append)
    assert sum(done) == TINY.n_matmul_params() + 40 * 24
    assert all(linear.bits == 4 for _, linear in model.linears())
    assert model.embed.codes is not None
    after = model(tokens)
    assert 0 < (after - before).norm() < 0.35 * before.norm()
    with pytest.raises(UserError, match="already palettized"):
        palettize(model, {name: 4 for name, _ in model.linears()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan.pop("blocks.0.ffn.up"), "lacks blocks.0.ffn.up"),
        (lambda plan: plan.update(extra=4), "names extra"),
        (lambda plan: plan.update({"blocks.0.ffn.up": 3}), "value 3 for blocks.0.ffn.up"),
    ],
)
def test_a_plan_must_fit_the_model(change, message) -> None:
    model = Transformer(TINY)
    plan = {name: 4 for name, _ in model.linears()}
    change(plan)
    with pytest.raises(UserError, match=message):
        palettize(model, plan)


def batch(tokens: Tensor, segment_ids: Tensor) -> SimpleNamespace:
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return SimpleNamespace(tokens=tokens, segment_ids=segment_ids, positions=positions)


def test_second_moments_are_those_of_the_inputs() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY, torch.float32)
    tokens = torch.randint(40, (2, 9))
    ones = torch.ones_like(tokens)
    moments = collect_second_moments(model, [batch(tokens, ones)])
    assert set(moments) == {name for name, _ in model.linears()}
    first = model.blocks[0]
    x = first.attention_norm(model.embed(tokens))
    assert torch.allclose(moments["blocks.0.attention.q"], x.square().mean((0, 1)), rtol=1e-5)
    assert torch.equal(moments["blocks.0.attention.q"], moments["blocks.0.attention.v"])
    # Two batches average over tokens; padding does not count.
    padded = torch.cat([tokens, torch.zeros_like(tokens)], dim=1)
    segments = torch.cat([ones, torch.zeros_like(ones)], dim=1)
    again = collect_second_moments(model, [batch(padded[:1], segments[:1]), batch(padded[1:], segments[1:])])
    for name, moment in moments.items():
        assert torch.allclose(again[name], moment, rtol=1e-4), name
    assert not any(linear._forward_pre_hooks for _, linear in model.linears())
    with pytest.raises(UserError, match="no token"):
        collect_second_moments(model, [])
