"""Pairs as batches: a function of seed and step, every pair once an epoch, chosen before rejected."""

from __future__ import annotations

import math

import pytest
import torch

from pippin.data.loader import IGNORE
from pippin.data.preferences import LEVELS, PROPERTIES, Preference
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.reward import RewardModel
from pippin.model.transformer import Transformer
from pippin.training.losses import SOFT_LABELS, margin_preference, soft_preference
from pippin.training.pairs import (
    _MARGINS,
    KINDS,
    EncodedPair,
    Kind,
    PairLoader,
    encode_pair,
    judge,
    pair_batch,
    pair_loss,
)

MISSING = [IGNORE] * 4


def encoded(n: int) -> EncodedPair:
    return EncodedPair(str(n), ([10 + n] * (n + 1), [10 + n, 9]), n % 5, ([2, 1, 0, IGNORE], MISSING), 1)


PAIRS = [encoded(n) for n in range(7)]


class Letters:
    """A tokenizer whose ids are the letters'."""

    end_id = 7

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def role_id(self, role: str) -> int:
        return {"user": 4, "assistant": 5}[role]


def test_an_epoch_has_every_pair_once_and_the_next_another_order() -> None:
    loader = PairLoader(PAIRS, 2, seed=3, collate=pair_batch)
    order = [loader.rows(step, 0, 2).tokens[0, 0].item() - 10 for step in range(14)]
    assert sorted(order[:7]) == sorted(order[7:]) == list(range(7))
    assert order[:7] != order[7:]
    wide = PairLoader(PAIRS, 6, seed=3, collate=pair_batch)
    assert [int(t) - 10 for step in range(2) for t in wide.rows(step, 0, 6).tokens[::2, 0]] == order[:6]
    part = wide.rows(1, 2, 6)
    assert [int(t) - 10 for t in part.tokens[::2, 0]] == order[4:6]
    assert f"pairs {order[3]}, {order[4]}, {order[5]}" in wide.identify(1)
    assert [
        PairLoader(PAIRS, 2, seed=4, collate=pair_batch).rows(step, 0, 2).tokens[0, 0].item() - 10 for step in range(7)
    ] != order[:7]


def test_a_batch_of_pairs() -> None:
    batch = pair_batch([PAIRS[3], PAIRS[1]]).to("cpu")
    assert batch.tokens.tolist() == [[13] * 4, [13, 9, 0, 0], [11, 11, 0, 0], [11, 9, 0, 0]]
    assert batch.segment_ids.sum(1).tolist() == [4, 2, 2, 2]
    assert batch.positions.tolist()[0] == [0, 1, 2, 3]
    assert (batch.targets != IGNORE).nonzero().tolist() == [[0, 3], [2, 1]]  # one target a pair
    assert batch.levels.tolist() == [3, 1]
    assert batch.grades.tolist() == [[2, 1, 0, IGNORE], MISSING] * 2


def test_answers_follow_the_prompt_as_in_a_conversation() -> None:
    pair: Preference = {
        "id": "p:1", "split": "train", "prompt": [{"role": "user", "content": "Hi"}], "chosen": "a", "rejected": "",
        "level": LEVELS[2], "grades": {"chosen": {"truthfulness": 1}, "rejected": {}},
    }  # fmt: skip
    found = encode_pair(Letters(), pair)
    assert found.sides == ([4, 72, 105, 7, 5, 97, 7], [4, 72, 105, 7, 5, 7])
    assert (found.level, found.grades) == (2, ([IGNORE, IGNORE, 1, IGNORE], MISSING))
    assert encode_pair(Letters(), pair | {"level": None}).level == 4


def test_wrong_batches() -> None:
    with pytest.raises(UserError, match="batch_size=3: a pair is two rows"):
        PairLoader(PAIRS, 3, 0, pair_batch)
    with pytest.raises(UserError, match="pairs: none left"):
        PairLoader([], 2, 0, pair_batch)
    with pytest.raises(ValueError, match="not whole pairs"):
        PairLoader(PAIRS, 4, 0, pair_batch).rows(0, 0, 3)
    assert torch.equal(
        PairLoader(PAIRS, 4, 0, pair_batch).rows(5, 0, 4).tokens,
        PairLoader(PAIRS, 4, 0, pair_batch).rows(5, 0, 4).tokens,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_batch_is_its_formula(kind: Kind) -> None:
    config = ModelConfig(vocab_size=20, d_model=8, n_layers=1, n_heads=1, n_kv_heads=1, d_head=8, d_ff=8, max_seq_len=9)
    torch.manual_seed(0)
    reward, batch = RewardModel(Transformer(config, torch.float32), PROPERTIES), pair_batch(PAIRS[:5])
    judged = judge(reward, batch)
    rewards, grades = judged.rewards_N.detach().tolist(), judged.grades_NPG.detach().log_softmax(-1)
    rank = graded = plain = 0.0
    for number, pair in enumerate(PAIRS[:5]):
        margin = rewards[2 * number] - rewards[2 * number + 1]
        better, worse = (-math.log1p(math.exp(-way * margin)) for way in (1, -1))
        p = (*SOFT_LABELS, 1.0)[pair.level] if kind == "soft" else 1.0
        if kind == "margin":
            rank += math.log1p(math.exp((1, 2 / 3, 1 / 3, 0, 0)[pair.level] - margin))
        else:
            rank -= p * better + (1 - p) * worse
        plain -= better
        # Of the rejected sides nothing is graded; of the chosen ones the first three properties.
        graded -= sum(float(grades[2 * number, i, grade]) for i, grade in enumerate(pair.grades[0][:3]))
    loss = pair_loss(reward, kind, 0.3, batch, 0)
    assert int(loss.count) == 5
    assert float(loss.total.detach()) == pytest.approx(rank + 0.3 * graded, rel=1e-5)
    assert float(loss.nll) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_soft_labels_win_where_opinions_have_the_probabilities_of_their_levels(seed: int) -> None:
    """By construction: pairs point to what most prefer, and held-out opinions are drawn with p of the level."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Differences of features, of which the first says how much better, and the numbers of the levels."""
        levels = torch.arange(n) % 4
        x = 0.3 * torch.randn(n, 6, generator=generator)
        x[:, 0] = torch.tensor([math.log(p / (1 - p)) for p in SOFT_LABELS])[levels]
        return x, levels

    (x, levels), (held, held_levels) = drawn(400), drawn(4000)
    p, nothing = torch.tensor(SOFT_LABELS), torch.zeros(())
    agrees = torch.rand(4000, generator=generator) < p[held_levels]
    found = {}
    for kind in ("soft", "hard", "margin"):
        w = torch.zeros(6, requires_grad=True)
        optimizer = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

        def closure(kind: str = kind, w: torch.Tensor = w) -> torch.Tensor:
            w.grad = None
            if kind == "margin":
                loss = margin_preference(x @ w, nothing, torch.tensor(_MARGINS)[levels])
            else:
                loss = soft_preference(x @ w, nothing, p[levels] if kind == "soft" else torch.ones(400))
            loss.mean().backward()
            return loss.mean()

        optimizer.step(closure)
        margins = torch.where(agrees, 1.0, -1.0) * (held @ w.detach())
        found[kind] = float(torch.nn.functional.softplus(-margins).mean())
    entropy = float(-(p * p.log() + (1 - p) * (1 - p).log()).mean())
    assert found["soft"] == pytest.approx(entropy, abs=0.03)
    assert found["soft"] + 0.05 < min(found["hard"], found["margin"])
