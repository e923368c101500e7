"""Counting without allocating, and validation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.model.reference import TINY

from pippin.errors import UserError
from pippin.model.config import PRESETS, ModelConfig
from pippin.model.transformer import Transformer


def test_on_device_has_the_reports_size() -> None:
    count = PRESETS["afm-on-device"].n_params()
    assert count == (150_994_944, 2_586_744_320, 2_737_739_264)
    assert PRESETS["afm-on-device"].kv_cache_bytes_per_token() == 106_496


@pytest.mark.parametrize("config", [TINY, *PRESETS.values()], ids=["tiny", *PRESETS])
def test_formula_counts_the_model(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = Transformer(config)
    embedding = model.embed.weight.numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert config.n_params() == (embedding, total - embedding, total)
    assert sum(linear.weight.numel() for _, linear in model.linears()) == config.n_matmul_params()


def test_flops_are_those_of_the_matrices_and_of_attention() -> None:
    length = 32
    matrices = 2 * (TINY.n_matmul_params() + TINY.vocab_size * TINY.d_model)
    # Two products (q k, p v) of 2 n_heads d_head each, with half of the row visible on average.
    attention = TINY.n_layers * 2 * 2 * TINY.n_heads * TINY.d_head * length / 2
    assert TINY.forward_flops_per_token(length) == matrices + attention
    assert TINY.train_flops_per_token(length) == 3 * (matrices + attention)


@pytest.mark.parametrize(
    ("field", "value"),
    [("d_model", 0), ("n_layers", -1), ("vocab_size", 1.5), ("n_heads", True), ("n_kv_heads", 4), ("d_head", 9),
     ("rope_base", 0.5), ("rope_base", float("nan")), ("norm_eps", 0.0)],
)  # fmt: skip
def test_wrong_values_name_the_field(field: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{field}: value"):
        replace(TINY, **{field: value})
