"""What every training step took, without a wait for the device: values on it are read late, and together."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pippin.training.chips import peak_flops_per_s

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


class Meter:
    """Times the parts of each step, and gives a row of metrics for each when asked.

    The loop marks what it waits for, closes every step, and logs the rows when it likes:

        meter = Meter(flops_per_token, device)
        for step in ...:
            with meter.data():
                batch = ...
            ...
            meter.step(step, tokens, loss.nll, loss.count, grad_norm=..., lr=...)
            with meter.checkpoint():  # belongs to the step that was just closed
                save(...)
            if step % log_every == 0:
                log_rows(meter.rows())

    Times are the host's. In a loop that waits for the device once a step (the optimizer does, to see whether the
    gradients are finite) they add up to the device's, a step's update being counted to the next step.

    Args:
        flops_per_token: FLOPs of one token's training step by the model's shape, recomputation not counted; 0: unknown.
        device: where it trains.
        group: processes whose `nll` and `count` belong to one batch; a row holds their sums' quotient and the longest
            wait of any of them. None: this process has the whole batch.
        devices: accelerators that share the batch; MFU is a share of the peak of all.
    """

    def __init__(
        self,
        flops_per_token: float,
        device: torch.device | str = "cpu",
        group: dist.ProcessGroup | None = None,
        devices: int = 1,
    ) -> None:
        self._flops_per_token = flops_per_token
        self._device = torch.device(device)
        self._group = group
        peak = peak_flops_per_s(self._device.type)
        self._peak = None if peak is None or not flops_per_token else peak * devices
        self._rows: list[dict[str, Any]] = []
        self._sums: list[Tensor] = []
        self._waits = {"data_wait_s": 0.0, "aside_s": 0.0}
        self._closed_s = time.perf_counter()

    def data(self) -> Any:
        """Around the making of a batch: what it takes is the step's `data_wait_s`."""
        return self._span("data_wait_s")

    def aside(self) -> Any:
        """Around work that is no part of training, such as held-out looks: left out of every time."""
        return self._span("aside_s")

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """Around a save after `step`: what it takes is that step's `checkpoint_stall_s`, and part of its time."""
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            self._closed_s += taken  # it is no part of the next step
            if self._rows:
                self._rows[-1]["checkpoint_stall_s"] += taken
                self._rows[-1]["step_s"] += taken

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._waits[name] += time.perf_counter() - start

    def step(self, step: int, tokens: int, nll: Tensor, count: Tensor, **values: float) -> None:
        """Close a step.

        Args:
            step: its number.
            tokens: of the whole batch, over all processes.
            nll, count: this process's sum of losses and counted positions, scalars; they are not read now.
            values: more to put into the row, already on the host.
        """
        now = time.perf_counter()
        self._sums.append(torch.stack((nll.detach().double(), count.double())))
        self._rows.append(
            {
                "step": step,
                "tokens": tokens,
                **values,
                "step_s": now - self._closed_s - self._waits["aside_s"],
                "data_wait_s": self._waits["data_wait_s"],
                "checkpoint_stall_s": 0.0,
                "memory_bytes": _memory_bytes(self._device),
            }
        )
        self._waits = dict.fromkeys(self._waits, 0.0)
        self._closed_s = now

    def rows(self) -> list[dict[str, float]]:
        """The closed steps since the last call: reads the device once, and asks the other processes once.

        Each row has step, loss (nats per counted token), what `step` was given, step_s, tokens_per_s, mfu (left out
        where FLOPs or peak are not known), data_wait_s, checkpoint_stall_s and memory_bytes: on an accelerator the most
        that was allocated since the step before, on a processor what this process has resident.
        """
        if not self._rows:
            return []
        sums = torch.stack(self._sums)
        waits = torch.tensor([[row["data_wait_s"], row["checkpoint_stall_s"]] for row in self._rows]).to(self._device)
        if self._group is not None:
            dist.all_reduce(sums, group=self._group)
            dist.all_reduce(waits, op=dist.ReduceOp.MAX, group=self._group)
        rows = []
        for row, (nll, count), (data_s, stall_s) in zip(self._rows, sums.tolist(), waits.tolist(), strict=True):
            rate = row.pop("tokens") / row["step_s"]
            clock = {"tokens_per_s": rate, "step_s": row["step_s"], "data_wait_s": data_s}
            clock["checkpoint_stall_s"] = stall_s
            if self._peak is not None:
                clock["mfu"] = rate * self._flops_per_token / self._peak
            clock = {key: float(f"{value:.5g}") for key, value in clock.items()}  # no clock is better than that
            rows.append({"step": row.pop("step"), "loss": nll / max(count, 1.0)} | row | clock)
        self._rows, self._sums = [], []
        return rows


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:  # not Linux: the most there ever was
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
