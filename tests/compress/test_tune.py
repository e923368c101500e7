"""Tuning starts from the model as it is, and what it ends with is what the packed format holds."""

from __future__ import annotations

import torch

from pippin.compress.palettize import palettize
from pippin.compress.tune import Tunable
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

TINY = ModelConfig(vocab_size=40, d_model=24, n_layers=1, n_heads=2, n_kv_heads=1, d_head=10, d_ff=36, max_seq_len=32)


def test_parameters_are_what_the_model_computes_with_until_they_are_rounded_into_it() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY, torch.float32)
    palettize(model, {name: 2 if "up" in name else 4 for name, _ in model.linears()})
    model.requires_grad_(False)
    tokens = torch.randint(40, (2, 9))
    before = model(tokens)
    tunable = Tunable(model)
    tunable.install()
    assert torch.equal(model(tokens), before)

    model(tokens).square().sum().backward()
    for name, parameter in tunable.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    with torch.no_grad():
        for growth in tunable.growths.values():
            growth += 0.3 * torch.rand_like(growth)
        for table in tunable.tables.values():
            table += 0.1 * torch.randn_like(table)  # no longer ascending, nor with a largest value of 1
    tunable.install()
    tuned, wanted = model(tokens).detach(), {name: linear.dense_weight() for name, linear in model.linears()}
    assert not torch.allclose(tuned, before, rtol=0.01)

    tunable.finish()
    for name, linear in model.linears():
        assert not linear.table.requires_grad, name
        assert not linear.scale.requires_grad, name
        assert torch.equal((linear.table * 127).round() / 127, linear.table), name
        assert (linear.table.diff(dim=1) >= 0).all(), name
        assert torch.equal(linear.scale.half().float(), linear.scale), name
        error = (linear.dense_weight() - wanted[name]).abs().max() / wanted[name].abs().max()
        assert error < 0.006, name  # half a step of 1 / 127, and float16
