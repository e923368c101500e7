"""Near duplicates by the cosine of text embeddings (afm 6.1), exactly: every text is compared with all that are kept.

The report names neither the embedding nor the threshold. An embedding is any vector a text; `hashed_ngrams` gives one
without a model, `evaluate.embed` one by a model of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pippin.data.mixture import hash64
from pippin.data.words import hash_words, normalise
from pippin.errors import UserError

BLOCK = 1_024  # texts compared at a time
DIMENSIONS = 1_024
_KEY = 7  # of the hash


def unit(vectors: np.ndarray, centre: bool = False) -> np.ndarray:
    """Vectors [N, D] as float32 of length 1 (0 stays 0), if asked for after their mean is taken off.

    Hidden states of a language model have much in common, whatever the text; without their mean they can be told apart.
    """
    vectors = np.asarray(vectors, np.float32)
    if centre and len(vectors):
        vectors = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)


def duplicates_of(vectors: np.ndarray, threshold: float, block: int = BLOCK) -> np.ndarray:
    """For each vector the first earlier one that is kept and has a cosine of at least `threshold`; -1 for those kept.

    In order: the first of its kind stays, and what is dropped drops nothing. Beside the vectors memory holds
    `block` * `block` cosines at a time; they are exact to float32's rounding.

    Args:
        vectors: of length 1, float32 [N, D] (`unit`).

    Raises:
        UserError: the threshold is not above 0 and at most 1; a vector is not finite.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold: value {threshold}: a cosine from which texts are alike is above 0 and at most 1")
    if not np.isfinite(vectors).all():
        raise UserError("embeddings: some are not finite; the model that made them is not whole")
    limit = threshold - 1e-6  # of two equal vectors the cosine may be rounded to below 1
    found = np.full(len(vectors), -1, np.int64)
    for start in range(0, len(vectors), block):
        here = vectors[start : start + block]
        for before in range(0, start, block):
            open_rows = np.flatnonzero(found[start : start + block] < 0)
            kept = before + np.flatnonzero(found[before : before + block] < 0)
            if len(open_rows) and len(kept):
                alike = here[open_rows] @ vectors[kept].T >= limit
                hit = alike.any(axis=1)
                found[start + open_rows[hit]] = kept[alike[hit].argmax(axis=1)]
        alike = here @ here.T >= limit
        for row in range(1, len(here)):
            if found[start + row] < 0:
                earlier = np.flatnonzero(alike[row, :row] & (found[start : start + row] < 0))
                if len(earlier):
                    found[start + row] = start + earlier[0]
    return found


def hashed_ngrams(texts: Sequence[str], dimensions: int = DIMENSIONS) -> np.ndarray:
    """A vector for each text from its words and the pairs of words that follow each other, float32 [N, dimensions].

    Each is hashed to a dimension and a sign (Weinberger et al. 2009) and counts the more, the fewer of the N texts have
    it: (1 + ln count) (1 + ln((1 + N) / (1 + texts with it))). Words are those of `data.words.normalise`.
    """
    hashed = hash_words([normalise(text) for text in texts])
    text_of = np.repeat(np.arange(len(texts)), np.diff(hashed.offsets))
    pairs = np.flatnonzero(np.arange(len(text_of)) + 2 <= hashed.ends())
    grams = np.concatenate((hashed.words, hashed.ngrams(2)[pairs]))
    where = np.concatenate((text_of, text_of[pairs]))
    order = np.lexsort((where, grams))
    grams, where = grams[order], where[order]
    new = np.ones(len(grams), bool)  # the first of a gram in a text
    new[1:] = (grams[1:] != grams[:-1]) | (where[1:] != where[:-1])
    first = np.flatnonzero(new)
    counts = np.diff(np.append(first, len(grams)))
    grams, where = grams[first], where[first]
    _, kind, texts_with = np.unique(grams, return_inverse=True, return_counts=True)
    weights = (1 + np.log(counts)) * (1 + np.log((1 + len(texts)) / (1 + texts_with[kind])))
    mixed = hash64(_KEY, grams)
    signed = np.where(mixed >> np.uint64(63), weights, -weights)
    dimension = (mixed % np.uint64(dimensions)).astype(np.int64)
    vectors = np.zeros((len(texts), dimensions), np.float32)
    order = np.argsort(where, kind="stable")
    for start in range(0, len(texts), BLOCK):  # the sums are in float64: not of all texts at once
        stop = min(start + BLOCK, len(texts))
        own = order[slice(*np.searchsorted(where[order], (start, stop)))]
        place = (where[own] - start) * dimensions + dimension[own]
        vectors[start:stop] = np.bincount(place, signed[own], (stop - start) * dimensions).reshape(-1, dimensions)
    return vectors
