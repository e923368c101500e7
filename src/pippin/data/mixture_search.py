"""Mixture weights as an optimisation (afm 6.2): each weight up and down by delta, and what the scores say of it.

The report trains with w_i + delta and w_i - delta, keeps what helps and drops components of low impact; it gives no
delta, number of seeds or rule for noise. Those here are ours.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pippin.errors import UserError

HELPS = 2.0  # standard errors above the base from which a change helps
HARMLESS = 1.0  # standard errors below the base down to which a change does no harm
BASE = "base"
_NOTHING = 1e-12  # a share that rounding left

Scores = Mapping[str, Sequence[float]]


class Trial(NamedTuple):
    """One changed weight: `change` is +delta, -delta, or minus the whole weight where that is less than delta."""

    component: str
    change: float
    weights: dict[str, float]

    @property
    def name(self) -> str:
        """As tables have it: "chat +0.05"."""
        return f"{self.component} {self.change:+g}"


class Finding(NamedTuple):
    """What a trial's mean score is above the base's, and what follows: "helps", "drop" or ""."""

    effect: float
    verdict: str


def trials(weights: Mapping[str, float], delta: float) -> list[Trial]:
    """Two trials for each component, of shares that sum to 1: the other components share the change by their weights.

    Raises:
        UserError: fewer than two components, or a delta that is not above 0 and small enough.
    """
    shares = _normalised(weights)
    if len(shares) < 2:
        raise UserError(f"mixture: {', '.join(shares) or 'nothing'}: one component has nothing to be weighed against")
    if not delta > 0 or max(shares.values()) + delta >= 1:
        raise UserError(f"delta: value {delta}: must be above 0 and leave the other components a share")
    return [
        Trial(name, change, _changed(shares, name, change))
        for name, share in shares.items()
        for change in (delta, -min(delta, share))
    ]


def noise(scores: Scores) -> float:
    """Standard deviation of a run's score, from what mixtures and seeds do not explain (two-way layout).

    Args:
        scores: of each mixture, one a seed, in the same order of seeds; at least two of both.

    Raises:
        UserError: a score that is not a number, or too few.
    """
    rows = list(scores.values())
    n = len(rows[0])
    for name, row in scores.items():
        if len(row) != n or not all(map(math.isfinite, row)):
            raise UserError(f"scores of {name!r}: {list(row)}: need {n} numbers, one a seed, as the others have")
    if n < 2 or len(rows) < 2:
        raise UserError(f"seeds: value {n}: {len(rows)} mixtures: at least two of both, else noise cannot be told")
    overall = statistics.fmean(value for row in rows for value in row)
    seeds = [statistics.fmean(row[seed] for row in rows) - overall for seed in range(n)]
    rest = sum((row[s] - statistics.fmean(row) - seeds[s]) ** 2 for row in rows for s in range(n))
    return math.sqrt(rest / ((len(rows) - 1) * (n - 1)))


def decide(made: Sequence[Trial], scores: Scores) -> tuple[dict[str, Finding], float]:
    """What each trial (by name) shows against the base, and the standard error of such a difference.

    A trial helps if it is `HELPS` standard errors above the base. A component is dropped if its whole weight was taken
    in a trial that ended no more than `HARMLESS` standard errors below the base, and more of it does not help.

    Args:
        scores: of the base and of each trial, one a seed; more is better.
    """
    error = noise(scores) * math.sqrt(2 / len(scores[BASE]))
    base = statistics.fmean(scores[BASE])
    effects = {trial.name: statistics.fmean(scores[trial.name]) - base for trial in made}
    helped = {trial.component for trial in made if trial.change > 0 and effects[trial.name] > HELPS * error}
    found = {}
    for trial in made:
        effect, verdict = effects[trial.name], ""
        if effect > HELPS * error:
            verdict = "helps"
        elif trial.component not in trial.weights and trial.component not in helped and effect >= -HARMLESS * error:
            verdict = "drop"
        found[trial.name] = Finding(effect, verdict)
    return found, error


def candidate(weights: Mapping[str, float], made: Sequence[Trial], found: Mapping[str, Finding]) -> dict[str, float]:
    """The shares with every change that helps (of two of one component the better), and without what is dropped.

    They are scaled to sum to 1. Where all would be dropped, the one whose loss costs most stays.
    """
    changes: dict[str, float] = {}
    for trial in sorted(made, key=lambda trial: found[trial.name].effect, reverse=True):
        if found[trial.name].verdict:
            changes.setdefault(trial.component, trial.change)
    moved = {name: share + changes.get(name, 0.0) for name, share in _normalised(weights).items()}
    if all(share <= _NOTHING for share in moved.values()):
        last = list(changes)[-1]
        moved[last] -= changes[last]
    return _normalised(moved)


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    """Shares of 1; components without any are left out."""
    kept = {name: weight for name, weight in weights.items() if weight > _NOTHING}
    total = math.fsum(kept.values())
    return {name: weight / total for name, weight in kept.items()}


def _changed(shares: Mapping[str, float], component: str, change: float) -> dict[str, float]:
    """Shares with one of them changed, the others scaled to sum to 1 with it."""
    own = shares[component] + change
    scale = (1 - own) / (1 - shares[component])
    return _normalised({name: own if name == component else share * scale for name, share in shares.items()})
