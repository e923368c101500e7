"""Second moments are those of the inputs, whatever the batches, with the model whole or block by block."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pippin.compress.calibrate import SHARED_INPUT, _drawn_loss, second_moments, token_weights
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

TINY = ModelConfig(vocab_size=40, d_model=24, n_layers=2, n_heads=2, n_kv_heads=1, d_head=10, d_ff=36, max_seq_len=32)


def batch(tokens: Tensor, segment_ids: Tensor) -> SimpleNamespace:
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return SimpleNamespace(tokens=tokens, segment_ids=segment_ids, positions=positions)


@pytest.mark.parametrize("columns", [8, 512])  # several products for each H, and one
def test_second_moments_are_those_of_the_inputs(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pippin.compress.calibrate._COLUMNS", columns)
    torch.manual_seed(0)
    model = Transformer(TINY, torch.float32)
    seen: dict[str, Tensor] = {}
    for name, linear in model.linears():
        linear.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].detach()}))
    tokens = torch.randint(40, (2, 9))
    ones = torch.ones_like(tokens)
    model(tokens)  # the one forward pass, whole
    inputs = dict(seen)
    moments = dict(second_moments(model, [batch(tokens, ones)]))
    assert list(moments) == [0, 1]
    for number, found in moments.items():
        assert set(found) == set(SHARED_INPUT)
        for first, names in SHARED_INPUT.items():
            rows = inputs[f"blocks.{number}.{first}"].flatten(0, 1)
            assert torch.allclose(found[first], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)
            for name in names:  # they do read the same
                assert torch.equal(inputs[f"blocks.{number}.{name}"], inputs[f"blocks.{number}.{first}"])
    assert sorted(name for names in SHARED_INPUT.values() for name in names) == sorted(
        name.removeprefix("blocks.0.") for name, _ in model.linears() if name.startswith("blocks.0.")
    )


def test_batches_average_over_tokens_and_padding_does_not_count() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY, torch.float32)
    tokens = torch.randint(40, (2, 9))
    ones = torch.ones_like(tokens)
    padded = torch.cat([tokens, torch.zeros_like(tokens)], dim=1)
    segments = torch.cat([ones, torch.zeros_like(ones)], dim=1)
    whole = dict(second_moments(model, [batch(tokens, ones)]))
    parts = dict(second_moments(model, [batch(padded[i : i + 1], segments[i : i + 1]) for i in (0, 1)]))
    for number, found in whole.items():
        for name, moment in found.items():
            assert torch.allclose(parts[number][name], moment, rtol=1e-4, atol=1e-6), name
    assert not any(linear._forward_pre_hooks for _, linear in model.linears())
    with pytest.raises(UserError, match="no token"):
        next(second_moments(model, []))


def test_block_by_block_is_the_same_as_whole() -> None:
    torch.manual_seed(0)
    whole = Transformer(TINY, torch.float32)
    state = whole.state_dict()
    with torch.device("meta"):
        streamed = Transformer(TINY, torch.float32)
    load = {name: state[name] for name in ("embed.weight", "norm.weight")}
    streamed.load_state_dict(load, strict=False, assign=True)
    tokens = torch.randint(40, (2, 9))
    held: list[int] = []

    def load_block(number: int) -> None:
        if held:  # the last one is dropped, as a caller with little memory would
            streamed.blocks[held.pop()].to("meta")
        block = {k.removeprefix(f"blocks.{number}."): v for k, v in state.items() if k.startswith(f"blocks.{number}.")}
        streamed.blocks[number].load_state_dict(block, assign=True)
        held.append(number)

    batches = [batch(tokens, torch.ones_like(tokens))]
    for (_, ours), (_, theirs) in zip(
        second_moments(streamed, batches, load_block), second_moments(whole, batches), strict=True
    ):
        for name in SHARED_INPUT:
            assert torch.equal(ours[name], theirs[name])


def test_a_token_counts_as_much_as_the_loss_feels_it() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY, torch.float32)
    tokens = torch.randint(40, (2, 9))
    targets = tokens.clone()
    targets[:, 6:] = -100  # nobody asks what these lead to, and no later token looks at them
    one = batch(tokens, torch.ones_like(tokens))
    one.targets = targets
    weights = token_weights(model, [one])[0]
    assert set(weights) == {(number, first) for number in (0, 1) for first in SHARED_INPUT}
    for (_, first), weight in weights.items():
        assert not weight[:, 6:].any()
        assert (
            weight[:, :6] > 0
        ).all() or first == "attention.q"  # the first token sees only itself: q and k do nothing
        assert weight.max() <= 10
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    again = token_weights(model, [one])[0]
    assert all(torch.equal(again[key], weight) for key, weight in weights.items())

    # By hand, for the last matrix: the gradient of the loss in its output.
    seen: list[Tensor] = []
    handle = model.blocks[1].ffn.down.register_forward_hook(lambda *a: (a[2].retain_grad(), seen.append(a[2]))[1])
    _drawn_loss(model, one, torch.Generator().manual_seed(0)).backward()
    handle.remove()
    square = seen[0].grad.square().sum(2)
    assert torch.allclose(weights[1, "ffn.down"], square / square.mean(), rtol=1e-4)

    # And the moments are those of the weighted inputs.
    plain, weighed = (dict(second_moments(model, [one], weights=w))[1]["ffn.down"] for w in (None, [weights]))
    assert not torch.allclose(plain, weighed, rtol=0.05)
    ones = [{key: torch.ones_like(weight) for key, weight in weights.items()}]
    assert torch.allclose(dict(second_moments(model, [one], weights=ones))[1]["ffn.down"], plain)
