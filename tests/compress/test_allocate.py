"""Bit plans: within the budget, cheapest first, the same every time."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pippin.compress.allocate import choose_bits, error_rises, plan_bits
from pippin.compress.palettize import palettize
from pippin.compress.size import model_size, projection_bytes
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

CONFIG = ModelConfig(
    vocab_size=40, d_model=64, n_layers=3, n_heads=2, n_kv_heads=1, d_head=32, d_ff=160, max_seq_len=32
)


def bpw(plan: dict[str, int], shapes: dict[str, tuple[int, int]]) -> float:
    weights = sum(out * width for out, width in shapes.values())
    return 8 * sum(projection_bytes(*shapes[name], bits) for name, bits in plan.items()) / weights


@given(seed=st.integers(0, 999), share=st.floats(0, 1))
@settings(max_examples=50)
def test_within_the_budget_and_no_bit_left_over(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    widths = torch.randint(1, 9, (6, 2), generator=generator) * 24
    shapes = {f"p{i}": (int(out), int(width)) for i, (out, width) in enumerate(widths)}
    rises = {name: float(torch.rand((), generator=generator)) for name in shapes}
    low, high = (bpw(dict.fromkeys(shapes, bits), shapes) for bits in (2, 4))
    target = low + share * (high - low) + 1e-9
    plan = choose_bits(rises, shapes, target)
    assert list(plan) == list(shapes)
    assert set(plan.values()) <= {2, 4}
    assert bpw(plan, shapes) <= target
    for name in plan:  # no projection could have 4 bits too
        assert plan[name] == 4 or bpw(plan | {name: 4}, shapes) > target
    assert plan == choose_bits(rises, shapes, target)


def test_least_rise_per_weight_goes_first() -> None:
    shapes = {"a": (64, 64), "b": (64, 64), "c": (128, 64), "d": (64, 64)}
    rises = {"a": 0.3, "b": 0.2, "c": 0.25, "d": 0.9}  # per weight: c, then b
    at = {target: choose_bits(rises, shapes, target) for target in (9.0, 4.1, 3.3)}
    assert at[9.0] == dict.fromkeys(shapes, 4)
    assert at[4.1] == {"a": 4, "b": 4, "c": 2, "d": 4}
    assert at[3.3] == {"a": 4, "b": 2, "c": 2, "d": 4}
    with pytest.raises(UserError, match=r"target_bpw: value 1\.9"):
        choose_bits(rises, shapes, 1.9)


def test_plan_of_a_model_is_what_the_model_then_has() -> None:
    torch.manual_seed(0)
    model = Transformer(CONFIG, torch.float32)
    plan = plan_bits(model, 3.7)
    assert set(plan.values()) == {2, 4}
    planned = model_size(model, plan)
    assert 3.5 < planned.bits_per_weight <= 3.7
    palettize(model, json.loads(json.dumps(plan)))
    assert model_size(model) == planned


def test_rises_follow_weights_and_moments() -> None:
    torch.manual_seed(0)
    model = Transformer(CONFIG, torch.float32)
    easy, hard = model.blocks[0].ffn.up, model.blocks[1].ffn.up
    with torch.no_grad():
        easy.weight.sign_()  # two values: 2 bits lose nothing
        hard.weight[:, :32].sign_()
        hard.weight[:, 32:] *= 0.2
    rises = error_rises(model)
    assert rises["blocks.0.ffn.up"] == min(rises.values())
    assert rises["blocks.0.ffn.up"] == pytest.approx(0, abs=1e-5)
    moments = {name: torch.ones(linear.in_features) for name, linear in model.linears()}
    assert error_rises(model, moments)["blocks.1.ffn.up"] == pytest.approx(rises["blocks.1.ffn.up"], rel=0.15)
    moments["blocks.1.ffn.up"][:32] = 0  # only inputs count that the calibration saw
    assert error_rises(model, moments)["blocks.1.ffn.up"] > 2 * rises["blocks.1.ffn.up"]
