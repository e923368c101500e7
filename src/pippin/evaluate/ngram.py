"""The strong cheap baseline: an interpolated modified Kneser-Ney n-gram model over token ids.

A small neural model is worth something only where it beats this one on the same tokens of the same documents.
Source: Chen and Goodman 1998, "An Empirical Study of Smoothing Techniques for Language Modeling":
interpolated Kneser-Ney with three discounts an order, estimated from counts of counts.

Documents are independent: each begins with a start symbol of its own (it plays the part of the `<eos>` that
precedes a document in the model's input), and no context reaches over it. Every token, the final `<eos>`
included, is scored, as by `pippin.data.loader.EvalReader`: the bits per byte of the two compare.

N-grams of order n are rows of a sorted int64 array of keys (id of the context, an (n-1)-gram) * (V + 1) +
token: ids are dense, so the key fits for every vocabulary; sort, diff and searchsorted do all the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
AnyInts = npt.NDArray[Any]  # of any integer type: token files are uint16 or uint32


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order: U distinct ones, after C contexts (the n-grams of the order below)."""

    keys: Ints  # [U] sorted; the n-gram's id is its row
    mass: Floats  # [U] (count - discount) / total of its context
    backoff: Floats  # [C] probability left for the order below; 1 where the context was never continued


@dataclass(frozen=True)
class KneserNey:
    """An interpolated modified Kneser-Ney model; make one with `KneserNey.train`."""

    vocab_size: int
    unigram: Floats  # [V]
    orders: tuple[_Order, ...]  # of order 2, 3, ...

    @classmethod
    def train(cls, tokens: AnyInts, starts: AnyInts, vocab_size: int, order: int = 5) -> KneserNey:
        """Count and smooth.

        Args:
            tokens: [N] token ids of all documents, one after another; each ends with its own `<eos>`.
            starts: [documents + 1] offsets into `tokens`; document d is `tokens[starts[d]:starts[d + 1]]`.
            vocab_size: V; probabilities are over 0..V-1, unseen tokens included.
            order: the longest n-gram, at least 2.

        Raises:
            ValueError: no token, one outside the vocabulary, offsets that do not cover the tokens, order < 2.
        """
        if order < 2:
            raise ValueError(f"order {order}: must be at least 2")
        if len(tokens) == 0:
            raise ValueError("tokens: empty, nothing to train on")
        stream, depth = _with_start_symbols(tokens, starts, vocab_size)
        ends = np.flatnonzero(depth > 0)  # positions where the n-grams of the order at hand end
        ids = stream  # the id of the n-gram that ends at each position; at order 1 the token itself
        keys, n_contexts = np.arange(vocab_size + 1), 1
        counts = np.bincount(stream[ends], minlength=vocab_size + 1)
        orders: list[_Order] = []
        for n in range(2, order + 1):
            ends = ends[depth[ends] >= n - 1]
            above, rows, counts_above, sample = _number(ids[ends - 1] * (vocab_size + 1) + stream[ends])
            # Below the top order an n-gram's count is the number of distinct tokens before it; one at a
            # document's start has none and keeps its frequency.
            before = np.bincount(ids[ends[sample]], minlength=len(keys))
            orders.append(_smooth(keys, np.where(before > 0, before, counts), n_contexts, vocab_size))
            keys, counts, n_contexts = above, counts_above, len(keys)
            ids = np.full(len(stream), -1, dtype=np.int64)
            ids[ends] = rows
            del rows, sample, before  # the three are as long as the stream
        orders.append(_smooth(keys, counts, n_contexts, vocab_size))
        unigram = orders[0].mass[:vocab_size] + orders[0].backoff[0] / vocab_size
        return cls(vocab_size, unigram, tuple(orders[1:]))

    def log2_probs(self, tokens: AnyInts, starts: AnyInts) -> Floats:
        """The log2 probability of every token of some documents given those before it in its document.

        Bits per byte of a text: `-model.log2_probs(tokens, starts).sum() / utf8_bytes`.

        Args:
            tokens, starts: as in `train`.

        Returns:
            [N] float64, in the order of `tokens`; finite.

        Raises:
            ValueError: a token outside the vocabulary, offsets that do not cover the tokens.
        """
        stream, depth = _with_start_symbols(tokens, starts, self.vocab_size)
        ends = np.flatnonzero(depth > 0)
        probability = self.unigram[stream[ends]]
        ids = stream
        for table in self.orders:
            context = ids[ends - 1]
            known = np.flatnonzero(context >= 0)
            context = context[known]
            keys = context * (self.vocab_size + 1) + stream[ends[known]]
            rows = np.searchsorted(table.keys, keys)
            found = rows < len(table.keys)
            found[found] = table.keys[rows[found]] == keys[found]
            updated = table.backoff[context] * probability[known]
            updated[found] += table.mass[rows[found]]
            probability[known] = updated
            ids = np.full(len(stream), -1, dtype=np.int64)
            ids[ends[known[found]]] = rows[found]
        log2: Floats = np.log2(probability)
        return log2


def _with_start_symbols(tokens: AnyInts, starts: AnyInts, vocab_size: int) -> tuple[Ints, Ints]:
    """Put the start symbol (id V) before every document. Returns the stream and every position's depth.

    The start symbol has depth 0, a document's first token 1: at depth d end n-grams of the orders n <= d + 1.
    """
    starts = np.asarray(starts, dtype=np.int64)
    covers = starts.ndim == 1 and len(starts) > 0 and starts[0] == 0 and starts[-1] == len(tokens)
    if not covers or (np.diff(starts) < 0).any():
        raise ValueError(f"starts: must rise from 0 to the number of tokens ({len(tokens)})")
    if len(tokens) and not 0 <= int(np.min(tokens)) <= int(np.max(tokens)) < vocab_size:
        raise ValueError(f"tokens: {np.min(tokens)}..{np.max(tokens)} is not inside 0..{vocab_size - 1}")
    lengths = np.diff(starts)
    heads = starts[:-1] + np.arange(len(lengths))
    depth = np.arange(len(tokens) + len(lengths)) - np.repeat(heads, lengths + 1)
    stream = np.full(len(depth), vocab_size, dtype=np.int64)
    stream[depth > 0] = tokens
    return stream, depth


def _number(keys: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Distinct keys in order, the row of every key among them, how often each occurs, a place of each."""
    by_key = np.argsort(keys)
    ordered = keys[by_key]
    first = np.ones(len(keys), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    heads = np.flatnonzero(first)
    rows = np.empty(len(keys), dtype=np.int64)
    rows[by_key] = np.cumsum(first) - 1
    return ordered[heads], rows, np.diff(heads, append=len(keys)), by_key[heads]


def _discounts(counts: Ints) -> tuple[float, float, float]:
    """Discounts for counts 1, 2 and 3 or more, from how many n-grams occur 1, 2, 3 and 4 times.

    Chen and Goodman 1998, equation 26. Where a count of counts is missing or the estimate leaves its range
    (little or unnatural data): one absolute discount n1 / (n1 + 2 n2); without n1 or n2, 0.5, 1 and 1.5.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == c)) for c in (1, 2, 3, 4))
    if not (n1 and n2):
        return 0.5, 1.0, 1.5
    y = n1 / (n1 + 2 * n2)
    if n3 and n4:
        three = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < d < c for c, d in enumerate(three, start=1)):
            return three
    return y, y, y


def _smooth(keys: Ints, counts: Ints, n_contexts: int, vocab_size: int) -> _Order:
    """Discount the counts and hand what was taken in each context to the order below."""
    context = keys // (vocab_size + 1)
    total = np.bincount(context, weights=counts, minlength=n_contexts)
    taken = np.array((0.0, *_discounts(counts)))[np.minimum(counts, 3)]
    backoff: Floats = np.bincount(context, weights=taken, minlength=n_contexts) / np.maximum(total, 1)
    backoff[total == 0] = 1.0
    mass: Floats = (counts - taken) / total[context]
    return _Order(keys, mass, backoff)
