"""From what a judge and a meta-judge say to pairs: Meta-Rewarding (Wu et al., arXiv:2407.19594), as pure functions.

K answers to a prompt have N judgements each. The mean scores and the lengths give a pair of answers; meta-judgements of
one answer's judgements, as a tournament, give a pair of judgements. Equations as that paper is summarised; where we
know the step only from memory of it, or chose it, the function says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pippin.data.judging import read_score

MAX_STEPS = 100
TINY = 1e-10  # a Newton step that is none
ALIKE = 1e-9  # strengths that differ by less were won by rounding


class Scores(NamedTuple):
    """What the judgements of one answer say; `of_each` has None for those that could not be read.

    Attributes:
        mean: S = mean of those that could be read; None if none could.
        variance: their variance (divided by how many they are); 0 without any.
    """

    of_each: list[float | None]
    mean: float | None
    variance: float


class Battle(NamedTuple):
    """A meta-judgement r of judgement `first`, shown as A, against `second`: 1 for A, -1 for B, 0 for a tie."""

    first: int
    second: int
    result: int


def judge_scores(verdicts: Sequence[str]) -> Scores:
    """The scores of one answer's judgements (`data.judging.read_score`); those that cannot be read are left out."""
    of_each = [read_score(verdict) for verdict in verdicts]
    read = [score for score in of_each if score is not None]
    if not read:
        return Scores(of_each, None, 0.0)
    mean = math.fsum(read) / len(read)
    return Scores(of_each, mean, math.fsum((score - mean) ** 2 for score in read) / len(read))


def length_control_pair(scores: Sequence[float], lengths: Sequence[int], rho: float) -> tuple[int, int] | None:
    """(chosen, rejected) among the answers to one prompt, None where all scores are equal.

    Chosen is the shortest answer with S in [(1 - rho) S_max + rho S_min, S_max], rejected the longest one with S in
    [S_min, (1 - rho) S_min + rho S_max] (that side is from memory of the paper). Of equally long ones it is the better
    and the worse; of equal scores too, the first (ours).

    Args:
        scores: S of each answer.
        lengths: of each answer, in any unit.
        rho: 0 (best against worst, whatever their length) or more; below 1/2, where the intervals meet.

    Raises:
        ValueError: rho is out of range, or no or another number of lengths.
    """
    if not 0 <= rho < 0.5:
        raise ValueError(f"rho {rho}: must be at least 0 and below 0.5")
    if not scores or len(scores) != len(lengths):
        raise ValueError(f"{len(scores)} scores and {len(lengths)} lengths: must be as many, and some")
    top, bottom = max(scores), min(scores)
    if top == bottom:
        return None
    margin = rho * (top - bottom)
    good = [i for i, score in enumerate(scores) if score >= top - margin]
    poor = [i for i, score in enumerate(scores) if score <= bottom + margin]
    return min(good, key=lambda i: (lengths[i], -scores[i])), min(poor, key=lambda i: (-lengths[i], scores[i]))


def position_weights(battles: Sequence[Battle]) -> tuple[float, float]:
    """(w1, w2) = (wins of B, wins of A) / all wins: what a win of A and of B counts, over all prompts.

    So both places win alike in total. Without a win both are 1/2.

    A judge whose odds for A over B are exp(e_A - e_B + q) has w = (sigmoid(-q), sigmoid(q)) on judgements of equal
    worth, and with these weights B_mn / B_nm = exp(e_m - e_n) exactly, in one order or in both.
    """
    first, second = (sum(battle.result == side for battle in battles) for side in (1, -1))
    wins = first + second
    return (second / wins, first / wins) if wins else (0.5, 0.5)


def battle_matrix(n: int, battles: Sequence[Battle], weights: tuple[float, float] = (0.5, 0.5)) -> list[list[float]]:
    """B_mn = w1 [r^mn = 1] + w2 [r^nm = -1], summed over the battles: how much judgement m won against n; [n][n].

    Args:
        n: how many judgements there are.
        battles: those among them; r^mn is the one that shows m as A.
        weights: `position_weights` of the whole set of prompts.

    Raises:
        ValueError: a battle of a judgement with itself or of one that is not there.
    """
    won = [[0.0] * n for _ in range(n)]
    for first, second, result in battles:
        if not (0 <= first < n and 0 <= second < n) or first == second:
            raise ValueError(f"battle {first} against {second}: must be two of {n}")
        if result == 1:
            won[first][second] += weights[0]
        elif result == -1:
            won[second][first] += weights[1]
    return won


def elo_mle(won: Sequence[Sequence[float]], ridge: float = 1e-3) -> list[float]:
    """Strengths e = argmax sum_mn B_mn log sigmoid(e_m - e_n) - ridge/2 sum e_m^2 (Bradley-Terry), by Newton steps.

    Their sum is 0. The ridge is ours: without it, the best one is infinitely strong where it won every battle. It moves
    well-fought strengths little: by about ridge / (battles of one).

    Args:
        won: B as `battle_matrix` gives it, [n][n], its diagonal unused.
        ridge: above 0.

    Raises:
        ValueError: B is not square, has a negative or infinite entry, or ridge is not above 0.
    """
    b_MM = np.array(won, dtype=np.float64)
    n = len(b_MM)
    if b_MM.shape != (n, n) or n == 0 or not np.isfinite(b_MM).all() or (b_MM < 0).any():
        raise ValueError("battles: must be a square matrix of finite numbers of at least 0")
    if not 0 < ridge < float("inf"):
        raise ValueError(f"ridge {ridge}: must be above 0 and finite")
    b_MM[np.diag_indices(n)] = 0.0
    fought_MM = b_MM + b_MM.T

    def value(e_M: npt.NDArray[np.float64]) -> float:
        margins_MM = e_M[:, None] - e_M
        return float((b_MM * -np.logaddexp(0.0, -margins_MM)).sum() - ridge / 2 * (e_M**2).sum())

    e_M = np.zeros(n)
    for _ in range(MAX_STEPS):
        p_MM = 0.5 * (1.0 + np.tanh((e_M[:, None] - e_M) / 2))  # the sigmoid, without overflow
        curvature_MM = fought_MM * p_MM * p_MM.T
        hessian_MM = np.diag(curvature_MM.sum(1) + ridge) - curvature_MM
        step_M = np.linalg.solve(hessian_MM, (b_MM - fought_MM * p_MM).sum(1) - ridge * e_M)
        if np.abs(step_M).max() < TINY:
            break
        while value(e_M + step_M) < value(e_M) and np.abs(step_M).max() > TINY:
            step_M /= 2
        e_M = e_M + step_M
    return [float(e) for e in e_M - e_M.mean()]


def judge_pair(
    strengths: Sequence[float], scores: Sequence[float | None], lengths: Sequence[int], longest: int
) -> tuple[int, int] | None:
    """(chosen, rejected) among the judgements of one answer: the strongest and the weakest.

    None where they are equally strong, give the same score, one has none, or the chosen one is longer than `longest`
    (a meta-judge likes long judgements). Of equally strong ones the first is taken (ours).
    """
    if not strengths:
        return None
    chosen, rejected = int(np.argmax(strengths)), int(np.argmin(strengths))
    if strengths[chosen] - strengths[rejected] < ALIKE or None in (scores[chosen], scores[rejected]):
        return None
    return None if scores[chosen] == scores[rejected] or lengths[chosen] > longest else (chosen, rejected)


def score_entropy(scores: Sequence[float]) -> float:
    """Entropy in bits of how often each score was given: 0 when all are the same."""
    _, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    shares = counts / max(1, counts.sum())
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def top_share(scores: Sequence[float], best: float) -> float:
    """The share of the scores that are the highest possible; 0 without any."""
    return sum(score == best for score in scores) / len(scores) if scores else 0.0


def auc(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """Chance that a right answer's score is above a wrong one's, ties counting half (Mann-Whitney); None without both.

    >>> auc([4.0, 5.0], [1.0, 4.0])
    0.875
    """
    if not right or not wrong:
        return None
    above = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    return above / (len(right) * len(wrong))
