"""Schedules: both ends, the joint, and what lies between."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin.errors import UserError
from pippin.training.schedule import constant, warmup_cosine


def test_values_by_hand() -> None:
    s = [warmup_cosine(step, steps=9, warmup_steps=5, floor=0.2) for step in range(12)]
    half = [0.2 + 0.8 * 0.5 * (1 + c) for c in (math.sqrt(0.5), 0.0, -math.sqrt(0.5))]
    assert s == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, *half, 0.2, 0.2, 0.2, 0.2], abs=1e-12)


def test_report_core_schedule() -> None:
    def s(step: int) -> float:
        return warmup_cosine(step, steps=375_500, warmup_steps=5000, floor=0.005)

    assert s(0) == 1 / 5000
    assert s(4998) == 4999 / 5000
    assert s(4999) == 1.0
    assert s(375_499) == 0.005
    assert s(375_498) > 0.005


def test_without_warmup_starts_at_the_peak() -> None:
    assert warmup_cosine(0, steps=10, warmup_steps=0, floor=0.1) == 1.0
    assert warmup_cosine(9, steps=10, warmup_steps=0, floor=0.1) == 0.1


def test_all_warmup_ends_at_the_peak() -> None:
    assert [warmup_cosine(i, steps=2, warmup_steps=2, floor=0.0) for i in range(3)] == [0.5, 1.0, 0.0]
    assert warmup_cosine(0, steps=1, warmup_steps=1, floor=0.0) == 1.0


@given(st.integers(1, 300), st.data(), st.floats(0, 1))
def test_rises_then_falls_within_bounds(steps: int, data: st.DataObject, floor: float) -> None:
    warmup = data.draw(st.integers(0, steps))
    s = [warmup_cosine(i, steps=steps, warmup_steps=warmup, floor=floor) for i in range(steps)]
    peak = max(warmup - 1, 0)
    assert s[peak] == 1.0
    assert all(a < b for a, b in zip(s[: peak + 1], s[1 : peak + 1], strict=False))
    assert all(a >= b >= floor - 1e-12 for a, b in zip(s[peak:], s[peak + 1 :], strict=False))
    assert steps == 1 or steps == warmup or s[-1] == floor


def test_constant() -> None:
    assert constant(0) == constant(10**6) == 1.0
    assert [constant(i, warmup_steps=4) for i in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("steps", "warmup", "floor"), [(10, 11, 0.1), (0, 0, 0.1), (10, -1, 0.1), (10, 2, 1.5), (10, 2, -0.1)]
)
def test_impossible_numbers_are_one_clear_line(steps: int, warmup: int, floor: float) -> None:
    with pytest.raises(UserError, match=r"^(warmup_steps|floor): value .*: must lie between [^\n]*$"):
        warmup_cosine(0, steps=steps, warmup_steps=warmup, floor=floor)
