"""The loader beside what a training step consumes: tokens a second from one shard, and from thousands.

The rows of a batch lie anywhere in the set, so of thousands of shards nearly every row opens one anew. "cold" forgets
the system's cached pages before each visit; then the disk of this machine is measured as much as the loader is.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pippin.bench.result import Result
from pippin.bench.train_systems import SIZES, our_step
from pippin.data.loader import Loader
from pippin.data.packing import SHARD_TOKENS, TokenWriter
from pippin.model.config import PRESETS
from pippin.training.chips import CHIPS
from pippin.training.estimate import Work, choose

AIM = 20.0
VOCAB = 49_152


@dataclass(frozen=True)
class Params:
    """Settings of the bench."""

    shards: int = 2_000
    shard_tokens: int = 65_536
    document_tokens: int = 700  # on average
    rows: int = 16  # of a batch
    repeats: int = 5  # visits of each system
    seconds: float = 2.0  # of each visit
    step_size: str = "1M"  # the model whose step consumes tokens here: the smallest consumes most
    folder: str = ""  # where the synthetic set is written, and left; a temporary folder by default


def run(params: Params = Params(), quick: bool = False) -> Result:
    """Write a synthetic set, then read it and train in turn.

    Args:
        quick: forty small shards and two short visits.
    """
    if quick:
        params = Params(shards=40, shard_tokens=4_096, repeats=2, seconds=0.1)
    with tempfile.TemporaryDirectory(prefix="pippin-loader-") as temporary:
        return _measure(params, Path(params.folder or temporary))


def _measure(params: Params, folder: Path) -> Result:
    result = Result("loader")
    many, one = folder / "many", folder / "one"
    written_s = write(many, params.shards * params.shard_tokens, params.shard_tokens, params.document_tokens)
    write(one, min(params.shards, 64) * params.shard_tokens, SHARD_TOKENS, params.document_tokens)
    name = f"{params.shards:,} shards"
    tokens = params.shards * params.shard_tokens
    result.row(name, "pippin", "written", tokens / written_s, "tokens/s")
    loaders: dict[tuple[str, str], Loader] = {}
    for case, directory in ((name, many), ("1 shard", one)):
        for seq_len in (256, 4_096):
            start = time.perf_counter()
            loaders[case, f"rows of {seq_len}"] = Loader(directory, {"web": 1.0}, "train", seq_len, params.rows, 0)
            if seq_len == 256:
                result.row(case, "pippin", "opened", time.perf_counter() - start, "s")
    rows = 2_048 // 256
    generator = torch.Generator().manual_seed(0)
    step = our_step(SIZES[params.step_size], torch.randint(0, 4_096, (rows, 256), generator=generator), "eager")
    step()
    rates: dict[tuple[str, str, str], list[float]] = {}
    consumed: list[float] = []
    at = 0
    for _ in range(params.repeats):
        for (case, what), loader in loaders.items():
            for state in ("cached", "cold") if case == name else ("cached",):
                if state == "cold" and not _forget(many):
                    continue
                rate, at = _visit(loader, at, params.seconds)
                rates.setdefault((case, f"pippin, {what}", state), []).append(rate)
        consumed.append(_rate(step, rows * 256, params.seconds))
    result.row("step", f"pippin eager, {params.step_size}", "tokens", *_spread(consumed))
    spec = PRESETS["afm-on-device"]
    planned = choose(Work(spec, 2_048, 4_096, 1, spec.train_flops_per_token(4_096)), 256, CHIPS["h100"])
    device = planned.work.tokens_per_step / planned.seconds.step / planned.plan.size
    result.row("step", "one of 256 H100, on-device model, as planned", "tokens", device, "tokens/s")
    for (case, system, state), found in rates.items():
        result.row(f"{case}, {state}", system, "tokens", *_spread(found))
    for (case, system, state), found in rates.items():
        if state == "cached":
            pairs = [rate / taken for rate, taken in zip(found, consumed, strict=True)]
            result.ratio(case, f"tokens, {system}", "training step here", statistics.median(pairs), ">=", AIM)
            if str(spec.max_seq_len) in system:
                result.ratio(case, f"tokens, {system}", "an H100's step", statistics.median(found) / device, ">=", AIM)
    return result


def write(directory: Path, tokens: int, shard_tokens: int, document_tokens: int) -> float:
    """Write a source `web` of random documents; returns the seconds that it took."""
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    with TokenWriter(directory, VOCAB, 1, shard_tokens) as writer:
        left = tokens
        while left > 0:
            text = rng.integers(2, VOCAB, int(rng.exponential(document_tokens)) + 2)
            writer.add("web", "train", text, 4 * len(text))
            left -= len(text) + 1
    return time.perf_counter() - start


def _visit(loader: Loader, at: int, seconds: float) -> tuple[float, int]:
    """Tokens a second over batches that nobody asked for before, and the step to go on from."""
    start = time.perf_counter()
    batches = 0
    while batches < 2 or time.perf_counter() - start < seconds:
        loader.batch(at + batches)
        batches += 1
    return batches * loader.tokens_per_step / (time.perf_counter() - start), at + batches


def _rate(step: Callable[[], float], tokens: int, seconds: float) -> float:
    start = time.perf_counter()
    steps = 0
    while steps < 2 or time.perf_counter() - start < seconds:
        step()
        steps += 1
    return steps * tokens / (time.perf_counter() - start)


def _forget(directory: Path) -> bool:
    """Ask the system to drop its cached pages of a set; whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in directory.glob("*.npy"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True


def _spread(rates: list[float]) -> tuple[float, str, float, float]:
    return statistics.median(rates), "tokens/s", min(rates), max(rates)
