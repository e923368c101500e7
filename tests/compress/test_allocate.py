"""Bit plans: within the budget, of the least expected loss, the same every time."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pippin.compress import allocate
from pippin.compress.allocate import Rises, choose_bits, error_rises, kl_rises
from pippin.compress.palettize import candidates, install
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


def loss(plan: dict[str, int], rises: Rises) -> float:
    return sum(rises[name][bits] for name, bits in plan.items())


def example(seed: int, n: int, n_shapes: int) -> tuple[dict[str, tuple[int, int]], Rises]:
    generator = torch.Generator().manual_seed(seed)
    kinds = (torch.randint(1, 9, (n_shapes, 2), generator=generator) * 24).tolist()
    shapes = {f"p{i}": tuple(kinds[i % n_shapes]) for i in range(n)}
    drawn = torch.rand(n, 2, generator=generator).tolist()
    return shapes, {name: {2: high, 4: 0.3 * low} for name, (high, low) in zip(shapes, drawn, strict=True)}


@given(seed=st.integers(0, 9999), share=st.floats(0, 1), n_shapes=st.integers(1, 7))
@settings(max_examples=100)
def test_the_plan_is_the_best_of_all_that_fit(seed: int, share: float, n_shapes: int) -> None:
    shapes, rises = example(seed, 7, n_shapes)
    low, high = (bpw(dict.fromkeys(shapes, bits), shapes) for bits in (2, 4))
    target = low + share * (high - low) + 1e-9
    plan = choose_bits(rises, shapes, target)
    assert list(plan) == list(shapes)
    assert bpw(plan, shapes) <= target
    every = (dict(zip(shapes, bits, strict=True)) for bits in product((2, 4), repeat=len(shapes)))
    best = min(loss(other, rises) for other in every if bpw(other, shapes) <= target)
    assert loss(plan, rises) == pytest.approx(best, rel=1e-12)
    assert plan == choose_bits(rises, shapes, target)


def test_many_matrices_of_many_shapes_stay_near_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, rises = example(1, 40, 40)
    low, high = (bpw(dict.fromkeys(shapes, bits), shapes) for bits in (2, 4))
    target = (low + high) / 2
    exact = choose_bits(rises, shapes, target)
    monkeypatch.setattr(allocate, "MAX_PARTIAL_PLANS", 2_000)
    thinned = choose_bits(rises, shapes, target)
    assert bpw(thinned, shapes) <= target
    assert loss(exact, rises) <= loss(thinned, rises) <= loss(exact, rises) * 1.01


def test_a_rise_that_noise_made_negative_is_no_reason_to_fail() -> None:
    shapes = {"a": (64, 64), "b": (64, 64)}
    assert choose_bits({"a": {2: 0.1, 4: 0.2}, "b": {2: 0.3, 4: 0.1}}, shapes, 9.0) == {"a": 2, "b": 4}


def test_a_target_below_two_bits_is_one_line() -> None:
    with pytest.raises(UserError, match=r"bits_per_weight: value 1\.9"):
        choose_bits({"a": {2: 1.0, 4: 0.0}}, {"a": (64, 64)}, 1.9)


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    made = Transformer(CONFIG, torch.float32).requires_grad_(False)
    made.blocks[0].ffn.up.weight.sign_()  # two values: 2 bits lose nothing
    return made


def text(seed: int = 3) -> list[SimpleNamespace]:
    tokens = torch.randint(40, (8, 30), generator=torch.Generator().manual_seed(seed))
    positions = torch.arange(30).expand_as(tokens)
    return [SimpleNamespace(tokens=tokens, segment_ids=torch.ones_like(tokens), positions=positions, targets=tokens)]


def test_measured_rises_rank_what_2_bits_really_cost(model: Transformer) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = candidates(model, text())
    rises = kl_rises(model, found, text())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.compute_dtype == torch.float32
    free = "blocks.0.ffn.up"
    assert rises[free][2] == min(options[2] for options in rises.values()) < 1e-4
    assert all(options[2] > options[4] for name, options in rises.items() if name != free)
    # By hand for one of them: KL(float || changed), mean over tokens.
    name, batch = "blocks.1.ffn.down", text()[0]
    whole = model(batch.tokens).log_softmax(-1)
    linear = model.get_submodule(name)
    weight = linear.weight.data
    linear.weight.data = found[name][2].dense(*weight.shape)
    changed = model(batch.tokens).log_softmax(-1)
    linear.weight.data = weight
    expected = (whole.exp() * (whole - changed)).sum(-1).mean()
    assert rises[name][2] == pytest.approx(float(expected), rel=1e-3)
    # The proxy agrees on what is free.
    proxy = error_rises(found)
    assert min(proxy, key=lambda name: proxy[name][2]) == free


def test_the_plan_is_what_the_model_then_has(model: Transformer) -> None:
    found = candidates(model, text())
    shapes = {name: (linear.out_features, linear.in_features) for name, linear in model.linears()}
    plan = choose_bits(error_rises(found), shapes, 3.7)
    assert set(plan.values()) == {2, 4}
    packed = Transformer(CONFIG)
    install(packed, {name: found[name][bits] for name, bits in plan.items()})
    assert model_size(packed) == model_size(model, plan)
    assert 3.5 < model_size(packed).bits_per_weight <= 3.7
