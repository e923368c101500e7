"""What a training run should not do unseen: losses that are no numbers, or far above what was usual."""

from __future__ import annotations

import math

_WARM = 50  # losses before any is judged
_MEMORY = 0.98  # of the running mean and variance, per step
_DEVIATIONS = 6.0


class LossWatch:
    """Judges each step's loss by a running mean and standard deviation of those before it."""

    def __init__(self) -> None:
        self._seen = 0
        self._mean = 0.0
        self._variance = 0.0

    def see(self, loss: float) -> str | None:
        """What is wrong with this loss, in words; None if nothing is. A loss that is wrong does not move the mean."""
        if not math.isfinite(loss):
            return f"loss is {loss}"
        rise = loss - self._mean
        deviation = math.sqrt(self._variance)
        if self._seen >= _WARM and rise > _DEVIATIONS * deviation:
            return f"loss {loss:.4g} is a spike, usual is {self._mean:.4g} with a deviation of {deviation:.2g}"
        # The first ones count evenly.
        share = max(1 - _MEMORY, 1 / (self._seen + 1))
        self._mean += share * rise
        self._variance = (1 - share) * (self._variance + share * rise**2)
        self._seen += 1
        return None
