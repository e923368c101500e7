"""Whole models: packed forward, plans that fit, and candidates that leave the model as it was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pippin.compress.matrix import palettize_weight
from pippin.compress.palettize import candidates, install, palettize
from pippin.errors import UserError
from pippin.model.codes import pack
from pippin.model.config import ModelConfig
from pippin.model.linear import Linear
from pippin.model.transformer import Transformer

TINY = ModelConfig(vocab_size=40, d_model=24, n_layers=2, n_heads=2, n_kv_heads=1, d_head=10, d_ff=36, max_seq_len=32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_forward_equals_the_dense_forward_of_the_same_values(bits: int) -> None:
    torch.manual_seed(0)
    packed = Linear(21, 37, mup_width=21, shard="column")
    weight = packed.weight.detach().clone()
    palette = palettize_weight(weight, bits)
    packed.pack(pack(palette.indices, bits), palette.table, palette.scale, bits)
    x = random(2, 3, 21)
    assert packed.bits == bits
    assert packed.weight is None
    assert torch.equal(packed(x), torch.nn.functional.linear(x, palette.dense()))


def test_whole_model() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY, torch.float32)
    tokens = torch.randint(40, (2, 9))
    before = model(tokens)
    done: list[int] = []
    palettize(model, {name: 4 for name, _ in model.linears()}, progress=done.append)
    assert sum(done) == TINY.n_matmul_params()
    assert all(linear.bits == 4 for _, linear in model.linears())
    assert model.embed.codes is not None
    after = model(tokens)
    assert 0 < (after - before).norm() < 0.35 * before.norm()
    with pytest.raises(UserError, match="already palettized"):
        palettize(model, {name: 4 for name, _ in model.linears()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan.pop("blocks.0.ffn.up"), "lacks blocks.0.ffn.up"),
        (lambda plan: plan.update(extra=4), "names extra"),
        (lambda plan: plan.update({"blocks.0.ffn.up": 3}), "value 3 for blocks.0.ffn.up"),
    ],
)
def test_a_plan_must_fit_the_model(change, message) -> None:
    model = Transformer(TINY)
    plan = {name: 4 for name, _ in model.linears()}
    change(plan)
    with pytest.raises(UserError, match=message):
        palettize(model, plan)


def text(rows: int = 4) -> list[SimpleNamespace]:
    tokens = torch.randint(40, (rows, 30), generator=torch.Generator().manual_seed(3))
    positions = torch.arange(30).expand_as(tokens)
    return [SimpleNamespace(tokens=tokens, segment_ids=torch.ones_like(tokens), positions=positions, targets=tokens)]


def test_calibration_text_makes_the_outputs_better() -> None:
    torch.manual_seed(0)
    whole = Transformer(TINY, torch.float32)
    state = whole.state_dict()
    plan = {name: 2 if "up" in name else 4 for name, _ in whole.linears()}
    tokens = torch.randint(40, (4, 30), generator=torch.Generator().manual_seed(4))  # not the calibration text
    errors = []
    for batches in (None, text(16)):
        model = Transformer(TINY, torch.float32)
        model.load_state_dict(state)
        palettize(model, plan, batches)
        assert {name: linear.bits for name, linear in model.linears()} == plan
        errors.append(float((model(tokens) - whole(tokens)).norm().detach()))
    assert errors[1] < 0.9 * errors[0]


def test_candidates_leave_the_model_as_it_is_and_can_be_mixed() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done: list[int] = []
    found = candidates(model, text(), progress=done.append)
    assert sum(done) == TINY.n_matmul_params()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(found) == [name for name, _ in model.linears()]
    assert all(options[4].error < options[2].error for options in found.values())
    plan = {name: 2 if "attention" in name else 4 for name in found}
    install(model, {name: found[name][bits] for name, bits in plan.items()})
    assert {name: linear.bits for name, linear in model.linears()} == plan
    for name, linear in model.linears():
        shape = linear.out_features, linear.in_features
        assert torch.equal(linear.dense_weight(), found[name][plan[name]].dense(*shape))
