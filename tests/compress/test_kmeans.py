"""The table is optimal where that can be checked."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pippin.compress.kmeans import nearest, optimal_table


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
    monkeypatch.setattr("pippin.compress.kmeans._BINS", 600)  # every cut is considered: the exact programme
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
