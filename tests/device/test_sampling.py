"""What is drawn: the truncations against NumPy, and that speculation changes no distribution and no greedy token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pippin.device.engine import Engine, Model, Speculation
from tests.device.models import SMALL, tokens, write

# So few tokens that all texts of three can be listed, with their exact probabilities.
FEW = replace(SMALL, vocab_size=5)
# Every pair of tokens occurs once, so that look-up always finds something to guess.
PROMPT = [0, 0, 1, 0, 2, 0, 3, 0, 4, 1, 1, 2, 1, 3, 1, 4, 2, 2, 3, 2, 4, 3, 3, 4, 4, 0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(write(tmp_path_factory.mktemp("model"), FEW, gain=2.5))


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(write(tmp_path_factory.mktemp("draft"), replace(FEW, n_layers=1, d_ff=40), seed=5, gain=2))


def probabilities(logits: np.ndarray, history: list[int], settings: dict[str, Any]) -> np.ndarray:
    """The distribution that the settings of `Engine.submit` describe, in float64."""
    logits = logits.astype(np.float64).copy()
    penalty = settings.get("repetition_penalty", 1.0)
    for token in set(history):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    p = np.exp((logits - logits.max()) / settings["temperature"])
    p[p < settings.get("min_p", 0.0)] = 0
    order = np.argsort(-p, kind="stable")
    if k := settings.get("top_k", 0):
        p[order[k:]] = 0
    p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= settings.get("top_p", 1.0)]] = 0
    return p / p.sum()


def draws(engine: Engine, count: int, length: int, **settings: Any) -> Counter[tuple[int, ...]]:
    """Texts of `length` tokens for seeds 0 .. count - 1."""
    prompts = [PROMPT] * count
    return Counter(tuple(text) for text in engine.generate(prompts, [None] * count, max_tokens=length, **settings))


def check_fit(found: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> None:
    """Pearson's test at about 1e-6, with rare texts together; and nothing impossible is ever drawn."""
    count = sum(found.values())
    assert all(expected.get(text, 0) > 0 for text in found)
    rare = [text for text, p in expected.items() if p * count < 8]
    cells = [(found[text], p * count) for text, p in expected.items() if p * count >= 8]
    if rare and sum(expected[text] for text in rare) * count >= 8:
        cells.append((sum(found[text] for text in rare), sum(expected[text] for text in rare) * count))
    statistic = sum((a - b) ** 2 / b for a, b in cells)
    freedom = max(1, len(cells) - 1)
    # Wilson and Hilferty's normal form of chi-squared.
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)) ** 0.5
    assert z < 4.8, (statistic, freedom)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 3},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 4, "top_p": 0.75},
        {"temperature": 1.0, "min_p": 0.3},
        {"temperature": 1.0, "repetition_penalty": 1.8},
        {"temperature": 1.2, "repetition_penalty": 0.6, "top_k": 3, "min_p": 0.05},
    ],
    ids=str,
)
def test_one_token(model: Model, settings: dict[str, Any]) -> None:
    engine = Engine(model, mode="exact", kv_tokens=4096)
    p = probabilities(engine.logits(PROMPT)[0], PROMPT, settings)
    check_fit(draws(engine, 4000, 1, **settings), {(token,): float(p[token]) for token in range(5) if p[token] > 0})


def texts_of_three(engine: Engine, settings: dict[str, Any]) -> Iterator[tuple[tuple[int, ...], float]]:
    for text in product(range(5), repeat=3):
        p = 1.0
        for i, token in enumerate(text):
            before = [*PROMPT, *text[:i]]
            p *= float(probabilities(engine.logits(before)[0], before, settings)[token])
        if p > 0:
            yield text, p


@pytest.mark.parametrize("speculate", ["no", "lookup", "draft"])
@pytest.mark.parametrize(
    "settings", [{"temperature": 1.3}, {"temperature": 1.0, "top_k": 3, "repetition_penalty": 1.3}], ids=str
)
def test_speculation_changes_no_distribution(
    model: Model, draft: Model, speculate: Speculation, settings: dict[str, Any]
) -> None:
    engine = Engine(model, draft=draft, mode="exact", kv_tokens=4096)
    expected = dict(texts_of_three(engine, settings))
    assert sum(expected.values()) == pytest.approx(1)
    check_fit(draws(engine, 6000, 3, speculate=speculate, **settings), expected)
    stats = engine.stats()
    if speculate == "no":
        assert stats["drafted"] == 0
    else:
        assert 0.05 < stats["accepted"] / stats["drafted"] < 0.95  # both ways through the test of a guess were taken


def test_a_wrong_distribution_would_be_seen(model: Model) -> None:
    engine = Engine(model, mode="exact", kv_tokens=4096)
    other = dict(texts_of_three(engine, {"temperature": 1.15}))
    with pytest.raises(AssertionError):
        check_fit(draws(engine, 6000, 3, temperature=1.3), other)


@pytest.mark.parametrize("speculate", ["lookup", "draft"])
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_speculation_changes_no_greedy_token(
    model: Model, draft: Model, tmp_path: Path, speculate: Speculation, mode: Any
) -> None:
    """Also with several sequences at once, some of which guess; in both modes, as a row's sums know no neighbours."""
    big = Model(write(tmp_path, SMALL))
    for target, helper in ((model, draft), (big, big)):  # a model that drafts for itself is always right
        vocab = target.config.vocab_size
        engine = Engine(target, draft=helper, mode=mode, max_sequences=3, prefill_chunk=20)
        prompts = [(tokens(target.config, 30, seed) * 2)[: 30 + 5 * seed] for seed in range(4)]
        plain = [engine.submit(prompt, max_tokens=40) for prompt in prompts]
        guessing = [engine.submit(prompt, max_tokens=40, speculate=speculate) for prompt in prompts]
        out: dict[int, list[int]] = {}
        while engine.pending():
            for event in engine.step():
                assert event.token is not None
                assert event.token < vocab
                out.setdefault(event.request, []).append(event.token)
        assert [out[number] for number in guessing] == [out[number] for number in plain]
        assert engine.stats()["accepted"] > 0
        if speculate == "draft" and target is big:
            assert engine.stats()["accepted"] == engine.stats()["drafted"]


def test_a_seed_is_a_text(model: Model) -> None:
    def texts(seed: int) -> list[list[int]]:
        return Engine(model).generate([PROMPT] * 3, [None] * 3, max_tokens=12, temperature=1.0, seed=seed)

    assert texts(4) == texts(4)
    assert texts(4)[1:] == texts(5)[:2]  # prompt i is drawn with seed + i
    assert len({tuple(text) for text in texts(4)}) == 3


def test_fewer_rows_are_needed_when_guesses_are_right(model: Model) -> None:
    """What speculation is for: less steps than tokens."""
    engine = Engine(model)
    engine.generate([[0, 1, 2, 3] * 8], [None], max_tokens=60)
    plain = engine.stats()["steps"]
    engine.generate([[0, 1, 2, 3] * 8], [None], max_tokens=60, speculate="lookup")
    assert engine.stats()["steps"] - plain < plain
