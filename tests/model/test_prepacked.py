"""Prepacked weights: the same outputs for every kind of model, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.model.reference import TINY, random_tokens, tiny_model
from tests.model.test_config import IMPORTED

from pippin.compress.palettize import palettize
from pippin.model.cache import KVCache
from pippin.model.prepacked import prepack
from pippin.model.transformer import Transformer
from pippin.training.pruning import install_masks

pytestmark = pytest.mark.skipif(
    prepack(torch.zeros(4, 4)) is None, reason="this build of torch has no oneDNN that prepacks float32 weights"
)


def pruned() -> Transformer:
    model = tiny_model(TINY)
    install_masks(model, torch.randn(TINY.n_layers, TINY.d_ff), TINY.d_ff // 2, 0.0)
    return model


def packed() -> Transformer:
    model = tiny_model(TINY)
    palettize(model, {name: 4 for name, _ in model.linears()})  # its embedding becomes int8
    return model


MODELS: dict[str, Callable[[], Transformer]] = {
    "ours": lambda: tiny_model(TINY),
    "rope before norm": lambda: tiny_model(replace(TINY, rope_before_norm=True)),
    **{name: lambda config=config: tiny_model(config) for name, config in IMPORTED.items()},
    "pruned": pruned,
    "packed": packed,
}


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_outputs_are_the_same(kind: str) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            parameter.copy_(1 + 0.3 * torch.randn(parameter.shape))
    model.requires_grad_(False)
    tokens_BT = random_tokens()
    expected, names = model(tokens_BT), list(model.state_dict())
    with model.unchanging():
        assert all(block.ffn.joined is not None for block in model.blocks)
        assert all((block.attention.joined is None) == (model.config.qk_norm == "width") for block in model.blocks)
        assert all(block.ffn.down.prepacked is not None for block in model.blocks)
        torch.testing.assert_close(model(tokens_BT), expected, atol=1e-5, rtol=1e-5)
        cache = KVCache(model.config, *tokens_BT.shape, torch.float32)
        steps = [model(tokens_BT[:, t : t + 1], cache=cache) for t in range(tokens_BT.shape[1])]
        torch.testing.assert_close(torch.cat(steps, 1), expected, atol=1e-5, rtol=1e-5)
        assert list(model.state_dict()) == names
    assert torch.equal(model(tokens_BT), expected)


@torch.no_grad()
def test_adapters_are_added_however_it_was_opened() -> None:
    model = tiny_model(TINY)
    for _, linear in model.linears():
        linear.add_adapters(2, 3)
        linear.lora_B.normal_()
    tokens_BT, slots_B = random_tokens(), torch.tensor([1, -1])
    expected, base = model(tokens_BT, slots_B=slots_B), model(tokens_BT)
    assert not torch.allclose(expected[0], base[0], atol=0.1)
    for adapters in (True, False):
        with model.unchanging(adapters=adapters):
            assert (model.blocks[0].attention.joined is None) == adapters
            torch.testing.assert_close(model(tokens_BT, slots_B=slots_B), expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(model(tokens_BT), base, atol=1e-5, rtol=1e-5)


def test_there_are_no_gradients_inside_and_all_of_them_afterwards() -> None:
    model = tiny_model(TINY)
    with model.unchanging():
        assert not model(random_tokens()).requires_grad
    model(random_tokens()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
def test_it_ends_with_the_block_whatever_happens_there() -> None:
    model = tiny_model(TINY)
    with pytest.raises(KeyError), model.unchanging():
        raise KeyError
    for parameter in model.parameters():
        parameter.mul_(0.5)  # new weights count again
    fresh = tiny_model(TINY)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model(random_tokens()), fresh(random_tokens()))


@torch.no_grad()
def test_what_cannot_be_prepacked_runs_as_ever() -> None:
    assert prepack(torch.zeros(4, 4, dtype=torch.float64)) is None
    assert prepack(torch.zeros(4, 4, device="meta")) is None
    model = tiny_model(TINY)
    for dtype in (torch.bfloat16, torch.float64):
        model.compute_dtype = dtype
        expected = model(random_tokens())
        with model.unchanging():
            assert model.embed.prepacked is None
            assert torch.equal(model(random_tokens()), expected)
