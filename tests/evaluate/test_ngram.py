"""The Kneser-Ney baseline: sums to one, agrees with a slow dictionary implementation, gains with every order."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from pippin.evaluate.ngram import KneserNey

START = -1


def join(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Documents -> (tokens, starts)."""
    tokens = np.array([token for document in documents for token in document], dtype=np.uint16)
    return tokens, np.cumsum([0] + [len(document) for document in documents])


def zipf_documents(rng: np.random.Generator, vocab_size: int, n: int) -> list[list[int]]:
    """Documents with structure: each token is mostly a function of the one or two before it."""
    documents = []
    for _ in range(n):
        document = [int(rng.integers(2, vocab_size))]
        for _ in range(int(rng.integers(0, 30))):
            if rng.random() < 0.6:
                before = document[-2] if len(document) > 1 else 3
                document.append(2 + (document[-1] * 7 + before) % (vocab_size - 2))
            else:
                document.append(2 + min(int(rng.zipf(1.6)), vocab_size - 2) - 1)
        documents.append([*document, 1])
    return documents


class Slow:
    """Interpolated modified Kneser-Ney with dictionaries, straight from the formulas of Chen and Goodman."""

    def __init__(self, documents: list[list[int]], vocab_size: int, order: int) -> None:
        self.vocab_size, self.order = vocab_size, order
        raw: dict[int, Counter[tuple[int, ...]]] = defaultdict(Counter)
        for document in documents:
            padded = (START, *document)
            for n in range(1, order + 1):
                for end in range(max(n, 2), len(padded) + 1):
                    raw[n][padded[end - n : end]] += 1
        self.counts: dict[int, dict[tuple[int, ...], int]] = {order: dict(raw[order])}
        for n in range(1, order):
            left: dict[tuple[int, ...], set[int]] = defaultdict(set)
            for gram in raw[n + 1]:
                left[gram[1:]].add(gram[0])
            self.counts[n] = {gram: raw[n][gram] if gram[0] == START else len(left[gram]) for gram in raw[n]}
        self.discounts = {n: self.estimate(Counter(self.counts[n].values())) for n in self.counts}
        self.after: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        for grams in self.counts.values():
            for gram, count in grams.items():
                self.after[gram[:-1]][gram[-1]] = count

    @staticmethod
    def estimate(n: Counter[int]) -> list[float]:
        if n[1] == 0 or n[2] == 0:
            return [0.5, 1.0, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        if n[3] and n[4]:
            three = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if 0 < three[0] < 1 and 0 < three[1] < 2 and 0 < three[2] < 3:
                return three
        return [y, y, y]

    def probability(self, context: tuple[int, ...], token: int) -> float:
        lower = self.probability(context[1:], token) if context else 1 / self.vocab_size
        after = self.after.get(context)
        if not after:
            return lower
        discount = self.discounts[len(context) + 1]
        taken = {word: discount[min(count, 3) - 1] for word, count in after.items()}
        total = sum(after.values())
        mine = (after[token] - taken[token]) / total if token in after else 0.0
        return mine + sum(taken.values()) / total * lower

    def log2_probs(self, documents: list[list[int]]) -> list[float]:
        result = []
        for document in documents:
            padded = (START, *document)
            for end in range(1, len(padded)):
                context = padded[max(0, end - self.order + 1) : end]
                result.append(math.log2(self.probability(context, padded[end])))
        return result


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize(("vocab_size", "n"), [(12, 40), (60, 150), (40, 1), (300, 4)])
def test_agrees_with_a_slow_implementation(order: int, vocab_size: int, n: int) -> None:
    rng = np.random.default_rng(order)
    train, held_out = zipf_documents(rng, vocab_size, n), zipf_documents(rng, vocab_size, 30)
    fast = KneserNey.train(*join(train), vocab_size, order).log2_probs(*join(held_out))
    np.testing.assert_allclose(fast, Slow(train, vocab_size, order).log2_probs(held_out), rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_sums_to_one_after_seen_and_unseen_contexts(order: int) -> None:
    vocab_size, rng = 50, np.random.default_rng(0)
    train = zipf_documents(rng, vocab_size, 60)
    model = KneserNey.train(*join(train), vocab_size, order)
    contexts = [document[: int(rng.integers(0, len(document)))] for document in train[:15]]
    contexts += [[int(t) for t in rng.integers(0, vocab_size, size=length)] for length in range(8)]
    contexts += [train[0], [0, 0, 0, 0, *train[1][:2]]]
    for context in contexts:
        documents = [[*context, token] for token in range(vocab_size)]
        last = model.log2_probs(*join(documents)).reshape(vocab_size, -1)[:, -1]
        assert np.exp2(last).sum() == pytest.approx(1, abs=1e-12)
        assert np.isfinite(last).all()


def test_discounts_fall_back_where_counts_of_counts_are_missing() -> None:
    """Few tokens, or all n-grams equally often: probabilities stay proper."""
    for documents in ([[1]], [[3, 4, 1]] * 5, [[2, 2, 2, 2, 2, 2, 1]]):
        model = KneserNey.train(*join(documents), 5)
        sums = [
            np.exp2(model.log2_probs(*join([[*c, t] for t in range(5)]))[len(c) :: len(c) + 1]).sum()
            for c in ([], [3], [3, 4], [2, 2, 2], [2, 2, 2, 2, 2])
        ]
        np.testing.assert_allclose(sums, 1, atol=1e-12)


def test_contexts_do_not_cross_documents() -> None:
    documents = zipf_documents(np.random.default_rng(1), 30, 50)
    model = KneserNey.train(*join(documents), 30)
    alone = [model.log2_probs(*join([document])) for document in documents]
    np.testing.assert_array_equal(model.log2_probs(*join(documents)), np.concatenate(alone))
    shuffled = KneserNey.train(*join(documents[::-1]), 30)
    np.testing.assert_allclose(shuffled.log2_probs(*join(documents)), model.log2_probs(*join(documents)), atol=1e-12)


def test_beats_lower_orders_on_real_text() -> None:
    """Bytes of standard library sources: every order helps, and the 5-gram is far below 8 bits."""
    files = sorted(Path(json.__file__).parent.parent.glob("*.py"))[:60]
    documents = [[*file.read_bytes()[:20_000], 256] for file in files]
    train, held_out = documents[::2] + documents[1::4], documents[3::4]
    tokens, starts = join(held_out)
    models = [KneserNey.train(*join(train), 257, order) for order in (2, 3, 4, 5)]
    bits = [-model.log2_probs(tokens, starts).mean() for model in models]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] < 2.6


def test_large_vocabulary_and_unsigned_ids() -> None:
    """Keys of 65k-token vocabularies do not overflow."""
    rng = np.random.default_rng(2)
    documents = [[int(t) for t in rng.integers(65_000, 65_536, size=20)] for _ in range(20)]
    tokens, starts = join(documents)
    assert tokens.dtype == np.uint16
    model = KneserNey.train(tokens, starts, 65_536)
    seen, unseen = model.log2_probs(tokens, starts).mean(), model.log2_probs(tokens[::-1], starts).mean()
    assert seen > unseen + 5


@pytest.mark.parametrize(
    ("tokens", "starts", "order"),
    [([1, 2], [0, 1], 5), ([1, 2], [1, 2], 5), ([1, 2], [0, 2, 1, 2], 5), ([1, 9], [0, 2], 5), ([], [0], 5),
     ([-1, 2], [0, 2], 5), ([1], [0, 1], 1)],
)  # fmt: skip
def test_misuse_raises(tokens: list[int], starts: list[int], order: int) -> None:
    with pytest.raises(ValueError, match=r"starts|tokens|order"):
        KneserNey.train(np.array(tokens, dtype=np.int64), np.array(starts), 9, order)
