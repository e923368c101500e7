"""Scores, length control, tournaments and their strengths: constructed cases, an independent fit, simulated judges."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from pippin.evaluate.metareward import (
    Battle,
    battle_matrix,
    elo_mle,
    judge_pair,
    judge_scores,
    length_control_pair,
    position_weights,
    score_entropy,
    top_share,
)


def test_what_cannot_be_read_is_left_out_of_the_mean() -> None:
    found = judge_scores(["Clear. Score: 5", "no idea", "Score: 2", "Score: 6"])
    assert found.of_each == [5.0, None, 2.0, None]
    assert (found.mean, found.variance) == (3.5, 2.25)
    assert judge_scores(["?", ""]) == ([None, None], None, 0.0)


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (0.0, (0, 4)),  # best against worst, whatever their length
        (0.1, (1, 4)),  # 4.7 >= 5 - .1 * 4: shorter
        (0.3, (2, 3)),  # 4.0 >= 3.8: shorter still; 1.9 <= 2.2: longer
    ],
)
def test_shortest_of_the_good_and_longest_of_the_poor(rho: float, expected: tuple[int, int]) -> None:
    assert length_control_pair([5.0, 4.7, 4.0, 1.9, 1.0], [40, 30, 20, 50, 10], rho) == expected


def test_equal_scores_give_no_pair_and_ties_the_first() -> None:
    assert length_control_pair([3.0, 3.0], [1, 9], 0.2) is None
    assert length_control_pair([5.0, 5.0, 1.0, 1.0], [7, 7, 3, 3], 0.0) == (0, 2)
    assert length_control_pair([4.9, 5.0, 1.0, 1.1], [7, 7, 3, 3], 0.1) == (1, 2)
    for rho in (-0.1, 0.5, math.nan):
        with pytest.raises(ValueError, match="rho"):
            length_control_pair([1.0, 2.0], [1, 1], rho)


def test_a_tournament_by_hand() -> None:
    battles = [Battle(0, 1, 1), Battle(1, 0, 1), Battle(0, 2, 1), Battle(2, 0, -1), Battle(1, 2, 0)]
    assert position_weights(battles) == (0.25, 0.75)
    won = battle_matrix(3, battles, (0.25, 0.75))
    assert won == [[0.0, 0.25, 1.0], [0.25, 0.0, 0.0], [0.0, 0.0, 0.0]]
    strengths = elo_mle(won)
    assert strengths[0] > strengths[1] > strengths[2]
    assert sum(strengths) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="battle 1 against 1"):
        battle_matrix(3, [Battle(1, 1, 1)])


def by_logistic_regression(won: Sequence[Sequence[float]], ridge: float) -> list[float]:
    """Bradley-Terry as logistic regression without intercept: a row of +1 and -1 for each ordered pair, in float64."""
    n = len(won)
    rows, weights = [], []
    for m in range(n):
        for k in range(n):
            if m != k and won[m][k] > 0:
                row = [0.0] * n
                row[m], row[k] = 1.0, -1.0
                rows.append(row)
                weights.append(won[m][k])
    x, w, beta = np.array(rows), np.array(weights), np.zeros(n)
    for _ in range(200):
        p = 1 / (1 + np.exp(-x @ beta))
        gradient = x.T @ (w * (1 - p)) - ridge * beta
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + ridge * np.eye(n)
        beta = beta + 0.5 * np.linalg.solve(hessian, gradient)
    return list(map(float, beta))


def test_strengths_are_those_of_an_independent_fit() -> None:
    draw = random.Random(0)
    for n in (2, 3, 5, 11):
        for ridge in (1e-3, 0.1):
            won = [[draw.choice((0.0, 0.3, 1.0, 2.5)) for _ in range(n)] for _ in range(n)]
            np.fill_diagonal(array := np.array(won), 0.0)
            expected = by_logistic_regression(array.tolist(), ridge)
            assert elo_mle(won, ridge) == pytest.approx(expected, abs=1e-6)


def test_undefeated_and_empty_tournaments_have_finite_strengths() -> None:
    won = [[0.0, 1e4, 1e4], [0.0, 0.0, 1e4], [0.0, 0.0, 0.0]]
    assert elo_mle(won, 1e-9) == sorted(elo_mle(won, 1e-9), reverse=True)
    assert all(map(math.isfinite, elo_mle(won, 1e-9)))
    assert elo_mle([[0.0, 0.0], [0.0, 0.0]]) == [0.0, 0.0]
    for bad in ([], [[0.0, -1.0], [1.0, 0.0]], [[0.0, math.inf], [1.0, 0.0]], [[0.0, 1.0]]):
        with pytest.raises(ValueError, match="square matrix"):
            elo_mle(bad)
    with pytest.raises(ValueError, match="ridge 0"):
        elo_mle(won, 0)


# exp of the planted strengths and of the planted bias: chances are fractions, so a tournament holds them exactly.
WORTH = (Fraction(1), Fraction(2), Fraction(4))
BIAS = Fraction(3)
TIMES = 1365  # a multiple of every chance's denominator
STRENGTHS = [math.log(1 / 2), 0.0, math.log(2)]


def planted(bias: Fraction, both: bool = True) -> list[Battle]:
    """Battles in which A wins with odds worth_A / worth_B * bias, exactly as often as that says."""
    battles = []
    for m, a in enumerate(WORTH):
        for k, b in enumerate(WORTH):
            if m < k or (both and m > k):
                odds = a / b * bias
                wins = TIMES * odds / (1 + odds)
                assert wins.denominator == 1
                battles += [Battle(m, k, 1)] * int(wins) + [Battle(m, k, -1)] * int(TIMES - wins)
    return battles


@pytest.mark.parametrize("both", [True, False])
def test_planted_strengths_are_recovered(both: bool) -> None:
    won = battle_matrix(3, planted(Fraction(1), both))
    assert elo_mle(won, 1e-6) == pytest.approx(STRENGTHS, abs=1e-4)


@pytest.mark.parametrize("both", [True, False])
def test_a_known_position_bias_is_corrected_exactly(both: bool) -> None:
    battles = planted(BIAS, both)
    known = (float(1 / (1 + BIAS)), float(BIAS / (1 + BIAS)))
    assert elo_mle(battle_matrix(3, battles, known), 1e-6) == pytest.approx(STRENGTHS, abs=1e-4)
    plain = elo_mle(battle_matrix(3, battles), 1e-6)
    assert max(abs(a - b) for a, b in zip(plain, STRENGTHS, strict=True)) > 0.1


def test_the_bias_is_read_off_judgements_of_equal_worth() -> None:
    battles = [Battle(0, 1, 1)] * 3 + [Battle(0, 1, -1)] + [Battle(0, 1, 0)] * 5
    weights = position_weights(battles)
    assert weights == (0.25, 0.75)
    assert elo_mle(battle_matrix(2, battles, weights)) == pytest.approx([0.0, 0.0], abs=1e-12)
    assert elo_mle(battle_matrix(2, battles))[0] > 0.1
    assert position_weights([Battle(0, 1, 0)]) == (0.5, 0.5)


def test_the_pair_of_judgements() -> None:
    assert judge_pair([0.1, 0.9, -1.0], [3.0, 4.0, 2.0], [9, 9, 9], 10) == (1, 2)
    assert judge_pair([0.1, 0.9, -1.0], [3.0, 2.0, 2.0], [9, 9, 9], 10) is None  # they say the same
    assert judge_pair([0.1, 0.9, -1.0], [3.0, 4.0, 2.0], [9, 11, 9], 10) is None  # the winner is too long
    assert judge_pair([0.1, 0.9, -1.0], [3.0, None, 2.0], [9, 9, 9], 10) is None
    assert judge_pair([1e-12, -1e-12], [3.0, 4.0], [9, 9], 10) is None
    assert judge_pair([], [], [], 10) is None


def test_how_scores_spread() -> None:
    assert score_entropy([5.0, 5.0]) == 0.0
    assert score_entropy([1.0, 2.0, 3.0, 4.0]) == 2.0
    assert score_entropy([]) == 0.0
    assert top_share([5.0, 5.0, 5.0, 1.0], 5.0) == 0.75
    assert top_share([], 5.0) == 0.0


# --- simulated judges ------------------------------------------------------------------------------------------------

PROMPTS, K, N = 300, 5, 5


def simulated(p: float, r: float, rho: float, seed: int = 0) -> tuple[float, float]:
    """Of pairs of answers that a judge of accuracy p and length bias r makes: the share whose chosen one is really
    better, and the mean of chosen minus rejected length.

    Each answer is good or poor; a verdict says 4 or 2 points, the true one with probability p, and up to one more the
    longer the answer is (times r).
    """
    draw = random.Random(seed)
    right, longer = [], []
    for _ in range(PROMPTS):
        good = [draw.random() < 0.5 for _ in range(K)]
        lengths = [draw.randint(1, 100) for _ in range(K)]
        scores = []
        for quality, length in zip(good, lengths, strict=True):
            verdicts = [
                f"Score: {(4 if quality == (draw.random() < p) else 2) + r * length / 100:.2f}" for _ in range(N)
            ]
            mean = judge_scores(verdicts).mean
            assert mean is not None
            scores.append(mean)
        pair = length_control_pair(scores, lengths, rho)
        if pair is not None:
            chosen, rejected = pair
            longer.append(lengths[chosen] - lengths[rejected])
            if good[chosen] != good[rejected]:
                right.append(good[chosen])
    return sum(right) / len(right), sum(longer) / len(longer)


def test_pairs_are_as_good_as_their_judge() -> None:
    accuracies = [simulated(p, 0.0, 0.0)[0] for p in (0.5, 0.6, 0.7, 0.8, 0.95)]
    assert accuracies == sorted(accuracies)
    assert abs(accuracies[0] - 0.5) < 0.1  # three standard errors and more
    assert accuracies[-1] > 0.98


def test_length_control_holds_against_a_judge_that_likes_length() -> None:
    for r in (0.3, 0.6, 1.0):
        assert simulated(0.7, r, 0.0)[1] > 5.0
        assert simulated(0.7, r, 0.4)[1] <= 0.0


def meta_judged(p: float, q: float, seed: int = 0) -> tuple[float, float]:
    """Of pairs of judgements: the share whose chosen one is nearer to the truth; and that share if the bias stays in.

    The meta-judge hears each pair in one order only, so its bias matters. With probability q it says A whatever they
    are, else it names the better one with probability p.
    """
    draw = random.Random(seed)
    sets = []
    for _ in range(PROMPTS):
        errors = [draw.random() for _ in range(4)]
        battles = []
        for m in range(4):
            for k in range(m + 1, 4):
                better = 1 if (errors[m] < errors[k]) == (draw.random() < p) else -1
                battles.append(Battle(m, k, 1 if draw.random() < q else better))
        sets.append((errors, battles))
    weights = position_weights([battle for _, battles in sets for battle in battles])

    def share(weights: tuple[float, float]) -> float:
        right = []
        for errors, battles in sets:
            pair = judge_pair(elo_mle(battle_matrix(4, battles, weights)), [1.0, 2.0, 3.0, 4.0], [1] * 4, 1)
            if pair is not None:
                right.append(errors[pair[0]] < errors[pair[1]])
        return sum(right) / len(right)

    return share(weights), share((0.5, 0.5))


def test_pairs_of_judgements_are_as_good_as_the_meta_judge() -> None:
    accuracies = [meta_judged(p, 0.2)[0] for p in (0.5, 0.7, 0.9, 1.0)]
    assert accuracies == sorted(accuracies)
    assert abs(accuracies[0] - 0.5) < 0.1
    assert accuracies[-1] > 0.9
    corrected, plain = meta_judged(0.9, 0.6)
    assert corrected > plain + 0.02
