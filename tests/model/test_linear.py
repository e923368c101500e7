"""The kinds of a Linear: dense, packed, masked, adapted; and the embedding's two kinds."""

from __future__ import annotations

import pytest
import torch

from pippin.model import codes as code_layout
from pippin.model.embedding import Embedding
from pippin.model.linear import Linear


def linear(in_features: int = 44, out_features: int = 36) -> Linear:
    torch.manual_seed(0)
    return Linear(in_features, out_features, mup_width=in_features, shard="column")


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("shape", [(16, 8), (36, 44), (1, 1), (33, 17), (64, 64)])
def test_codes_round_trip(bits: int, shape: tuple[int, int]) -> None:
    indices = torch.randint(0, 2**bits, shape, dtype=torch.uint8)
    codes = code_layout.pack(indices, bits)
    assert codes.dtype == torch.uint8
    assert codes.shape == (-(-shape[0] // 16), -(-shape[1] // (32 // bits)), 64)
    assert torch.equal(code_layout.unpack(codes, bits, *shape), indices)


@pytest.mark.parametrize("bits", [2, 4])
def test_codes_layout_is_the_documented_one(bits: int) -> None:
    fields = 8 // bits
    indices = torch.randint(0, 2**bits, (20, 50), dtype=torch.uint8)
    codes = code_layout.pack(indices, bits)
    for row in range(20):
        for column in range(50):
            block, k = divmod(column, 4 * fields)
            f, j = divmod(k, 4)
            byte = int(codes[row // 16, block, 4 * (row % 16) + j])
            assert (byte >> (bits * f)) & (2**bits - 1) == int(indices[row, column])


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_multiplies_by_table_times_scale(bits: int) -> None:
    layer = linear()
    indices = torch.randint(0, 2**bits, (36, 44), dtype=torch.uint8)
    table, scale = torch.randn(3, 2**bits), torch.rand(36) + 0.5
    layer.pack(code_layout.pack(indices, bits), table, scale, bits)
    expected = torch.empty(36, 44)
    for row in range(36):
        for column in range(44):
            expected[row, column] = table[row // 16, int(indices[row, column])] * scale[row]
    torch.testing.assert_close(layer.dense_weight(), expected)
    x = torch.randn(2, 3, 44, requires_grad=True)
    torch.testing.assert_close(layer(x), x @ expected.T)
    assert layer.weight is None
    assert sorted(layer.state_dict()) == ["codes", "scale", "table"]


@pytest.mark.parametrize("wrong", ["codes", "dtype", "table", "scale"])
def test_packed_shapes_are_checked(wrong: str) -> None:
    codes, table, scale = torch.zeros(3, 6, 64, dtype=torch.uint8), torch.zeros(3, 16), torch.ones(36)
    parts = {"codes": codes[:2], "dtype": codes.int(), "table": table[:, :4], "scale": scale[:5]}
    given = {"codes": codes, "table": table, "scale": scale} | {wrong if wrong != "dtype" else "codes": parts[wrong]}
    with pytest.raises(ValueError, match=wrong if wrong != "dtype" else "codes"):
        linear().pack(**given, bits=4)


@pytest.mark.parametrize("packed", [False, True])
def test_adapters_act_per_row(packed: bool) -> None:
    layer = linear()
    if packed:
        indices = torch.randint(0, 16, (36, 44), dtype=torch.uint8)
        layer.pack(code_layout.pack(indices, 4), torch.randn(3, 16), torch.rand(36), 4)
    x = torch.randn(4, 5, 44)
    base = layer(x)
    layer.add_adapters(slots=3, rank=4)
    torch.testing.assert_close(layer(x, torch.tensor([0, 1, 2, -1])), base)  # B is zero
    adapters = [(torch.randn(4, 44), torch.randn(36, 4), 0.5), (torch.randn(2, 44), torch.randn(36, 2), 2.0)]
    layer.load_adapter(0, *adapters[0])
    layer.load_adapter(2, torch.randn(4, 44), torch.randn(36, 4), 1.0)
    layer.load_adapter(2, *adapters[1])  # a smaller one replaces a larger one wholly
    out = layer(x, torch.tensor([2, -1, 0, 1]))
    for row, adapter in [(0, adapters[1]), (1, None), (2, adapters[0]), (3, None)]:
        expected = base[row]
        if adapter is not None:
            A, B, scale = adapter
            expected = expected + scale * (x[row] @ A.T @ B.T)
        torch.testing.assert_close(out[row], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(x), base)  # no slots: no adapters
    with pytest.raises(ValueError, match="does not fit"):
        layer.load_adapter(0, torch.randn(5, 44), torch.randn(36, 5), 1.0)


def test_adapters_learn_only_in_the_chosen_slot() -> None:
    layer = linear()
    layer.weight.requires_grad_(False)
    layer.add_adapters(slots=2, rank=4)
    layer(torch.randn(3, 5, 44), torch.tensor([1, 1, -1])).square().sum().backward()
    assert (layer.lora_B.grad[1] != 0).any()
    assert (layer.lora_B.grad[0] == 0).all()
    assert layer.weight.grad is None
    storage = layer.lora_A.data_ptr()
    layer.load_adapter(1, torch.randn(4, 44), torch.randn(36, 4), 1.0)
    assert layer.lora_A.data_ptr() == storage


def test_mask_multiplies_the_input() -> None:
    layer, x = linear(), torch.randn(2, 5, 44)
    base = layer(x)
    layer.mask = torch.ones(44)
    torch.testing.assert_close(layer(x), base)
    layer.mask = torch.rand(44, requires_grad=True)
    out = layer(x)
    torch.testing.assert_close(out, (x * layer.mask) @ layer.weight.T)
    out.sum().backward()
    torch.testing.assert_close(layer.mask.grad, (x * layer.weight.sum(0)).sum((0, 1)), atol=1e-4, rtol=1e-4)
    assert sorted(layer.state_dict()) == ["weight"]


def test_init_has_unit_gain() -> None:
    layer = Linear(512, 256, mup_width=512, shard="row")
    assert float(layer.weight.detach().std()) == pytest.approx(512**-0.5, rel=0.02)
    embed = Embedding(512, 256)
    assert float(embed.weight.detach().std()) == pytest.approx(256**-0.5, rel=0.02)


def test_int8_embedding() -> None:
    torch.manual_seed(0)
    embed = Embedding(50, 24)
    with torch.no_grad():
        embed.weight[3] = 0
    dense = embed.weight.detach().clone()
    embed.pack_int8()
    assert embed.weight is None
    assert embed.codes.dtype == torch.int8
    step = dense.abs().amax(1, keepdim=True) / 127
    assert ((embed.dense_weight() - dense).abs() <= step / 2 + 1e-7).all()
    tokens = torch.tensor([[3, 7], [49, 0]])
    torch.testing.assert_close(embed(tokens), embed.dense_weight()[tokens])
    with pytest.raises(ValueError, match="already int8"):
        embed.pack_int8()
