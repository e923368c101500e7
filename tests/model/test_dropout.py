"""What is dropped is a function of seed, step and token, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.model.reference import TINY, random_tokens, tiny_model
from tests.model.test_transformer import packed

from pippin.model.attention import make_layout
from pippin.model.dropout import Dropout, dropped
from pippin.model.transformer import Transformer

HERE = Dropout(rate=0.1, seed=5, step=3, first_row=0)


def mask(dropout: Dropout, layer: int = 1, place: int = 0, shape: tuple[int, int, int] = (8, 64, 96)) -> torch.Tensor:
    """Where values fall, as numbers."""
    drop = dropout.tokens(torch.zeros(shape[:2], dtype=torch.int64), None, None).at(layer)
    return (dropped(torch.ones(shape), drop, place) == 0).float()


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_rate_is_kept_everywhere_and_the_rest_is_scaled(rate: float) -> None:
    drop = replace(HERE, rate=rate).tokens(torch.zeros(8, 64, dtype=torch.int64), None, None)
    found = dropped(torch.ones(8, 64, 96), drop)
    assert sorted(found.unique().tolist()) == pytest.approx([0, 1 / (1 - rate)])
    falls = (found == 0).double()
    for dims in ((0, 1, 2), (0, 1), (1, 2), (0, 2)):  # in all, by channel, by row, by position
        share = falls.mean(dims)
        error = math.sqrt(rate * (1 - rate) / (falls.numel() / share.numel()))
        assert float((share - rate).abs().max()) < 5 * error, dims


def test_masks_are_independent_of_each_other() -> None:
    first = mask(HERE)
    limit = 5 / math.sqrt(first.numel())
    others = {
        "step": mask(replace(HERE, step=4)),
        "seed": mask(replace(HERE, seed=6)),
        "row": mask(replace(HERE, first_row=8)),
        "layer": mask(HERE, layer=2),
        "place": mask(HERE, place=1),
        "channel": first.roll(1, dims=2),
        "position": first.roll(1, dims=1),
        "next row": first.roll(1, dims=0),
    }
    for name, other in others.items():
        assert abs(correlation(first, other)) < limit, name


def test_a_mask_belongs_to_its_token() -> None:
    """By row of the batch, segment and position, wherever the micro-batch or a process's part of the row begins."""
    tokens_BT = random_tokens()
    positions_BT, segments_BT = packed()
    whole = HERE.tokens(tokens_BT, positions_BT, segments_BT).keys_BT
    second = replace(HERE, first_row=1).tokens(tokens_BT[1:], positions_BT[1:], segments_BT[1:]).keys_BT
    assert torch.equal(whole[1:], second)
    part = HERE.tokens(tokens_BT[:, 4:9], positions_BT[:, 4:9], segments_BT[:, 4:9]).keys_BT
    assert torch.equal(whole[:, 4:9], part)
    real = segments_BT > 0
    assert len(whole[real].unique()) == int(real.sum())  # two documents that start alike are not dropped alike
    plain = HERE.tokens(tokens_BT, None, None).keys_BT
    rows = HERE.tokens(tokens_BT, torch.arange(17).expand(2, -1), torch.ones(2, 17, dtype=torch.int64)).keys_BT
    assert torch.equal(plain, rows)


def test_the_gradient_is_of_what_was_kept() -> None:
    drop = HERE.tokens(torch.zeros(1, 3, dtype=torch.int64), None, None)
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dropped(x, drop), x)


def test_without_it_nothing_changes_and_with_it_every_sublayer_does() -> None:
    model = tiny_model()
    tokens_BT = random_tokens()
    plain = model(tokens_BT)
    model.dropout = HERE
    noisy = model(tokens_BT)
    assert torch.equal(noisy, model(tokens_BT))
    assert not torch.allclose(plain, noisy)
    model.dropout = replace(HERE, rate=0.0)
    assert torch.equal(model(tokens_BT), plain)
    # Each of the model's own calls matters: the embedding's, and two in each layer.
    silent = tiny_model(replace(TINY, n_layers=1))
    with torch.no_grad():
        for parameter in (silent.blocks[0].attention.o.weight, silent.blocks[0].ffn.down.weight):
            parameter.zero_()
    silent.dropout = HERE
    embedded = silent(tokens_BT)
    silent.dropout = None
    assert not torch.allclose(embedded, silent(tokens_BT))
    model.dropout = None
    assert torch.equal(model(tokens_BT), plain)


@pytest.mark.parametrize("sublayer", ["attention.o", "ffn.down"])
def test_both_sublayers_drop(sublayer: str) -> None:
    """With only one of them alive, a tenth of what it adds to the residual stream is gone and the rest is scaled."""
    model = tiny_model(replace(TINY, n_layers=1))
    other = {"attention.o": "ffn.down", "ffn.down": "attention.o"}[sublayer]
    with torch.no_grad():
        model.blocks[0].get_submodule(other).weight.zero_()
    drop = HERE.tokens(random_tokens(), None, None)
    x_BTD = torch.randn(2, 17, TINY.d_model, generator=torch.Generator().manual_seed(1))
    positions_BT, segments_BT = packed()
    layout = make_layout(model.config, random_tokens(), positions_BT, segments_BT, None, torch.float32)
    kept, fallen = model.blocks[0](x_BTD, layout), model.blocks[0](x_BTD, layout, None, drop)
    added, shown = kept - x_BTD, fallen - x_BTD
    zero = shown == 0
    assert 0.05 < float(zero.float().mean()) < 0.15
    torch.testing.assert_close(shown[~zero], added[~zero] / 0.9, atol=1e-5, rtol=1e-4)


def test_compiled_it_is_the_same_and_one_graph_serves_every_step() -> None:
    model = tiny_model()
    tokens_BT = random_tokens()
    torch.compiler.reset()
    compiled: Transformer = torch.compile(model.blocks[0], backend="eager", fullgraph=True)
    blocks = list(model.blocks)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(3):
            model.dropout = replace(HERE, step=step)
            expected = model(tokens_BT)
            model.blocks[0] = compiled
            torch.testing.assert_close(model(tokens_BT), expected)
            model.blocks[0] = blocks[0]
    torch.compiler.reset()
