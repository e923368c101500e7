"""Rollouts: what they must equal (generate, full forward passes), refill, shared prompts, log-probabilities, errors."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pippin.device.engine import Adapter, Engine, Model
from pippin.errors import UserError
from pippin.generate import generate_many
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.rollout import Rollout, rollouts, score
from tests.device.models import SMALL, add_adapter, tokens, twin, write

CONFIG = ModelConfig(
    vocab_size=64, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48, max_seq_len=120
)  # fmt: skip
RAGGED = [[5, 9, 30], [7], [8, *range(10, 40)], [9, 10], [11, 12, 13], [3], [20] * 17, [60, 61]]
EQUAL = [[n, 9, 30, 31] for n in range(8)]
# A sixth of the vocabulary stops: answers end at very different times.
SETTINGS: dict[str, Any] = {"max_tokens": 24, "stop_ids": range(0, 64, 6), "seed": 4}


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG, torch.float32).requires_grad_(False)
    model.embed.weight.mul_(0.1)  # else the last token's own row of the tied table wins, and every text repeats it
    model.norm.weight.mul_(16)
    return model


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("packed"))


def pairs(found: list[Rollout]) -> list[tuple[list[int], list[int]]]:
    return [(rollout.prompt, rollout.tokens) for rollout in found]


class Passes:
    """Forward passes of a model while it is open: the shape of the tokens of each."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.shapes = model, list[tuple[int, ...]]()

    def __enter__(self) -> list[tuple[int, ...]]:
        self.hook = self.model.register_forward_pre_hook(lambda _, inputs: self.shapes.append(tuple(inputs[0].shape)))
        return self.shapes

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


@pytest.mark.parametrize("prompts", [RAGGED, EQUAL], ids=["ragged", "equal"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_batch_size_changes_no_token(model: Transformer, prompts: list[list[int]], temperature: float) -> None:
    together = rollouts(model, prompts, n_per_prompt=2, temperature=temperature, batch_size=100, **SETTINGS)
    assert [r.prompt for r in together] == [prompt for prompt in prompts for _ in range(2)]
    for batch_size in (1, 5):
        found = rollouts(model, prompts, n_per_prompt=2, temperature=temperature, batch_size=batch_size, **SETTINGS)
        assert [(r.tokens, r.stopped) for r in found] == [(r.tokens, r.stopped) for r in together]
        for one, other in zip(found, together, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
    lengths = Counter(len(r.tokens) for r in together)
    assert len(lengths) > 5 or temperature == 0
    samples = {tuple(r.tokens) for r in together[4:6]}
    assert len(samples) == (1 if temperature == 0 else 2)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (0.7, 0.6)])
def test_one_sample_a_prompt_is_what_generate_draws(model: Transformer, temperature: float, top_p: float) -> None:
    settings = {**SETTINGS, "temperature": temperature, "top_p": top_p}
    found = rollouts(model, RAGGED, batch_size=3, **settings)
    plain = generate_many(model, None, RAGGED, batch_size=3, **settings)
    assert [r.tokens[:-1] if r.stopped else r.tokens for r in found] == plain
    for r in found:
        assert r.stopped == (r.tokens[-1] in SETTINGS["stop_ids"])
        assert r.stopped or len(r.tokens) == 24
        assert not set(r.tokens[:-1]) & set(SETTINGS["stop_ids"])


def test_greedy_tokens_are_those_of_full_forward_passes(model: Transformer) -> None:
    for r in rollouts(model, RAGGED[:4], max_tokens=30, stop_ids=(), temperature=0, batch_size=2):
        logits = model(torch.tensor([r.prompt + r.tokens]))
        assert isinstance(logits, Tensor)
        assert r.tokens == logits[0, len(r.prompt) - 1 : -1].argmax(-1).tolist()


def test_many_refills_in_a_long_run_are_exact(model: Transformer) -> None:
    """The cache is moved to its front, grown for a long prompt and narrowed at the end, several times over."""
    prompts = [tokens(CONFIG, (1, 4, 55, 2, 23)[n % 5], n) for n in range(15)]
    settings = {**SETTINGS, "max_tokens": 40, "stop_ids": range(0, 64, 12), "temperature": 1.0}
    with Passes(model) as shapes:
        found = rollouts(model, prompts, batch_size=4, **settings)
    assert {rows for rows, length in shapes if length == 1} >= {4, 2, 1}
    alone = rollouts(model, prompts, batch_size=1, **settings)
    assert pairs(found) == pairs(alone)
    for one, scored in zip(found, score(model, pairs(found)), strict=True):
        assert one.log_probs == pytest.approx(scored, abs=1e-5)


@pytest.mark.parametrize("prompts", [RAGGED, EQUAL], ids=["ragged", "equal"])
@pytest.mark.parametrize(("temperature", "top_p"), [(0.5, 0.9), (2.0, 1.0), (0.0, 1.0)])
def test_recorded_log_probs_are_the_scored_ones(
    model: Transformer, prompts: list[list[int]], temperature: float, top_p: float
) -> None:
    """Property 9, and the full forward pass beside a right-padded and a left-padded one."""
    found = rollouts(
        model, prompts, batch_size=5, temperature=temperature, top_p=top_p, **SETTINGS
    )  # fmt: skip
    right = score(model, pairs(found), temperature=temperature, batch_size=7)
    alone = score(model, pairs(found), temperature=temperature, batch_size=1)
    for r, padded, whole in zip(found, right, alone, strict=True):
        logits = model(torch.tensor([r.prompt + r.tokens]))
        assert isinstance(logits, Tensor)
        full = (logits[0, len(r.prompt) - 1 : -1].double() / (temperature or 1)).log_softmax(-1)
        full = full.gather(-1, torch.tensor(r.tokens)[:, None])[:, 0]
        left_TV = left_padded(model, r.prompt + r.tokens, 11)[len(r.prompt) - 1 : -1].double()
        left = (left_TV / (temperature or 1)).log_softmax(-1).gather(-1, torch.tensor(r.tokens)[:, None])[:, 0]
        for values in (r.log_probs, padded, whole, left.tolist()):
            assert values == pytest.approx(full.tolist(), abs=1e-5)


def left_padded(model: Transformer, ids: list[int], padding: int) -> Tensor:
    """Logits [T, V] of a sequence with so many places of padding before it."""
    positions = torch.tensor([[0] * padding + list(range(len(ids)))])
    segments = torch.tensor([[0] * padding + [1] * len(ids)])
    logits = model(torch.tensor([[63] * padding + ids]), positions_BT=positions, segment_ids_BT=segments)
    assert isinstance(logits, Tensor)
    return logits[0, padding:]


def test_a_prompt_is_read_once_for_all_its_samples(model: Transformer) -> None:
    prompts = [tokens(CONFIG, 20, 1), tokens(CONFIG, 20, 2)]
    with Passes(model) as shapes:
        shared = rollouts(model, prompts, n_per_prompt=8, batch_size=3, temperature=1.0, **SETTINGS)
    assert [shape for shape in shapes if shape[1] > 1] == [(1, 19), (1, 19)]
    repeated = rollouts(model, [p for p in prompts for _ in range(8)], batch_size=3, temperature=1.0, **SETTINGS)
    assert pairs(shared) == pairs(repeated)
    for one, other in zip(shared, repeated, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_a_free_row_is_taken_by_the_next() -> None:
    """Sixteen answers on four rows: as many passes as the work needs, not four times the longest of a batch."""
    torch.manual_seed(0)
    model = Transformer(CONFIG, torch.float32).requires_grad_(False)
    prompts = [[7, n] for n in range(16)]
    with Passes(model) as shapes:
        found = rollouts(model, prompts, batch_size=4, temperature=1.0, **SETTINGS)
    drawn = [len(r.tokens) for r in found]
    steps = sum(length == 1 for _, length in shapes) - sum(rows != 4 for rows, length in shapes if length == 1)
    waves = sum(max(drawn[n : n + 4]) for n in range(0, 16, 4))
    assert steps <= sum(drawn) / 4 + max(drawn) < waves + max(drawn)
    assert sum(rows for rows, length in shapes if length == 1) < 4 * waves


def test_log_probs_are_the_known_ones() -> None:
    """A model without layers whose head says p(token) whatever came before."""
    model = Transformer(CONFIG, torch.float32).requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    for r in rollouts(model, [[1, 2]], n_per_prompt=5, max_tokens=4, stop_ids=(), temperature=0.3, top_p=0.5):
        assert r.log_probs == pytest.approx([-math.log(64)] * 4, abs=1e-12)


def test_the_context_may_be_filled(model: Transformer) -> None:
    found = rollouts(model, [[5] * 100], max_tokens=20, stop_ids=(), temperature=1.0)
    assert score(model, pairs(found))[0] == pytest.approx(found[0].log_probs, abs=1e-5)
    with pytest.raises(UserError, match=r"sequence 1: its 121 tokens exceed .* 120"):
        score(model, [([5], [6]), ([5] * 100, [6] * 21)])


def test_nothing_to_do(model: Transformer) -> None:
    assert rollouts(model, [], **SETTINGS) == []
    assert score(model, []) == []
    assert score(model, [([5, 6], []), ([7], [8])])[0] == []


def test_each_prompt_has_its_adapter() -> None:
    """Members of a committee that share a base: each row as if it were alone, also after it was refilled."""
    torch.manual_seed(0)
    model = Transformer(CONFIG, torch.float32).requires_grad_(False)
    for _, linear in model.linears():
        linear.add_adapters(2, 3)
        linear.requires_grad_(False).lora_B.normal_(std=0.5)
    slots = [(-1, 0, 1)[n % 3] for n in range(len(RAGGED))]
    settings = {**SETTINGS, "n_per_prompt": 2, "temperature": 1.0}
    found = rollouts(model, RAGGED, batch_size=5, slots=slots, **settings)
    of_each = {slot: rollouts(model, RAGGED, slots=[slot] * len(RAGGED), **settings) for slot in (-1, 0, 1)}
    expected = [of_each[slots[number // 2]][number] for number in range(len(found))]
    assert pairs(found) == pairs(expected)
    assert len({str(pairs(each)) for each in of_each.values()}) == 3
    assert pairs(of_each[-1]) == pairs(rollouts(model, RAGGED, **settings))
    scored = score(model, pairs(found), slots=[slot for slot in slots for _ in range(2)], batch_size=4)
    for r, values in zip(found, scored, strict=True):
        assert r.log_probs == pytest.approx(values, abs=1e-5)
    with pytest.raises(UserError, match="slots: 2: the model has 2 adapter slots"):
        rollouts(model, RAGGED, slots=[2] * len(RAGGED), **settings)
    with pytest.raises(UserError, match="slots: 1 of them for 8 prompts"):
        rollouts(model, RAGGED, slots=[0], **settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_per_prompt": 0}, "n_per_prompt: 0: must be at least 1"),
        ({"batch_size": 0}, "batch_size: 0: must be at least 1"),
        ({"temperature": -1.0}, "temperature: -1.0: must be 0 .greedy. or positive"),
        ({"top_p": 0.0}, "top_p: 0.0: must be above 0"),
        ({"max_tokens": 0}, "max_tokens: 0: must be at least 1"),
    ],
)
def test_a_setting_out_of_range_is_one_line(model: Transformer, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rollouts(model, RAGGED, **{**SETTINGS, **changed})


@pytest.mark.parametrize(
    ("pair", "temperature", "message"),
    [
        (([], [5]), 1.0, "sequence 0: its prompt is empty"),
        (([5], [64]), 1.0, "sequence 0: has token ids outside 0..63"),
        (([5], [6]), -1.0, "temperature: -1.0"),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    model: Transformer, pair: tuple[list[int], list[int]], temperature: float, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        score(model, [pair], temperature=temperature)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.6])
def test_the_engine_samples_and_records_too(packed: Path, temperature: float) -> None:
    engine = Engine(Model(packed), mode="exact", max_sequences=3, threads=1)
    prompts = [tokens(SMALL, n, seed=n) for n in (3, 17, 1)]
    settings: dict[str, Any] = {"max_tokens": 20, "stop_ids": range(0, 90, 9), "seed": 2, "temperature": temperature}
    found = rollouts(engine, prompts, n_per_prompt=3, **settings)
    assert found == rollouts(engine, prompts, n_per_prompt=3, **settings)
    torch_model = twin(packed)
    for r, scored in zip(found, score(torch_model, pairs(found), temperature=temperature), strict=True):
        assert r.log_probs == pytest.approx(scored, abs=2e-4)  # the engine's kernels round in another order
        assert r.stopped == (r.tokens[-1] % 9 == 0)
    if temperature == 0:
        assert pairs(found) == pairs(rollouts(torch_model, prompts, n_per_prompt=3, **settings))
    else:
        assert len({tuple(r.tokens) for r in found}) > 3


def test_the_engine_has_adapters_too(packed: Path, tmp_path: Path) -> None:
    engine = Engine(Model(packed), mode="exact", max_sequences=3, threads=1)
    prompts, slots = [tokens(SMALL, n, seed=n) for n in (3, 17, 5)], [0, -1, 0]
    twins = {-1: twin(packed), 0: twin(packed)}
    engine.add_adapter(Adapter(engine.model, add_adapter(packed, tmp_path / "adapter", 4, 1, twins[0])))
    found = rollouts(engine, prompts, max_tokens=12, stop_ids=(), temperature=0.7, slots=slots)
    for r, slot in zip(found, slots, strict=True):
        at = None if slot < 0 else [slot]
        assert score(twins[slot], pairs([r]), temperature=0.7, slots=at)[0] == pytest.approx(r.log_probs, abs=1e-3)
    without = score(twins[-1], pairs(found[:1]), temperature=0.7)[0]
    assert without != pytest.approx(found[0].log_probs, abs=0.1)
