"""The reader without torch gives what the model with torch computes with, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.interop.models import BASE, CONFIGS, dense_dir, make_model, packed_dir

from pippin.compress.matrix import TABLE_STEPS
from pippin.errors import UserError
from pippin.interop import directory as layout
from pippin.interop import stored
from pippin.interop.hf import save_hf
from pippin.interop.load import load_model
from pippin.interop.stored import StoredModel, parameter_shapes
from pippin.model import codes
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

# Nothing divides 16 or 8: every tensor has padding.
ODD = ModelConfig(vocab_size=41, d_model=36, n_layers=2, n_heads=3, n_kv_heads=1, d_head=14, d_ff=50, max_seq_len=32)


def values(model: Transformer, name: str) -> np.ndarray:
    module = model.get_submodule(name.rpartition(".")[0])
    if name.endswith(".weight") and hasattr(module, "dense_weight"):
        return module.dense_weight().detach().numpy()
    return model.get_parameter(name).detach().numpy()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_shapes_are_those_of_the_model(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = Transformer(config)
    assert parameter_shapes(config) == {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_constants_are_those_of_the_format() -> None:
    assert (layout.GROUP_ROWS, layout.BITS, stored.TABLE_STEPS) == (codes.GROUP_ROWS, codes.BITS, TABLE_STEPS)


@pytest.mark.parametrize("config", [BASE, ODD], ids=["even", "odd"])
def test_a_packed_model_is_read_exactly(config: ModelConfig, tmp_path: Path) -> None:
    path = packed_dir(tmp_path / "model", config)
    model, read = load_model(path), StoredModel(path)
    assert read.packed
    for name in read.shapes:
        assert np.array_equal(read.dense(name), values(model, name)), name
    for name, linear in model.linears():
        expected = codes.unpack(linear.codes, linear.bits, linear.out_features, linear.in_features).numpy()
        assert np.array_equal(read.palette(f"{name}.weight").indices, expected), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["qwen2", "olmo2"])
def test_a_dense_model_is_read_exactly(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    save_hf(make_model(CONFIGS[kind]), tmp_path, dtype=dtype, shard_bytes=30_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model, read = load_model(tmp_path), StoredModel(tmp_path)
    assert not read.packed
    for name in read.shapes:
        assert np.array_equal(read.dense(name), values(model, name)), name


def test_what_is_damaged_is_one_line(tmp_path: Path) -> None:
    path = packed_dir(tmp_path / "model")
    content = (path / "model.safetensors").read_bytes()
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"intermediate_size": 80}))
    with pytest.raises(UserError, match=r"gate_proj.scale: F16 \(72,\), .* of different models"):
        StoredModel(path)
    (path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    StoredModel(path)  # more tensors than needed: nothing of them is read
    config["quantization_config"]["bits"]["model.layers.0.self_attn.q_proj"] = 3
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="bits: value 3"):
        StoredModel(path)
    config["quantization_config"]["bits"]["model.layers.0.self_attn.q_proj"] = 4
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(content.replace(b"embed_tokens.codes", b"embed_tokens.kodes"))
    with pytest.raises(UserError, match=r"embed_tokens.codes: tensor missing"):
        StoredModel(path)
    (path / "model.safetensors").write_bytes(content[:-8])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        StoredModel(path)


def test_infinity_is_refused(tmp_path: Path) -> None:
    model = make_model(BASE)
    model.blocks[0].ffn.up.weight[0, 0] = torch.inf
    save_hf(model, tmp_path)
    read = StoredModel(tmp_path)
    with pytest.raises(UserError, match=r"up_proj.weight: holds NaN or infinity"):
        read.dense("blocks.0.ffn.up.weight")


def test_dense_dir_is_what_it_says(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        StoredModel(tmp_path / "absent")
    assert StoredModel(dense_dir(tmp_path / "model")).config == BASE
