"""Fine-tuning on conversations: what counts in the loss, and that packing and accumulation change nothing of it.

Properties 13, 14 and 15 of the plan, over the whole path: conversations, tokens on disk, packed rows, model, loss.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pippin.data.chat import render
from pippin.data.loader import IGNORE, Batch, Loader
from pippin.data.packing import TokenWriter
from pippin.data.records import Message
from pippin.data.tokenizer import Tokenizer, train_tokenizer
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Loss
from pippin.model.transformer import Transformer
from pippin.stages.training import next_token_loss
from pippin.training.dropout import Dropping
from pippin.training.loop import _backward

WORDS = ("red", "green", "blue", "north", "south", "stone", "river", "cloud")
ROWS, LENGTH = 8, 96


def conversation(number: int) -> list[Message]:
    """Of one or two turns, of very unequal lengths."""
    words = [WORDS[number * k % 8] for k in range(1, 2 + number % 5)]
    first: list[Message] = [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": f"Say {' '.join(words)}"},
        {"role": "assistant", "content": " ".join(reversed(words)) * (1 + number % 3)},
    ]
    more: list[Message] = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": words[0]}]
    return first + more * (number % 2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    text = " ".join((*WORDS, "Say Answer And"))
    return train_tokenizer([text] * 50, tmp_path_factory.mktemp("tokenizer"), 320, True)


@pytest.fixture(scope="module")
def loader(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Loader:
    directory = tmp_path_factory.mktemp("tokens")
    with TokenWriter(directory, tokenizer.vocab_size, tokenizer.eos_id) as writer:
        for number in range(60):
            rendered = render(tokenizer, conversation(number))
            writer.add("chat", "train", rendered.ids, 1, rendered.loss_mask)
    return Loader(directory, {"chat": 1.0}, "train", LENGTH, ROWS, 0, "bins")


@pytest.fixture(scope="module")
def batch(loader: Loader) -> Batch:
    return loader.rows(0, 0, ROWS)


def new_model(tokenizer: Tokenizer) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, d_head=16, d_ff=48,
        max_seq_len=LENGTH,
    )  # fmt: skip
    return Transformer(config, torch.float32)


@pytest.fixture
def model(tokenizer: Tokenizer) -> Transformer:
    return new_model(tokenizer)


def part(batch: Batch, rows: slice, columns: slice = slice(None)) -> Batch:
    return Batch(*(t[rows, columns] for t in (batch.tokens, batch.targets, batch.positions, batch.segment_ids)))


def gradients(model: Transformer, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) <= 1e-5 * float(gradient.norm()) + 1e-9, name


# --- 13: the mask


def test_the_loss_is_the_hand_sum_over_what_the_assistant_says(tokenizer: Tokenizer, model: Transformer) -> None:
    """Each conversation alone, from its logits: the content of every assistant's message and the end of its turn."""
    for number in (0, 3, 9):
        messages = conversation(number)
        ids: list[int] = []
        places: list[int] = []
        for message in messages:
            content = tokenizer.encode(message["content"])
            if message["role"] == "assistant":
                places += range(len(ids) + 1, len(ids) + 1 + len(content) + 1)
            ids += [tokenizer.role_id(message["role"]), *content, tokenizer.end_id]
        assert tokenizer.end_id == ids[places[-1]]
        log_probs = model(torch.tensor([ids])).log_softmax(-1)[0]
        expected = -sum(log_probs[place - 1, ids[place]] for place in places)
        learnt = render(tokenizer, messages)
        masked = [t if m else IGNORE for t, m in zip(learnt.ids, learnt.loss_mask, strict=True)]
        length = len(ids) - 1
        row = Batch(
            torch.tensor([learnt.ids[:-1]]), torch.tensor([masked[1:]]), torch.arange(length)[None],
            torch.ones(1, length).long(),
        )  # fmt: skip
        loss = next_token_loss(model, 0.0, row, 0)
        assert int(loss.count) == len(places)
        torch.testing.assert_close(loss.nll, expected.detach(), rtol=1e-5, atol=1e-5)


def test_the_batches_count_the_same(tokenizer: Tokenizer, model: Transformer, batch: Batch) -> None:
    """The loader's rows, from the whole logits: every place after an `<|assistant|>` up to its `<|end|>`, no other."""
    logits = model(batch.tokens, positions_BT=batch.positions, segment_ids_BT=batch.segment_ids).log_softmax(-1)
    expected, counted = torch.zeros(()), 0
    for row in range(ROWS):
        said = False
        tokens, segments = batch.tokens[row].tolist(), batch.segment_ids[row].tolist()
        for place in range(LENGTH - 1):
            said = (said or tokens[place] == tokenizer.role_id("assistant")) and segments[place] > 0
            following = int(batch.targets[row, place]) if segments[place + 1] != segments[place] else tokens[place + 1]
            if said:
                expected = expected - logits[row, place, following]
                counted += 1
                assert following != IGNORE
            else:
                assert int(batch.targets[row, place]) == IGNORE
            said = said and following != tokenizer.end_id
    loss = next_token_loss(model, 0.0, batch, 0)
    assert int(loss.count) == counted > 50
    torch.testing.assert_close(loss.nll, expected.detach(), rtol=1e-5, atol=1e-4)


def test_what_the_user_says_is_no_target(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Other tokens of the user at a place that nothing reads as an input leave the loss as it is, to the last bit.

    The last message is the user's here, so its tokens could only be targets of each other; with them changed, all that
    the assistant said before has the same loss.
    """
    losses = []
    for last in ("red red red", "blue stone north"):
        messages: list[Message] = [*conversation(2), {"role": "user", "content": last}]
        rendered = render(tokenizer, messages)
        place = tmp_path / last.replace(" ", "")
        with TokenWriter(place, tokenizer.vocab_size, tokenizer.eos_id) as writer:
            writer.add("chat", "train", rendered.ids, 1, rendered.loss_mask)
        one = Loader(place, {"chat": 1.0}, "train", LENGTH, 1, 0, "bins").rows(0, 0, 1)
        losses.append(next_token_loss(new_model(tokenizer), 1e-3, one, 0))
    assert torch.equal(losses[0].total, losses[1].total)
    assert int(losses[0].count) == int(losses[1].count) > 0


def test_nothing_to_learn_raises(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no assistant message with content, so nothing to learn"):
        render(tokenizer, [{"role": "user", "content": "red"}, {"role": "assistant", "content": ""}])
    with TokenWriter(tmp_path, tokenizer.vocab_size, tokenizer.eos_id) as writer:
        writer.add("chat", "train", [5, 6, 7], 1, [0, 0, 0])
    with pytest.raises(UserError, match="target"):
        Loader(tmp_path, {"chat": 1.0}, "train", LENGTH, 1, 0, "bins")


# --- 14: packing


def alone(batch: Batch) -> list[Batch]:
    """Every document of the rows as a row of its own, at positions from 0, without segments' help."""
    found = []
    for row in range(ROWS):
        for segment in range(1, int(batch.segment_ids[row].max()) + 1):
            inside = (batch.segment_ids[row] == segment).nonzero()[:, 0]
            one = part(batch, slice(row, row + 1), slice(int(inside[0]), int(inside[-1]) + 1))
            length = one.tokens.shape[1]
            found.append(Batch(one.tokens, one.targets, torch.arange(length)[None], torch.ones(1, length).long()))
    return found


def test_packed_and_unpacked_are_the_same_loss_and_gradient(model: Transformer, batch: Batch) -> None:
    documents = alone(batch)
    assert len(documents) > 2 * ROWS
    packed = next_token_loss(model, 1e-3, batch, 0)
    parts = [next_token_loss(model, 1e-3, one, 0) for one in documents]
    assert int(packed.count) == sum(int(each.count) for each in parts)
    total = torch.stack([each.total for each in parts]).sum()
    torch.testing.assert_close(packed.total, total, rtol=1e-5, atol=1e-5)
    same(gradients(model, packed.total), gradients(model, total))


def test_positions_start_again_with_every_document(batch: Batch) -> None:
    for row in range(ROWS):
        for segment in range(1, int(batch.segment_ids[row].max()) + 1):
            positions = batch.positions[row][batch.segment_ids[row] == segment]
            assert positions.tolist() == list(range(len(positions)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_document_sees_another_to_the_last_bit(model: Transformer, batch: Batch, dtype: torch.dtype) -> None:
    model.compute_dtype = dtype
    where = {"positions_BT": batch.positions, "segment_ids_BT": batch.segment_ids}
    before = model(batch.tokens, **where)
    for changed in (1, 2):
        inside = batch.segment_ids == changed
        tokens = torch.where(inside, (batch.tokens + 7) % model.config.vocab_size, batch.tokens)
        after = model(tokens, **where)
        others = (batch.segment_ids != changed) & (batch.segment_ids > 0)
        assert torch.equal(after[others], before[others])
        assert not torch.equal(after[inside], before[inside])


# --- 15: accumulation


def accumulated(tokenizer: Tokenizer, batch: Batch, rows: int) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients and loss of the batch in micro-batches of so many rows, as the training loop computes them."""
    model = new_model(tokenizer)

    def loss(one: Batch, step: int) -> Loss:
        return next_token_loss(model, 1e-3, one, step)

    starts = range(0, ROWS, rows)
    parts = [part(batch, slice(start, start + rows)) for start in starts]
    count = int((batch.targets != IGNORE).sum())
    nll, _ = _backward(loss, parts, 0, count, torch.device("cpu"), list(starts), Dropping(model, 0.0, 0))
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, nll / count


def test_eight_times_one_row_is_one_time_eight(tokenizer: Tokenizer, batch: Batch) -> None:
    learnt = (batch.targets != IGNORE).sum(1)
    assert int(learnt.max()) > 1.3 * int(learnt.min())  # a mean of means would show
    whole, loss = accumulated(tokenizer, batch, ROWS)
    for rows in (1, 2):
        found, other = accumulated(tokenizer, batch, rows)
        torch.testing.assert_close(other, loss, rtol=1e-6, atol=0)
        same(found, whole)
    model = new_model(tokenizer)
    means = torch.stack([
        (each := next_token_loss(model, 1e-3, part(batch, slice(row, row + 1)), 0)).total / each.count
        for row in range(ROWS)
    ]).mean()  # fmt: skip
    wrong = gradients(model, means)
    assert any(float((wrong[name] - g).norm()) > 1e-2 * float(g.norm()) for name, g in whole.items())
