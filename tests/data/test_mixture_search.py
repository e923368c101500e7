"""Weights up and down: what helps beyond noise is kept, what is not missed is dropped, noise alone changes nothing."""

from __future__ import annotations

import math
import random

import pytest

from pippin.data.mixture_search import BASE, HELPS, Finding, candidate, decide, noise, trials
from pippin.errors import UserError

WEIGHTS = {"good": 0.4, "plain": 0.5, "idle": 0.04, "bad": 0.06}
NOISE = 0.01


def test_each_weight_goes_up_and_down_and_the_others_share_it() -> None:
    made = {trial.name: trial for trial in trials({name: 10 * w for name, w in WEIGHTS.items()}, 0.05)}
    assert list(made) == [
        "good +0.05", "good -0.05", "plain +0.05", "plain -0.05", "idle +0.05", "idle -0.04", "bad +0.05", "bad -0.05",
    ]  # fmt: skip
    for trial in made.values():
        assert math.fsum(trial.weights.values()) == pytest.approx(1)
        assert trial.weights.get(trial.component, 0) == pytest.approx(WEIGHTS[trial.component] + trial.change)
        others = [name for name in WEIGHTS if name != trial.component]
        ratios = [trial.weights[name] / WEIGHTS[name] for name in others]
        assert ratios == pytest.approx([ratios[0]] * 3)
    assert "idle" not in made["idle -0.04"].weights  # its whole weight: tried without it


@pytest.mark.parametrize(
    ("weights", "delta", "message"),
    [
        ({"a": 1.0}, 0.1, "one component has nothing"),
        ({"a": 1.0, "b": 1.0}, 0.0, "delta: value 0.0"),
        ({"a": 1.0, "b": 1.0}, 0.5, "delta: value 0.5"),
        ({"a": 1.0, "b": 1.0}, math.nan, "delta: value nan"),
    ],
)
def test_what_cannot_be_tried_is_one_line(weights: dict[str, float], delta: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trials(weights, delta)


def test_noise_is_what_mixtures_and_seeds_do_not_explain() -> None:
    exact = {"a": [1.0, 2.0, 4.0], "b": [1.5, 2.5, 4.5], "c": [0.0, 1.0, 3.0]}
    assert noise(exact) == pytest.approx(0, abs=1e-12)
    draw = random.Random(0)
    noisy = {f"m{i}": [0.1 * i + s + draw.gauss(0, NOISE) for s in range(3)] for i in range(200)}
    assert noise(noisy) == pytest.approx(NOISE, rel=0.1)


@pytest.mark.parametrize("row", [[1.0], [1.0, math.nan]])
def test_scores_that_cannot_be_compared_are_one_line(row: list[float]) -> None:
    with pytest.raises(UserError, match="scores of 'b'"):
        noise({"a": [1.0, 2.0], "b": row})
    with pytest.raises(UserError, match="at least two of both"):
        noise({"a": [1.0], "b": [2.0]})


def scored(weights: dict[str, float], seed: int, slopes: dict[str, float]) -> float:
    """A score that is linear in the shares, with noise of its own for each mixture and seed."""
    key = f"{sorted(weights.items())}/{seed}"
    total = math.fsum(weights.values())
    linear = math.fsum(slopes.get(name, 0.0) * w / total for name, w in weights.items())
    return 0.5 + linear + random.Random(f"seed {seed}").gauss(0, 0.05) + random.Random(key).gauss(0, NOISE)


def searched(slopes: dict[str, float], seeds: int = 4) -> tuple[dict[str, float], dict[str, str]]:
    made = trials(WEIGHTS, 0.05)
    scores = {BASE: [scored(WEIGHTS, seed, slopes) for seed in range(seeds)]}
    scores |= {trial.name: [scored(trial.weights, seed, slopes) for seed in range(seeds)] for trial in made}
    found, error = decide(made, scores)
    assert (
        0.4 < error / (NOISE * math.sqrt(2 / seeds)) < 1.8
    )  # the seeds' own scatter, five times as large, is not in it
    return candidate(WEIGHTS, made, found), {name: finding.verdict for name, finding in found.items()}


def test_planted_effects_are_found() -> None:
    best, verdicts = searched({"good": 2.0, "bad": -2.0, "plain": 0.0})
    assert verdicts["good +0.05"] == "helps"
    assert verdicts["good -0.05"] == ""
    assert verdicts["bad -0.05"] == "helps"
    assert best["good"] / best["plain"] > 1.05 * WEIGHTS["good"] / WEIGHTS["plain"]
    assert best["bad"] < 0.02
    assert math.fsum(best.values()) == pytest.approx(1)


def test_what_is_not_missed_is_dropped_and_what_is_missed_stays() -> None:
    best, verdicts = searched({"good": 0.0, "plain": 0.0, "bad": 4.0})
    assert verdicts["idle -0.04"] in ("drop", "")
    assert verdicts["bad -0.05"] == ""
    assert best["bad"] > WEIGHTS["bad"]
    dropped = {name for name, verdict in verdicts.items() if verdict == "drop"}
    assert dropped <= {"idle -0.04"}  # only the whole of a component is ever dropped
    assert ("idle" in best) == (not dropped)


def test_noise_alone_seldom_changes_a_weight() -> None:
    """Two sides of a normal distribution beyond two errors: 2.3 % of the trials each."""
    helped = tried = 0
    for world in range(40):
        made = trials(WEIGHTS, 0.05)
        draw = random.Random(world)
        scores = {name: [draw.gauss(0.5, NOISE) for _ in range(4)] for name in (BASE, *(t.name for t in made))}
        found, _ = decide(made, scores)
        helped += sum(finding.verdict == "helps" for finding in found.values())
        tried += len(made)
    assert helped / tried < 0.07
    assert HELPS == 2.0


def test_many_changes_that_help_leave_the_others_their_place() -> None:
    weights = {"a": 0.3, "b": 0.3, "c": 0.35, "d": 0.05}
    made = trials(weights, 0.2)
    found = {t.name: Finding(0.1 * t.change, "helps" if t.change > 0 and t.component != "d" else "") for t in made}
    best = candidate(weights, made, found)
    assert best == pytest.approx({"a": 0.5 / 1.6, "b": 0.5 / 1.6, "c": 0.55 / 1.6, "d": 0.05 / 1.6})


def test_something_is_always_left() -> None:
    small = trials({"a": 0.3, "b": 0.3, "c": 0.4}, 0.45)
    scores = {BASE: [0.5, 0.6]} | {trial.name: [0.5 + 0.01 * n, 0.6] for n, trial in enumerate(small)}
    found, _ = decide(small, scores)
    left = candidate({"a": 0.3, "b": 0.3, "c": 0.4}, small, found)
    assert left
    assert math.fsum(left.values()) == pytest.approx(1)
