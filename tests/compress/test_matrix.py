"""One matrix: no step makes things worse, and error compensation makes the layer's output better."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pippin.compress.kmeans import nearest, optimal_table
from pippin.compress.matrix import (
    compensated,
    compensated_codes,
    descended_codes,
    output_error,
    palettize_weight,
    refitted,
    rounding,
    sorted_palette,
    squared_output,
    storable,
)
from pippin.errors import UserError


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("shape", [(16, 16), (33, 21), (5, 3)])
def test_palette_of_any_shape(bits: int, shape: tuple[int, int]) -> None:
    weight = random(*shape)
    palette = palettize_weight(weight, bits)
    assert palette.dense().shape == shape
    assert palette.table.shape == (-(-shape[0] // 16), 2**bits)
    assert torch.equal((palette.table * 127).round() / 127, palette.table)
    assert (palette.table.abs().amax(1) == 1).all()
    assert torch.equal(palette.scale.half().float(), palette.scale)
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
    assert torch.allclose(palettize_weight(weight, 4).dense(), weight, atol=5e-3)  # tables are int8


def test_is_deterministic() -> None:
    weight = random(48, 100)
    first, second = palettize_weight(weight, 4), palettize_weight(weight, 4)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


def test_groups_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random(64, 40)
    whole = palettize_weight(weight, 4)
    monkeypatch.setattr("pippin.compress.matrix._CHUNK_VALUES", 1)
    assert torch.equal(palettize_weight(weight, 4).dense(), whole.dense())


def test_damaged_input_is_one_line() -> None:
    weight = random(16, 8)
    with pytest.raises(UserError, match="importance"):
        palettize_weight(weight, 4, torch.ones(9))
    weight[2, 2] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        palettize_weight(weight, 4)


def correlated(width: int, seed: int = 0) -> Tensor:
    """Second moments of inputs that share a few directions, as those of a trained model do."""
    mixing = random(width, width // 4, seed=seed)
    return mixing @ mixing.T / width + 0.02 * torch.diag(random(width, seed=seed + 1).abs())


@pytest.mark.parametrize("bits", [2, 4])
def test_compensation_loses_far_less_output_on_correlated_inputs(bits: int) -> None:
    weight, inputs = random(48, 96), rounding(correlated(96))
    plain = output_error(weight, palettize_weight(weight, bits, inputs.moments.diagonal()), inputs.moments)
    palette, error = compensated(weight, bits, inputs)
    assert error < plain / 2.5
    assert error == pytest.approx(output_error(weight, palette, inputs.moments), rel=1e-4)
    assert (palette.dense() - weight).norm() > 0  # by the output, not by the weights: those may be further off


def test_compensated_codes_of_independent_inputs_are_the_nearest() -> None:
    weight, inputs = random(32, 150), rounding(torch.diag(random(150, seed=1).abs()))
    palette = palettize_weight(weight, 4)
    rows = palette.rows()
    nearest_codes = (weight[:, :, None] - rows[:, None, :]).abs().argmin(2)
    assert torch.equal(compensated_codes(weight, palette, inputs)[0].long(), nearest_codes)


@pytest.mark.parametrize("bits", [2, 4])
def test_inputs_of_later_columns_make_up_for_earlier_ones(bits: int) -> None:
    weight, inputs = random(32, 200), rounding(correlated(200))  # several times the columns that are rounded at once
    palette = palettize_weight(weight, bits, inputs.moments.diagonal())
    alone = palette._replace(indices=compensated_codes(weight, palette, inputs)[0])
    errors = [output_error(weight, p, inputs.moments) for p in (palette, alone)]
    assert errors[1] < errors[0] / 2.5


@pytest.mark.parametrize("bits", [2, 4])
def test_what_is_lost_is_known_without_a_product(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pippin.compress.matrix._PRODUCT_COLUMNS", 128)  # three products for the 300 inputs
    weight, inputs = random(32, 300), rounding(correlated(300))
    palette = palettize_weight(weight, bits, inputs.moments.diagonal())
    codes, lost = compensated_codes(weight, palette, inputs)
    for _ in range(2):
        palette = palette._replace(indices=codes)
        residual = (weight - palette.dense()).double()
        assert lost == pytest.approx(float(((residual @ inputs.moments.double()) * residual).sum()), rel=1e-4)
        assert lost == pytest.approx(squared_output(residual.float(), inputs.moments), rel=1e-4)
        codes, gained = descended_codes(weight, palette, inputs)
        lost -= gained


def test_compensation_is_the_published_one() -> None:
    """GPTQ as its paper has it, input by input, with the Cholesky factor of the inverse of H."""
    weight, inputs = random(20, 200), rounding(correlated(200))
    palette = palettize_weight(weight, 4, inputs.moments.diagonal())
    left = weight[:, inputs.order].double()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(inputs.moments[inputs.order][:, inputs.order].double()))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rows, codes = palette.rows().double(), torch.empty(20, 200, dtype=torch.int64)
    for j in range(200):
        codes[:, j] = (left[:, j : j + 1] - rows).abs().argmin(1)
        error = (left[:, j] - rows.gather(1, codes[:, j : j + 1])[:, 0]) / factor[j, j]
        left[:, j:] -= error[:, None] * factor[j, j:]
    found = compensated_codes(weight, palette, inputs)[0][:, inputs.order]
    assert (found == codes).double().mean() > 0.995  # a tie that falls otherwise changes the rest of its row


@pytest.mark.parametrize("bits", [2, 4])
def test_each_code_is_the_best_one_with_the_others_as_they_are(bits: int) -> None:
    weight, inputs = random(16, 20), rounding(correlated(20))
    palette = palettize_weight(weight, bits)
    palette = palette._replace(indices=descended_codes(weight, palette, inputs, sweeps=50)[0])  # until nothing moves
    least = output_error(weight, palette, inputs.moments)
    for row in range(0, 16, 5):
        for k in range(20):
            for code in range(2**bits):
                other = palette.indices.clone()
                other[row, k] = code
                assert output_error(weight, palette._replace(indices=other), inputs.moments) >= least * (1 - 1e-5)


@given(seed=st.integers(0, 999), bits=st.sampled_from([2, 4]), rows=st.integers(1, 40))
@settings(max_examples=20)
def test_refit_never_loses_more_for_its_codes(seed: int, bits: int, rows: int) -> None:
    weight, inputs = random(rows, 32, seed=seed), rounding(correlated(32, seed))
    palette = palettize_weight(weight, bits)
    noise = torch.randint(2**bits, palette.indices.shape, generator=torch.Generator().manual_seed(seed))
    for indices in (palette.indices, noise.to(torch.uint8)):  # good codes, and codes that mean nothing
        start = palette._replace(indices=indices)
        before, after = (
            output_error(weight, p, inputs.moments) for p in (start, refitted(weight, start, inputs.moments))
        )
        assert after <= before * 1.01 + 1e-6  # tables are rounded to multiples of 1 / 127


def test_more_refits_are_never_worse_and_the_result_is_deterministic() -> None:
    weight, inputs = random(32, 64), rounding(correlated(64))
    errors = [compensated(weight, 2, inputs, refits=refits)[1] for refits in (0, 1, 2, 3)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[1] < errors[0]
    first, second = compensated(weight, 2, inputs)[0], compensated(weight, 2, inputs)[0]
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


def test_inputs_that_calibration_never_saw_keep_the_rest_whole() -> None:
    moments = correlated(40)
    moments[:10] = moments[:, :10] = 0
    palette, error = compensated(random(20, 40), 4, rounding(moments))
    assert palette.dense().isfinite().all()
    assert error < 0.02
    assert compensated(random(16, 8), 4, rounding(torch.zeros(8, 8)))[0].dense().isfinite().all()
    with pytest.raises(UserError, match="not finite"):
        rounding(torch.full((3, 3), torch.nan))


def test_storable_keeps_what_a_palette_stands_for() -> None:
    table, scale = random(2, 16).double(), random(20, seed=1).abs().double()
    rounded, grown = storable(table, scale)
    rows, wanted = (t.repeat_interleave(16, 0)[:20] * s[:, None] for t, s in ((rounded, grown), (table, scale)))
    assert torch.allclose(rows.double(), wanted, atol=float(wanted.abs().max()) / 200)
    with pytest.raises(UserError, match="65,504"):
        storable(table * 1e5, scale + 1)
    indices = torch.randint(16, (20, 7)).to(torch.uint8)
    palette = sorted_palette(indices, table, scale, 4)
    assert torch.equal(palette.table, rounded.sort(1).values)
    assert torch.equal(palette.dense(), rows.gather(1, indices.long()))
