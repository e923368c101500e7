"""Packed directories: exact round trip, honest sizes, and one clear line for whatever is wrong with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pippin.compress.packed import _write_tensors, load_packed, save_packed
from pippin.compress.palettize import palettize
from pippin.compress.size import model_size
from pippin.errors import UserError
from pippin.interop.hf import save_hf
from pippin.interop.load import is_packed, load_model
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

# Nothing divides 16 or 8: every tensor has padding.
CONFIG = ModelConfig(vocab_size=41, d_model=36, n_layers=2, n_heads=3, n_kv_heads=1, d_head=14, d_ff=50, max_seq_len=32)
Q = "model.layers.0.self_attn.q_proj"


def make_model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG, torch.float32)
    for norm in ("attention_norm", "ffn_norm"):
        torch.nn.init.uniform_(model.blocks[1].get_submodule(norm).weight, 0.5, 1.5)
    palettize(model, {name: 2 if "up" in name else 4 for name, _ in model.linears()})
    return model


@pytest.fixture(scope="module")
def model() -> Transformer:
    return make_model()


@pytest.fixture(scope="module")
def saved(model: Transformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packed") / "model"
    save_packed(model, directory)
    return directory


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_round_trip_is_exact(model: Transformer, saved: Path) -> None:
    loaded = load_packed(saved, torch.float32)
    for (name, ours), (_, theirs) in zip(model.linears(), loaded.linears(), strict=True):
        assert ours.bits == theirs.bits, name
        for part in ("codes", "table", "scale"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part)), (name, part)
    tokens = torch.randint(41, (2, 12), generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded(tokens), model(tokens))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


def test_saving_what_was_loaded_writes_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_packed(load_packed(saved), tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_config_says_what_it_is(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "qwen3"
    settings = config["quantization_config"]
    assert settings["quant_method"] == "pippin-palette"
    assert settings["format_version"] == 2
    assert settings["bits"][Q] == 4
    assert settings["bits"]["model.layers.1.mlp.up_proj"] == 2
    assert len(settings["bits"]) == 14


def starts(path: Path) -> dict[str, int]:
    """Where in the file each tensor begins."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return {name: 8 + length + item["data_offsets"][0] for name, item in header.items() if name != "__metadata__"}


def test_codes_start_on_a_cache_line(saved: Path) -> None:
    codes = {name: start for name, start in starts(saved / "model.safetensors").items() if name.endswith("proj.codes")}
    assert len(codes) == 14
    assert [name for name, start in codes.items() if start % 64] == []


@pytest.mark.parametrize("length", range(1, 9))
def test_tensors_of_any_name_and_size_are_aligned(tmp_path: Path, length: int) -> None:
    tensors = {
        "a" * length: torch.arange(7, dtype=torch.int8),
        "b": torch.arange(3.0),
        "c": torch.arange(5.0).half(),
        "d": torch.arange(128, dtype=torch.uint8),
        "e": torch.arange(16.0),
    }
    _write_tensors(tmp_path / "x.safetensors", tensors)
    for name, tensor in load_file(tmp_path / "x.safetensors").items():
        assert torch.equal(tensor, tensors[name]), name
        assert tensor.dtype == tensors[name].dtype
    for name, start in starts(tmp_path / "x.safetensors").items():
        assert start % (64 if name in "de" else tensors[name].element_size()) == 0, name


def test_size_is_that_of_the_file(model: Transformer, saved: Path) -> None:
    data = (saved / "model.safetensors").read_bytes()
    payload = len(data) - 8 - int.from_bytes(data[:8], "little")
    size = model_size(model)
    assert size.total_bytes == payload
    tensors = load_file(saved / "model.safetensors")
    projections = sum(tensor.nbytes for name, tensor in tensors.items() if "_proj." in name)
    assert size.projection_bytes == projections
    assert size.embedding_bytes == sum(tensor.nbytes for name, tensor in tensors.items() if "embed" in name)
    assert size.bits_per_weight == 8 * projections / CONFIG.n_matmul_params()
    assert size.bits_per_parameter == 8 * payload / CONFIG.n_params().total
    with_adapter = model_size(model, adapter_rank=4)
    shapes = [(linear.in_features, linear.out_features) for _, linear in model.linears()]
    assert with_adapter.total_bytes - payload == sum(2 * 4 * (a + b) for a, b in shapes)
    assert with_adapter.bits_per_weight == size.bits_per_weight


def test_size_of_a_dense_model_is_that_of_its_file(tmp_path: Path) -> None:
    dense = Transformer(CONFIG)
    save_hf(dense, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert model_size(dense).total_bytes == sum(tensor.nbytes for tensor in tensors.values())


def test_load_model_opens_either_kind(model: Transformer, saved: Path, tmp_path: Path) -> None:
    save_hf(model, tmp_path / "dense")
    assert is_packed(saved)
    assert not is_packed(tmp_path / "dense")
    dense, packed = load_model(tmp_path / "dense", torch.float32), load_model(saved, torch.float32)
    tokens = torch.arange(20)[None]
    assert dense.blocks[0].ffn.up.codes is None
    assert packed.blocks[0].ffn.up.bits == 2
    assert torch.allclose(dense(tokens), packed(tokens), atol=1e-5)


def test_only_a_packed_model_is_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="palettized"):
        save_packed(Transformer(CONFIG), tmp_path)
    model = make_model()
    model.blocks[0].ffn.up.table += 1e-5
    with pytest.raises(ValueError, match="127"):
        save_packed(model, tmp_path)
    model = make_model()
    model.blocks[0].ffn.up.scale += 1e-5
    with pytest.raises(ValueError, match="float16"):
        save_packed(model, tmp_path)
    assert not list(tmp_path.iterdir())


def edit_config(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text())
        change(config)
        (directory / "config.json").write_text(json.dumps(config))

    return damage


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(directory / "model.safetensors").items()}
        change(tensors)
        save_file(tensors, directory / "model.safetensors")

    return damage


def truncate(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


DAMAGES = {
    "truncated": (truncate, "not a whole safetensors file"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "no such file"),
    "no config": (lambda d: (d / "config.json").unlink(), "no such file"),
    "half a config": (lambda d: (d / "config.json").write_text('{"model_type"'), "not valid JSON"),
    "newer": (edit_config(lambda c: c["quantization_config"].update(format_version=3)), "newer than 2; update"),
    "older": (edit_config(lambda c: c["quantization_config"].update(format_version=1)), "compress the model again"),
    "odd version": (edit_config(lambda c: c["quantization_config"].update(format_version="1")), "format_version"),
    "group": (edit_config(lambda c: c["quantization_config"].update(group_rows=32)), "group_rows: value 32"),
    "bits missing": (edit_config(lambda c: c["quantization_config"]["bits"].pop(Q)), f"bits: value None for {Q}"),
    "bits wrong": (edit_config(lambda c: c["quantization_config"]["bits"].update({Q: 2})), f"{Q}.codes"),
    "bits odd": (edit_config(lambda c: c["quantization_config"]["bits"].update({Q: [4]})), "bits"),
    "other shape": (edit_config(lambda c: c.update(intermediate_size=66)), "different models"),
    "missing tensor": (edit_tensors(lambda t: t.pop(f"{Q}.scale")), f"{Q}.scale: tensor missing"),
    "missing norm": (edit_tensors(lambda t: t.pop("model.norm.weight")), "model.norm.weight: tensor missing"),
    "extra tensor": (edit_tensors(lambda t: t.update(extra=torch.zeros(1))), "extra: unknown tensor"),
    "wrong dtype": (edit_tensors(lambda t: t.update({f"{Q}.table": t[f"{Q}.table"].float()})), f"{Q}.table"),
    "wrong shape": (edit_tensors(lambda t: t.update({f"{Q}.scale": t[f"{Q}.scale"][1:]})), f"{Q}.scale"),
    "not finite": (edit_tensors(lambda t: t[f"{Q}.scale"].fill_(torch.inf)), "NaN or infinity"),
    "other method": (edit_config(lambda c: c.update(quantization_config={"quant_method": "gptq"})), "'gptq'"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_one_line(copy: Path, kind: str) -> None:
    damage, message = DAMAGES[kind]
    damage(copy)
    with pytest.raises(UserError, match=message.replace("[", r"\[")) as caught:
        load_model(copy)
    assert "\n" not in str(caught.value)


def test_a_dense_directory_is_not_packed(tmp_path: Path) -> None:
    save_hf(Transformer(CONFIG), tmp_path)
    with pytest.raises(UserError, match="not a packed model"):
        load_packed(tmp_path)
    with pytest.raises(UserError, match="no such directory"):
        load_model(tmp_path / "nowhere")
