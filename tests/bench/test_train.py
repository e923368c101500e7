"""The training bench's peer is the same network: same loss, same gradients."""

from __future__ import annotations

import pytest
import torch

from pippin.bench.plain import GPT
from pippin.bench.train_systems import OURS, OURS_ADAMW, PLAIN, SIZES, fresh, new_step, next_tokens
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Targets

CONFIG = ModelConfig(96, 48, 3, n_heads=4, n_kv_heads=2, d_head=16, d_ff=80, max_seq_len=40)


def test_the_plain_peer_computes_what_ours_does() -> None:
    ours = fresh(CONFIG)
    ours.compute_dtype = torch.float32
    for name, parameter in ours.named_parameters():
        if "norm" in name:  # they begin at 1, where a forgotten one would not be seen
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    plain = GPT(CONFIG)
    plain.load_state_dict(ours.state_dict())
    tokens_BT = torch.randint(0, CONFIG.vocab_size, (3, 40), generator=torch.Generator().manual_seed(1))
    loss = ours(tokens_BT, targets=Targets(next_tokens(tokens_BT)))
    (loss.total / loss.count).backward()
    peer = plain(tokens_BT, next_tokens(tokens_BT))
    peer.backward()
    assert peer.item() == pytest.approx((loss.total / loss.count).item(), rel=1e-6)
    expected = dict(ours.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("system", [OURS, OURS_ADAMW, PLAIN])
def test_a_system_learns_its_batch(system: str) -> None:
    tokens_BT = torch.randint(0, CONFIG.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    step = new_step(system, CONFIG, tokens_BT, "eager")
    losses = [step() for _ in range(4)]
    assert losses == sorted(losses, reverse=True)


def test_sizes_are_what_they_are_called() -> None:
    for name, config in SIZES.items():
        count = config.n_params().total
        assert count / {"M": 1e6, "B": 1e9}[name[-1]] == pytest.approx(float(name[:-1]), rel=0.35), (name, count)
