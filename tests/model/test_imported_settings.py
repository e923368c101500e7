"""What is done to a model works with the settings of imported ones: biases, an own head, post-norm, other QK norms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.model.reference import random_tokens, tiny_model
from tests.model.test_config import IMPORTED

from pippin.compress.packed import load_packed, save_packed
from pippin.compress.palettize import palettize
from pippin.interop.hf import save_hf
from pippin.interop.lora import base_signature
from pippin.interop.peft import load_adapter, save_adapter
from pippin.model.transformer import Transformer
from pippin.training.optimizer import param_groups
from pippin.training.pruning import hard_top_k, install_masks, slice_ffn


def model_of(kind: str) -> Transformer:
    model = tiny_model(IMPORTED[kind])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model


@pytest.mark.parametrize("kind", IMPORTED)
def test_slicing_the_ffn(kind: str) -> None:
    model = model_of(kind)
    scores = torch.randn(2, 40)
    install_masks(model, scores, 24, 0.0)
    small = slice_ffn(model, hard_top_k(scores, 24))
    assert small.config.d_ff == 24
    torch.testing.assert_close(small(random_tokens()), model(random_tokens()))


def test_an_own_head_writes_the_logits_and_becomes_int8() -> None:
    model = model_of("llama")
    assert model.head is not None
    exact = model(random_tokens())
    model.head.pack_int8()
    rounded = model(random_tokens())
    assert 0 < (rounded - exact).abs().max() < 0.2
    with torch.no_grad():
        model.head.scale.zero_()
    assert not model(random_tokens()).any()


def test_a_bias_is_no_part_of_the_weight_and_outlives_packing() -> None:
    model = model_of("qwen2")
    linear = model.blocks[0].attention.q
    x = torch.randn(1, 3, 24)
    torch.testing.assert_close(linear(x) - linear.bias, x @ linear.dense_weight().T)
    codes = torch.zeros(4, 3, 64, dtype=torch.uint8)
    linear.pack(codes, torch.full((4, 16), 0.5), torch.ones(60), 4)
    torch.testing.assert_close(linear(x), x.sum(-1, keepdim=True) / 2 + linear.bias)
    # muP scales the updates of matrices; a bias is none.
    factors = {name: g["mup_factor"] for g in param_groups(model, base_width=12) for name, _ in g["params"]}
    assert factors["blocks.1.attention.q.weight"] == 0.5
    assert factors["blocks.1.attention.q.bias"] == 1


@pytest.mark.parametrize("kind", IMPORTED)
def test_adapters_know_their_base(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    save_hf(model, tmp_path / "base")
    signature = base_signature(tmp_path / "base")
    for _, linear in model.linears():
        linear.add_adapters(2, 3)
        linear.lora_B.data.normal_()
    slots = torch.ones(2, dtype=torch.int64)
    save_adapter(model, 1, tmp_path / "adapter", signature, dtype=torch.float32)
    expected = model(random_tokens(), slots_B=slots)
    load_adapter(model, 0, tmp_path / "adapter", signature)
    torch.testing.assert_close(model(random_tokens(), slots_B=0 * slots), expected)
    assert (expected - model(random_tokens())).abs().max() > 0.1
    # One changed bias or gain is another base.
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if name.endswith(("bias", "norm.weight"))).add_(1)
    save_hf(model, tmp_path / "other")
    assert base_signature(tmp_path / "other") != signature


@pytest.mark.parametrize("kind", IMPORTED)
def test_a_packed_directory_holds_it_all_under_its_own_names(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    palettize(model, {name: 4 for name, _ in model.linears()})
    save_packed(model, tmp_path / "packed")
    packed = load_packed(tmp_path / "packed", torch.float32)
    assert packed.config == model.config
    torch.testing.assert_close(packed(random_tokens()), model(random_tokens()))
    # What stays dense, and the two tables, are called there as in the dense directory.
    save_hf(model, tmp_path / "dense")
    dense, stored = (
        load_file(tmp_path / "dense" / "model.safetensors"),
        load_file(tmp_path / "packed" / "model.safetensors"),
    )
    assert {name.rpartition(".")[0] for name in stored} == {name.rpartition(".")[0] for name in dense}
    for name in dense.keys() & stored.keys():
        assert torch.equal(dense[name], stored[name])
