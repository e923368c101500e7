"""Counting without allocating, and validation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.model.reference import TINY

from pippin.errors import UserError
from pippin.model.config import PRESETS, ModelConfig, RopeScaling
from pippin.model.transformer import Transformer
from pippin.pipeline import canonical

# The settings of imported models, each at least once.
IMPORTED = {
    "qwen2": replace(TINY, qk_norm="none", qkv_bias=True),
    "llama": replace(TINY, qk_norm="none", tied=False, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16)),
    "olmo2": replace(TINY, qk_norm="width", post_norm=True, tied=False),
}


def test_on_device_has_the_reports_size() -> None:
    count = PRESETS["afm-on-device"].n_params()
    assert count == (150_994_944, 2_586_744_320, 2_737_739_264)
    assert PRESETS["afm-on-device"].kv_cache_bytes_per_token() == 106_496


@pytest.mark.parametrize("config", [TINY, *PRESETS.values(), *IMPORTED.values()], ids=["tiny", *PRESETS, *IMPORTED])
def test_formula_counts_the_model(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = Transformer(config)
    embedding = model.embed.weight.numel() + (0 if model.head is None else model.head.weight.numel())
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
     ("rope_base", 0.5), ("rope_base", float("nan")), ("norm_eps", 0.0), ("qk_norm", "heads"), ("tied", 1)],
)  # fmt: skip
def test_wrong_values_name_the_field(field: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{field}: value"):
        replace(TINY, **{field: value})


@pytest.mark.parametrize(
    ("values", "field"),
    [((0.0, 1.0, 4.0, 16), "factor"), ((8.0, 4.0, 4.0, 16), "low_freq_factor"), ((8.0, 1.0, 4.0, 0), "original_max")],
)
def test_wrong_scalings_name_the_field(values: tuple[float, float, float, int], field: str) -> None:
    with pytest.raises(UserError, match=f"rope_scaling.{field}"):
        RopeScaling(*values)


def test_rope_before_a_norm_that_is_not_there() -> None:
    with pytest.raises(UserError, match="rope_before_norm"):
        replace(TINY, rope_before_norm=True, qk_norm="none")


def test_settings_that_came_later_change_no_id_at_their_defaults() -> None:
    known = {
        "vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_ff", "max_seq_len", "rope_base",
        "norm_eps", "rope_before_norm",
    }  # fmt: skip
    assert canonical(TINY).keys() == known
    assert canonical(IMPORTED["llama"]).keys() == known | {"qk_norm", "tied", "rope_scaling"}
