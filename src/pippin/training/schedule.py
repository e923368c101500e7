"""Schedules: pure functions from the number of applied updates to a multiplier in [0, 1]."""

from __future__ import annotations

import math

from pippin.errors import UserError


def warmup_cosine(step: int, *, steps: int, warmup_steps: int, floor: float) -> float:
    """Linear warmup to 1, then half a cosine down to `floor` (report sections 3.2.1 and 3.2.2).

    Warmup is (step + 1) / warmup_steps: the first update has s(0) = 1 / warmup_steps and is not lost to a zero, and the
    last of the warmup, s(warmup_steps - 1), is 1. The cosine starts there (at step 0 without warmup) and ends with
    s(steps - 1) = floor exactly; later steps stay at `floor`.

    Args:
        step: updates applied so far, from 0 (skipped steps do not count).
        steps: updates of the whole stage.
        warmup_steps: how many of them are warmup. The report has 5000 (core) and 1000 (continued).
        floor: last multiplier as a fraction of the peak. The report has 0.005 (core) and 0.001 (continued).

    Raises:
        UserError: the numbers do not fit together.
    """
    if not 0 <= floor <= 1:
        raise UserError(f"floor: value {floor}: must lie between 0 and 1, it is a fraction of the peak")
    if steps < 1 or not 0 <= warmup_steps <= steps:
        raise UserError(f"warmup_steps: value {warmup_steps}: must lie between 0 and steps ({steps})")
    peak_step = max(warmup_steps - 1, 0)
    if step < peak_step:
        return (step + 1) / warmup_steps
    if step == peak_step:
        return 1.0
    if step >= steps - 1:
        return floor
    progress = (step - peak_step) / (steps - 1 - peak_step)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def constant(step: int, *, warmup_steps: int = 0) -> float:
    """The same linear warmup, then 1 for ever."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
