"""Near duplicates by embeddings: the blocks find what comparing every pair finds."""

from __future__ import annotations

import numpy as np
import pytest

from pippin.data.embedding_dedup import duplicates_of, hashed_ngrams, unit
from pippin.errors import UserError


def brute_force(vectors: np.ndarray, threshold: float) -> list[int]:
    """One vector after the other against every one that was kept, in float64."""
    kept: list[int] = []
    found = []
    for row, vector in enumerate(vectors.astype(np.float64)):
        first = next((other for other in kept if vector @ vectors[other].astype(np.float64) >= threshold), -1)
        found.append(first)
        if first < 0:
            kept.append(row)
    return found


def clusters(n: int, seed: int) -> np.ndarray:
    """Vectors around a few centres, at distances that lie on both sides of a threshold."""
    draw = np.random.default_rng(seed)
    centres = unit(draw.normal(size=(n // 6, 24)))
    return unit(centres[draw.integers(0, len(centres), n)] + draw.uniform(0, 0.25, (n, 1)) * draw.normal(size=(n, 24)))


@pytest.mark.parametrize("block", [1, 7, 64, 1_000])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_blocks_find_what_every_pair_shows(block: int, threshold: float) -> None:
    vectors = clusters(150, seed=block)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    assert np.abs(cosines[~np.eye(150, dtype=bool)] - threshold).min() > 2e-6  # rounding decides nothing here
    found = duplicates_of(vectors, threshold, block)
    assert found.tolist() == brute_force(vectors, threshold)
    assert 10 < int((found >= 0).sum()) < 150


def test_what_is_dropped_drops_nothing() -> None:
    angles = np.deg2rad([0, 20, 40, 90])
    chain = np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)
    for block in (1, 2, 4):
        assert duplicates_of(chain, np.cos(np.deg2rad(25)), block).tolist() == [-1, 0, -1, -1]


def test_equal_texts_are_equal_at_any_threshold_and_nothing_is_like_no_words() -> None:
    texts = ["The cat, asleep.", "", "the CAT asleep", "A dog barks at the moon", "..."]
    vectors = unit(hashed_ngrams(texts))
    assert duplicates_of(vectors, 1.0).tolist() == [-1, -1, 0, -1, -1]


def test_texts_that_share_more_words_are_closer() -> None:
    texts = [
        "Who found the grey cat in the barn this morning?",
        "Who found the grey cat in the barn this evening?",
        "Who lost a red hat on the hill last year?",
        "Multiply seven by eight and add two.",
    ]
    vectors = unit(hashed_ngrams(texts * 1))
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.6 > cosines[0, 2] > cosines[0, 3] - 0.1
    assert abs(cosines[0, 3]) < 0.1
    reordered = unit(hashed_ngrams([texts[0], " ".join(reversed(texts[0].split())), *texts[2:]]))
    assert reordered[0] @ reordered[1] < 0.9  # pairs of words see the order


def test_vectors_do_not_depend_on_blocks_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"word{i % 7} other{i % 5} word{i % 3} end{i}" for i in range(50)]
    whole = hashed_ngrams(texts, 64)
    monkeypatch.setattr("pippin.data.embedding_dedup.BLOCK", 8)
    assert np.array_equal(hashed_ngrams(texts, 64), whole)


def test_the_mean_is_taken_off_where_asked() -> None:
    raw = np.array([[10, 1, 0], [10, -1, 0], [10, 0, 1], [10, 0, -1]], np.float32)
    assert float(unit(raw)[0] @ unit(raw)[1]) > 0.9
    assert float(unit(raw, centre=True)[0] @ unit(raw, centre=True)[1]) == pytest.approx(-1)


@pytest.mark.parametrize("threshold", [0, -1, 1.1])
def test_a_threshold_out_of_range_is_one_line(threshold: float) -> None:
    with pytest.raises(UserError, match=f"threshold: value {threshold}"):
        duplicates_of(np.eye(2, dtype=np.float32), threshold)


def test_vectors_that_are_not_finite_are_one_line() -> None:
    with pytest.raises(UserError, match="embeddings: some are not finite"):
        duplicates_of(np.array([[np.nan, 1]], np.float32), 0.9)
