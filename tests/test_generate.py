"""Generation: what it must equal (the plain forward pass, one by one), its random numbers, its ends and its errors."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pippin.errors import UserError
from pippin.generate import chat_reply, generate, generate_many, stream, stream_reply
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

CONFIG = ModelConfig(
    vocab_size=64, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48, max_seq_len=40
)  # fmt: skip
PROMPTS = [[5, 9, 30], [7], [8, 50, 51, 52, 53, 54, 55, 56], [9, 10], [11, 12, 13]]


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(CONFIG, torch.float32)


def greedy_by_full_forward(model: Transformer, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        logits = model(torch.tensor([ids]))
        assert isinstance(logits, Tensor)
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


class Uniform(nn.Module):
    """A model whose next token is any of 0..3 with the given probabilities, whatever came before."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=64, max_seq_len=4096, n_layers=1, n_kv_heads=1, d_head=1)
        self.compute_dtype = torch.float32
        self.logits = nn.Parameter(torch.tensor(probabilities).log())

    def forward(self, tokens_BT: Tensor, **_: Any) -> Tensor:
        return self.logits.expand(len(tokens_BT), 1, -1)


class Letters:
    """Ids 8 + byte; <end> 7, <assistant> 5, <user> 4, <eos> 1."""

    end_id = 7
    special = {"<eos>": 1, "<|user|>": 4, "<|assistant|>": 5, "<|end|>": 7}  # noqa: RUF012

    def encode(self, text: str) -> list[int]:
        return [8 + byte for byte in text.encode()]

    def role_id(self, role: str) -> int:
        return self.special[f"<|{role}|>"]

    def decode(self, ids: list[int]) -> str:
        return bytes(token - 8 for token in ids).decode(errors="replace")


class Says(nn.Module):
    """A model that goes on with the given tokens, one a call."""

    def __init__(self, tokens: list[int], max_seq_len: int = 64) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=300, max_seq_len=max_seq_len, n_layers=1, n_kv_heads=1, d_head=1)
        self.compute_dtype = torch.float32
        self.unused = nn.Parameter(torch.zeros(1))
        self.tokens = iter(tokens)
        self.calls: list[list[list[int]]] = []

    def forward(self, tokens_BT: Tensor, **_: Any) -> Tensor:
        self.calls.append(tokens_BT.tolist())
        return nn.functional.one_hot(torch.tensor([[next(self.tokens)]]), 300).float()


def test_greedy_is_the_argmax_of_the_full_forward_pass(model: Transformer) -> None:
    for prompt in PROMPTS[:3]:
        assert generate(model, None, [prompt], max_tokens=12, stop_ids=()) == [
            greedy_by_full_forward(model, prompt, 12)
        ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_ragged_batch_equals_one_by_one(model: Transformer, temperature: float) -> None:
    settings: dict[str, Any] = {"max_tokens": 12, "stop_ids": [3, 17], "temperature": temperature, "seed": 4}
    together = generate(model, None, PROMPTS, **settings)
    for batch_size in (1, 2, 3):
        assert generate_many(model, None, PROMPTS, batch_size=batch_size, **settings) == together
    assert len({tuple(out) for out in together}) > 1
    # Only prompt 2 changes, so only its answer may.
    other = generate(model, None, [*PROMPTS[:2], [40] * 15, *PROMPTS[3:]], **settings)
    assert [a == b for a, b in zip(together, other, strict=True)] == [True, True, False, True, True]
    if temperature == 0:
        for prompt, out in zip(PROMPTS, together, strict=True):
            assert out == generate(model, None, [prompt], **settings)[0]


def test_a_row_stops_at_its_stop_token_and_the_others_go_on(model: Transformer) -> None:
    free = generate(model, None, PROMPTS, max_tokens=12, stop_ids=())
    assert [len(out) for out in free] == [12] * 5
    stop = free[0][5]
    expected = [list(itertools.takewhile(lambda token: token != stop, out)) for out in free]
    assert generate(model, None, PROMPTS, max_tokens=12, stop_ids=[stop]) == expected
    assert len(expected[0]) <= 5
    assert list(stream(model, None, PROMPTS[0], max_tokens=12, stop_ids=[stop])) == expected[0]


def test_no_forward_pass_after_the_last_stop() -> None:
    says = Says([20, 21, 3, 22])
    assert generate(says, None, [[9, 9]], max_tokens=10, stop_ids=[3]) == [[20, 21]]  # type: ignore[arg-type]
    assert says.calls == [[[9, 9]], [[20]], [[21]]]


def test_max_tokens_fill_the_context_to_the_last_place(model: Transformer) -> None:
    prompt = [5] * 20
    assert generate(model, None, [prompt], max_tokens=20, stop_ids=())[0] == greedy_by_full_forward(model, prompt, 20)
    with pytest.raises(UserError, match=r"prompt 1: its 20 tokens and max_tokens 21 exceed .* max_seq_len 40"):
        generate(model, None, [[5], prompt], max_tokens=21, stop_ids=())


def test_adapter_slots_are_chosen_per_prompt() -> None:
    torch.manual_seed(1)
    adapted = Transformer(CONFIG, torch.float32)
    for _, linear in adapted.linears():
        linear.add_adapters(2, 2)
        out_features, in_features = linear.out_features, linear.in_features
        linear.load_adapter(1, torch.randn(2, in_features), torch.randn(out_features, 2), 0.5)
    slots = [1, -1, 0, 1, -1]
    settings: dict[str, Any] = {"max_tokens": 8, "stop_ids": ()}
    mixed = generate_many(adapted, None, PROMPTS, batch_size=3, slots_B=slots, **settings)
    bare = generate(adapted, None, PROMPTS, **settings)
    adapter = generate(adapted, None, PROMPTS, slots_B=[1] * 5, **settings)
    assert mixed == [adapter[0], bare[1], bare[2], adapter[3], bare[4]]  # slot 0 is still zero
    assert bare != adapter
    assert list(stream(adapted, None, PROMPTS[0], slot=1, **settings)) == adapter[0]
    with pytest.raises(ValueError, match="1 adapter slots for 5 prompts"):
        generate(adapted, None, PROMPTS, slots_B=[1], **settings)


# sampling


def draws(probabilities: list[float], **settings: Any) -> Counter[int]:
    model: Any = Uniform(probabilities)
    usual: dict[str, Any] = {"temperature": 1.0, "stop_ids": (), "max_tokens": 50}
    return Counter(itertools.chain(*generate(model, None, [[9]] * 200, **(usual | settings))))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.1, 0.2, 0.3, 0.4]),
        ({"temperature": 0.5}, [1 / 30, 4 / 30, 9 / 30, 16 / 30]),
        ({"temperature": 1e6}, [0.25, 0.25, 0.25, 0.25]),
        ({"top_k": 2}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_k": 4}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_k": 99}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_p": 0.39}, [0, 0, 0, 1]),
        ({"top_p": 0.41}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.89}, [0, 2 / 9, 3 / 9, 4 / 9]),
        ({"top_p": 0.99}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_k": 2, "top_p": 0.56}, [0, 0, 0, 1]),  # after top_k the best one holds 4/7 = 0.571
        ({"temperature": 0}, [0, 0, 0, 1]),
    ],
)
def test_drawn_shares(settings: dict[str, Any], expected: list[float]) -> None:
    counts = draws([0.1, 0.2, 0.3, 0.4], **settings)
    assert set(counts) == {token for token, share in enumerate(expected) if share}
    for token, share in enumerate(expected):
        assert abs(counts[token] / 10_000 - share) < 0.02  # four standard deviations


def test_draws_differ_between_rows_steps_and_seeds_and_repeat() -> None:
    model: Any = Uniform([0.25] * 4)
    settings: dict[str, Any] = {"max_tokens": 30, "stop_ids": (), "temperature": 1.0}
    first, second = generate(model, None, [[9], [9]], **settings)
    assert first != second
    assert len(set(first)) == 4
    assert generate(model, None, [[9], [9]], **settings) == [first, second]
    assert generate(model, None, [[9], [9]], **settings, seed=1) != [first, second]
    assert list(stream(model, None, [9], **settings)) == first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature: -1"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"top_k": -1}, "top_k: -1"),
        ({"top_p": 0}, "top_p: 0"),
        ({"top_p": 1.1}, "top_p: 1.1"),
        ({"max_tokens": 0}, "max_tokens: 0"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"prompts": [[5], []]}, "prompt 1: is empty"),
        ({"prompts": [[64]]}, r"prompt 0: has token ids outside 0\.\.63"),
    ],
)
def test_mistakes_are_named(model: Transformer, settings: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"prompts": [[5]], "max_tokens": 3, "stop_ids": (), "batch_size": 1}
    with pytest.raises(UserError, match=message):
        generate_many(model, None, **(usual | settings))


def test_small_calls(model: Transformer) -> None:
    assert generate(model, None, [], max_tokens=3, stop_ids=()) == []
    done: list[int] = []
    generate_many(model, None, PROMPTS, batch_size=2, max_tokens=1, stop_ids=(), progress=done.append)
    assert done == [2, 2, 1]
    with pytest.raises(ValueError, match="give stop_ids or a tokenizer"):
        generate(model, None, [[5]], max_tokens=3)


# chat


def test_a_reply_ends_at_any_special_token_and_gives_whole_characters() -> None:
    letters = Letters()
    text = "Grüße, 世界 \N{GRINNING FACE}!"
    for special in letters.special.values():
        says: Any = Says([*letters.encode(text), special, 9, 9])
        pieces = list(stream_reply(says, letters, [{"role": "user", "content": "hi"}], max_tokens=50))
        assert "".join(pieces) == text
        assert all(len(piece) <= 1 for piece in pieces)  # a token that ends inside a character adds nothing yet
        assert says.calls[0] == [[4, *letters.encode("hi"), 7, 5]]


def test_a_reply_cut_inside_a_character_still_comes_out() -> None:
    letters = Letters()
    says: Any = Says([*letters.encode("aé")[:2], 7])
    assert chat_reply(says, letters, [{"role": "user", "content": "hi"}], max_tokens=50) == "a\N{REPLACEMENT CHARACTER}"


def test_a_reply_gets_the_room_that_is_left() -> None:
    letters = Letters()
    says: Any = Says(letters.encode("abcdefgh"), max_seq_len=9)
    assert chat_reply(says, letters, [{"role": "user", "content": "hi"}], max_tokens=50) == "abcd"
    with pytest.raises(UserError, match=r"the conversation has 9 tokens, .* max_seq_len is 9: no room for a reply"):
        stream_reply(says, letters, [{"role": "user", "content": "hello!"}], max_tokens=50)
