"""Accelerators by their public figures, and this machine's matrix product rate: yardsticks for plans and for MFU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Chip:
    """What its maker says about one accelerator.

    Attributes:
        flops_per_s: dense bfloat16 products.
        memory_bytes, memory_bytes_per_s: of its own memory.
        domain: how many chips the fast links join (a server of GPUs, a pod of TPUs).
        link_bytes_per_s: over the fast links, each way, for one chip.
        network_bytes_per_s: between domains, each way, for one chip.
        source: where the figures are published.
    """

    name: str
    flops_per_s: float
    memory_bytes: float
    memory_bytes_per_s: float
    domain: int
    link_bytes_per_s: float
    network_bytes_per_s: float
    source: str


_GIB = 2.0**30
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("a100", 312e12, 80e9, 2.039e12, 8, 300e9, 25e9, "NVIDIA A100 SXM 80GB and DGX A100 data sheets"),
        Chip("h100", 989e12, 80e9, 3.35e12, 8, 450e9, 50e9, "NVIDIA H100 SXM and DGX H100 data sheets"),
        Chip("h200", 989e12, 141e9, 4.8e12, 8, 450e9, 50e9, "NVIDIA H200 SXM and DGX H200 data sheets"),
        # The link rate is the pod's all-reduce bandwidth, 1.1 PB/s, for each chip; the network's is not published, and
        # v5p's stands in.
        Chip("tpu-v4", 275e12, 32 * _GIB, 1.2e12, 4096, 1.1e15 / 4096, 6.25e9, "Google Cloud, TPU v4 documentation"),
        Chip("tpu-v5p", 459e12, 95 * _GIB, 2.765e12, 8960, 600e9, 6.25e9, "Google Cloud, TPU v5p documentation"),
    )
}


@lru_cache
def peak_flops_per_s(device_type: str) -> float | None:
    """The rate that MFU is a share of.

    A CUDA device is looked up by its name, None if it is not in `CHIPS` (other forms of a chip, such as PCIe cards,
    have other rates). For a processor nobody publishes a figure, so its own rate is measured, once.
    """
    if device_type == "cpu":
        return matmul_flops_per_s()
    if device_type != "cuda":
        return None
    words = torch.cuda.get_device_name().lower().replace("-", " ").split()
    if {"pcie", "nvl"} & set(words):
        return None
    return next((chip.flops_per_s for name, chip in CHIPS.items() if name in words), None)


def matmul_flops_per_s(
    size: int | None = None, dtype: torch.dtype = torch.bfloat16, repeats: int = 5, device: torch.device | str = "cpu"
) -> float:
    """The best of `repeats` square products in FLOP/s: of 1,024 on a processor with its threads, of 8,192 elsewhere."""
    device = torch.device(device)
    size = size or (1_024 if device.type == "cpu" else 8_192)
    generator = torch.Generator().manual_seed(0)  # the caller's random numbers stay as they are
    a, b = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):  # the first warms up
        start = time.perf_counter()
        product = a @ b
        if device.type != "cpu":
            float(product[0, 0])  # waits for it
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
