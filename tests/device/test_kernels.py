"""Every table of kernels that runs here against float64, and its int8 mode against the same rounding in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pippin.bench.device_models import write_random_packed
from pippin.device.engine import Engine, Floats, Model, kernels
from pippin.interop.stored import StoredModel, parameter_shapes
from pippin.model.config import ModelConfig

NAMES = ("attention.q", "attention.k", "attention.v", "attention.o", "ffn.gate", "ffn.up", "ffn.down")
SPAN = 64
# Widths with whole and broken groups, blocks and spans; q has more rows than a chunk of any thread.
CONFIG = ModelConfig(
    vocab_size=40, d_model=150, n_layers=2, n_heads=29, n_kv_heads=1, d_head=10, d_ff=203, max_seq_len=64
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    plan = {f"blocks.{layer}.{name}": bits for layer, bits in enumerate((4, 2)) for name in NAMES}
    write_random_packed(folder, CONFIG, plan, seed=3)
    return folder


def int8_rounding(x: Floats) -> Floats:
    """What fast mode makes of inputs: per 64 of them one scale, the largest is 127 (docs/device.md)."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % SPAN))).reshape(len(x), -1, SPAN)
    scale = np.abs(padded).max(-1, keepdims=True).astype(np.float32)
    by = np.divide(np.float32(127), scale, out=np.zeros_like(scale), where=scale > 0)
    rounded = np.rint(padded * by) * (scale / np.float32(127))
    return rounded.reshape(len(x), -1)[:, : x.shape[1]]


@pytest.mark.parametrize("layer", [0, 1], ids=["4 bits", "2 bits"])
@pytest.mark.parametrize("table", kernels())
@pytest.mark.parametrize("threads", [1, 3])
def test_projections(directory: Path, table: str, layer: int, threads: int) -> None:
    stored, model = StoredModel(directory), Model(directory)
    exact, fast = (Engine(model, mode=mode, kernels=table, threads=threads) for mode in ("exact", "fast"))
    rng = np.random.default_rng(layer)
    for which, name in enumerate(NAMES):
        weight = stored.dense(f"blocks.{layer}.{name}.weight").astype(np.float64)
        for n in (1, 2, 3, 5, 13, 30):
            x = rng.standard_normal((n, weight.shape[1])).astype(np.float32)
            x[:, ::17] *= 20  # outliers
            x[-1, :SPAN] = 0  # a span without a scale
            right = x.astype(np.float64) @ weight.T
            assert np.abs(exact.project(layer, which, x) - right).max() <= 1e-5 * np.abs(right).max()
            rounded = int8_rounding(x).astype(np.float64) @ weight.T
            found = fast.project(layer, which, x)
            assert np.abs(found - rounded).max() <= 1e-5 * np.abs(right).max()


def test_the_test_model_covers_both_widths(directory: Path) -> None:
    stored = StoredModel(directory)
    assert {stored.palette(f"blocks.{layer}.ffn.up.weight").bits for layer in (0, 1)} == {2, 4}
    assert any(shape[0] % 16 for shape in parameter_shapes(CONFIG).values() if len(shape) == 2)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_tables_agree(directory: Path, mode: str) -> None:
    model = Model(directory)
    x = np.random.default_rng(0).standard_normal((7, CONFIG.d_model)).astype(np.float32)
    portable = Engine(model, mode=mode, kernels="portable", threads=1)
    tokens = list(range(20))
    for table in kernels():
        other = Engine(model, mode=mode, kernels=table, threads=1)
        for layer in (0, 1):
            right = portable.project(layer, 0, x)
            assert np.abs(other.project(layer, 0, x) - right).max() <= 1e-5 * np.abs(right).max()
        if mode == "exact":
            right = portable.logits(tokens, 20)
            assert np.abs(other.logits(tokens, 20) - right).max() <= 1e-4 * np.abs(right).max()
