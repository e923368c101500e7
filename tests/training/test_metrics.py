"""A row for every step: sums over sums, waits where they belong, and no look at the device before it is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pippin.training import metrics
from pippin.training.metrics import Meter


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    monkeypatch.setattr(metrics, "peak_flops_per_s", lambda kind: 1_000.0)
    return clock


def sums(nll: float, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(nll), torch.tensor(count)


def test_each_second_is_in_its_place(clock: Clock) -> None:
    meter = Meter(flops_per_token=5.0, devices=4)
    with meter.data():
        clock.now += 1
    clock.now += 3
    meter.step(7, 80, *sums(30.0, 20), grad_norm=2.0, lr=0.1)
    with meter.checkpoint():
        clock.now += 6
    with meter.aside():  # a held-out look counts nowhere
        clock.now += 50
    with meter.data():
        clock.now += 0.5
    clock.now += 1.5
    meter.step(8, 80, *sums(10.0, 20), grad_norm=1.0, lr=0.2)
    first, second = meter.rows()
    assert first.pop("memory_bytes") > 10_000_000
    assert second.pop("memory_bytes") > 10_000_000
    # 80 tokens of 5 FLOPs in 10 s on four chips of 1,000 FLOP/s
    assert first == {
        "step": 7, "loss": 1.5, "grad_norm": 2.0, "lr": 0.1, "step_s": 10.0, "tokens_per_s": 8.0, "mfu": 0.01,
        "data_wait_s": 1.0, "checkpoint_stall_s": 6.0,
    }  # fmt: skip
    assert second == {
        "step": 8, "loss": 0.5, "grad_norm": 1.0, "lr": 0.2, "step_s": 2.0, "tokens_per_s": 40.0, "mfu": 0.05,
        "data_wait_s": 0.5, "checkpoint_stall_s": 0.0,
    }  # fmt: skip
    assert meter.rows() == []


@pytest.mark.parametrize(("flops", "peak"), [(5.0, None), (0.0, 1_000.0)])
def test_unknown_flops_or_peak_give_no_mfu(
    flops: float, peak: float | None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "peak_flops_per_s", lambda kind: peak)
    meter = Meter(flops)
    clock.now += 1
    meter.step(0, 8, *sums(1.0, 0))
    (row,) = meter.rows()
    assert "mfu" not in row
    assert row["loss"] == 1.0  # no counted token: the sum, not a division by zero


def test_no_value_is_read_before_rows_are_asked_for(clock: Clock) -> None:
    """Tensors that refuse to be read stand for a device that would have to be waited for."""

    class Late(torch.Tensor):
        readable = False

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.__name__ in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy"):
                assert cls.readable, f"read by {func.__name__}"
            return super().__torch_function__(func, types, args, kwargs or {})

    meter = Meter(1.0)
    for step in range(3):
        clock.now += 1
        meter.step(step, 1, torch.tensor(3.0 * step).as_subclass(Late), torch.tensor(3).as_subclass(Late))
    with pytest.raises(AssertionError, match="read by tolist"):
        meter.rows()
    Late.readable = True
    assert [row["loss"] for row in meter.rows()] == [0.0, 1.0, 2.0]
