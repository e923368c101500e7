"""Core ML packages, read back and computed with NumPy: the codes, and the program, are the model's.

Nothing here ran on a Mac: what is checked is the written program, by the definitions of its operations.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.interop.mil import Package
from tests.interop.models import BASE, CONFIGS, dense_dir, packed_dir

from pippin.errors import UserError
from pippin.interop.coreml import check_package, export_coreml
from pippin.interop.coreml_program import KINDS, LowRank, rope_values
from pippin.interop.export import TYPES
from pippin.interop.load import load_model
from pippin.interop.stored import StoredModel
from pippin.model.cache import KVCache
from pippin.model.config import ModelConfig
from pippin.model.rope import rope_tables
from pippin.model.transformer import Transformer

CHUNKS = (5, 1, 1, 12, 1)  # a prompt, single tokens, a chunk behind them
TOKENS = torch.randint(384, (1, sum(CHUNKS)), generator=torch.Generator().manual_seed(3))


def low_ranks(model: Transformer, scale: float, seed: int = 5) -> dict[str, LowRank]:
    """A random adapter of rank 3, which is put into slot 0 too."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, linear in model.linears():
        a = (0.2 * torch.randn(3, linear.in_features, generator=generator)).half()
        b = (0.2 * torch.randn(linear.out_features, 3, generator=generator)).half()
        linear.add_adapters(1, 3)
        linear.load_adapter(0, a.float(), b.float(), scale)
        found[f"{name}.weight"] = LowRank(a.numpy(), b.numpy(), scale)
    return found


class HalfCache(KVCache):
    """Keeps float16 and gives float32."""

    def write(self, layer: int, k_BTKH: torch.Tensor, v_BTKH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        k, v = super().write(layer, k_BTKH.half(), v_BTKH.half())
        return k.float(), v.float()


@torch.no_grad()
def expected(model: Transformer, slot: int | None = None) -> list[np.ndarray]:
    """Logits after each chunk, in float32 with keys and values in float16, as Core ML keeps them."""
    model.compute_dtype = torch.float32
    cache = HalfCache(model.config, 1, model.config.max_seq_len, torch.float16)
    slots = None if slot is None else torch.tensor([slot])
    return [
        model(chunk, cache=cache, slots_B=slots, last_only=True)[0, 0].numpy() for chunk in TOKENS.split(CHUNKS, dim=1)
    ]


def found(package: Package, function: str = "main") -> list[np.ndarray]:
    package.states = {}
    logits, start = [], 0
    for chunk in TOKENS.split(CHUNKS, dim=1):
        logits.append(package(chunk[0].tolist(), start, function))
        start += chunk.shape[1]
    return logits


def difference(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_dir(tmp_path_factory.mktemp("packed") / "model")


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 2e-4), ("float16", 0.05)])
def test_a_packed_model_with_an_adapter(kind: str, tolerance: float, packed: Path, tmp_path: Path) -> None:
    model = load_model(packed)
    adapter = low_ranks(model, scale=0.7)
    checked = export_coreml(StoredModel(packed), tmp_path / "m.mlpackage", kind, adapters={"summary": adapter})
    assert checked[:4] == (14, 1, 0, 2)
    assert checked.difference == 0.0 if kind == "float32" else 0 < checked.difference < 2**-10
    package = Package(tmp_path / "m.mlpackage")
    assert [f.name for f in package.description.functions] == ["main", "summary"]
    assert package.description.defaultFunctionName == "main"
    base, adapted = expected(model), expected(model, slot=0)
    assert difference(base, adapted) > 1
    assert difference(found(package), base) < tolerance
    assert difference(found(package, "summary"), adapted) < tolerance
    operations = [op.op_type for op in package.program.functions["main"].operations]
    assert operations.count("constexpr_lut_to_dense") == 14
    assert operations.count("constexpr_blockwise_shift_scale") == 15
    assert operations.count("coreml_update_state") == 4


SLOW = {"qwen3-untied", "mistral", "olmo2"}  # what they have is in the others too, one by one


@pytest.mark.parametrize(
    "kind", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CONFIGS if name != "qwen3"]
)
def test_every_family(kind: str, tmp_path: Path) -> None:
    path = dense_dir(tmp_path / "model", CONFIGS[kind])
    checked = export_coreml(StoredModel(path), tmp_path / "m.mlpackage", "float32")
    assert (checked.dense, checked.difference) == (15 if CONFIGS[kind].tied else 16, 0.0)
    assert difference(found(Package(tmp_path / "m.mlpackage")), expected(load_model(path))) < 2e-4


def test_rows_that_groups_do_not_divide(tmp_path: Path) -> None:
    path = packed_dir(tmp_path / "model", replace(BASE, d_head=14, d_ff=50, n_kv_heads=1))
    export_coreml(StoredModel(path), tmp_path / "m.mlpackage", "float32")
    assert difference(found(Package(tmp_path / "m.mlpackage")), expected(load_model(path))) < 2e-4


@pytest.mark.slow
def test_functions_share_the_weights(packed: Path, tmp_path: Path) -> None:
    adapter = low_ranks(load_model(packed), scale=1.0)
    sizes = []
    for names in ((), ("one", "two")):
        package = tmp_path / f"{len(names)}.mlpackage"
        export_coreml(StoredModel(packed), package, adapters=dict.fromkeys(names, adapter))
        sizes.append((package / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size)
    low_rank_bytes = sum(2 * (low.a.size + low.b.size) for low in adapter.values())
    # Each of an adapter's tensors has a header and starts a line of 64 bytes.
    assert sizes[1] - sizes[0] < 2 * (low_rank_bytes + 128 * 2 * len(adapter))
    assert sizes[0] < 1.6 * (packed / "model.safetensors").stat().st_size


def test_what_the_package_says_of_itself(packed: Path, tmp_path: Path) -> None:
    export_coreml(StoredModel(packed), tmp_path / "m.mlpackage", context=40)
    description = Package(tmp_path / "m.mlpackage").description
    for given, limit in zip(description.input, (40, 40), strict=True):
        sizes = given.type.multiArrayType.shapeRange.sizeRanges
        assert [(size.lowerBound, size.upperBound) for size in sizes] == [(1, 1), (1, limit)]
    assert [state.name for state in description.state] == ["keys", "values"]
    assert list(description.state[0].type.stateType.arrayType.shape) == [2, 2, 40, 16]
    assert description.metadata.userDefined["context"] == "40"
    assert json.loads((tmp_path / "m.mlpackage" / "Manifest.json").read_text())["fileFormatVersion"] == "1.0.0"


def test_the_check_finds_wrong_weights(packed: Path, tmp_path: Path) -> None:
    package = tmp_path / "m.mlpackage"
    export_coreml(StoredModel(packed), package, "float32")
    blob = package / "Data/com.apple.CoreML/weights/weight.bin"
    content = blob.read_bytes()

    def swapped(name: str) -> bytes:
        """The file with the two nibbles of the codes' bytes exchanged."""
        codes = StoredModel(packed).palette(name).indices.ravel()
        stored = (codes[::2] | codes[1::2] << 4).tobytes()
        assert content.count(stored) == 1
        return content.replace(stored, (codes[1::2] | codes[::2] << 4).tobytes())

    blob.write_bytes(swapped("blocks.1.attention.v.weight"))
    with pytest.raises(ValueError, match=r"blocks.1.attention.v.weight: other codes"):
        check_package(package, StoredModel(packed), "float32")
    scale = StoredModel(packed).palette("blocks.0.ffn.down.weight").scale.astype(np.float32).tobytes()
    assert content.count(scale) == 1
    blob.write_bytes(content.replace(scale, scale[4:] + scale[:4]))
    with pytest.raises(ValueError, match="a weight differs from the model's"):
        check_package(package, StoredModel(packed), "float32")


@pytest.mark.parametrize("kind", ["qwen3", "llama3.1"])
def test_rotation_is_the_models(kind: str) -> None:
    config: ModelConfig = CONFIGS[kind]
    scaling = None if kind == "qwen3" else (8.0, 1.0, 4.0, 16.0)
    tables = rope_tables(torch.arange(64), config.d_head, config.rope_base, scaling)
    for ours, theirs in zip(rope_values(config, 64), tables, strict=True):
        assert np.allclose(ours, theirs[:, 0].numpy(), atol=1e-6)


def test_mistakes_are_one_line_and_leave_nothing(packed: Path, tmp_path: Path) -> None:
    model = StoredModel(packed)
    with pytest.raises(UserError, match="must end in .mlpackage"):
        export_coreml(model, tmp_path / "m")
    with pytest.raises(UserError, match="type: value 'f16': must be one of float16, float32"):
        export_coreml(model, tmp_path / "m.mlpackage", "f16")
    with pytest.raises(UserError, match="context: value 65: must be from 2 to 64"):
        export_coreml(model, tmp_path / "m.mlpackage", context=65)
    assert list(tmp_path.iterdir()) == []
    assert TYPES["coreml"] == KINDS
