"""This machine's matrix product rate: the yardstick for estimates and for shares of the peak."""

from __future__ import annotations

import time

import torch


def matmul_flops_per_s(size: int = 1024, dtype: torch.dtype = torch.bfloat16, repeats: int = 5) -> float:
    """The best of `repeats` square products of `size`, in FLOP/s, with the threads that torch uses now."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    a @ b
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
