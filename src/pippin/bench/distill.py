"""What distillation costs: training steps without a teacher, with one that is asked, with its labels read from disk.

A step is what the training loop does: the loader's batch, forward, backward, optimizer; the same student and tokens in
all three. The teacher has the student's shape with an FFN three times as wide, as in the report (afm 4.25). What the
labels say does not change the speed, so they are random. All systems are visited in turn within each repeat. The shares
are of processor time, which other programs on the machine disturb less than the clock; tokens/s are by the clock.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pippin.bench.result import Result
from pippin.bench.train import SIZES
from pippin.data.loader import Batch, Loader
from pippin.data.packing import TokenWriter
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Loss
from pippin.model.transformer import Transformer
from pippin.stages.distill import distillation_loss
from pippin.stages.training import next_token_loss
from pippin.training.optimizer import RMSPropMomentum, param_groups

PLAIN, ONLINE, READ = "plain", "teacher asked", "labels read"
SOURCE, EOS, DOCUMENTS, LENGTH = "text", 1, 400, 500
Step = Callable[[int], None]


@dataclass(frozen=True)
class Params:
    """Sizes of `pippin bench train`, and how often and for how much processor time each system is visited."""

    sizes: str = "1M,10M"
    seq_len: int = 256
    batch_size: int = 8
    repeats: int = 9
    seconds: float = 1.0


def run(params: Params = Params(), quick: bool = False) -> Result:
    """Measure all sizes.

    Args:
        quick: the smallest size, two short visits.
    """
    if quick:
        params = Params(sizes="1M", batch_size=2, repeats=2, seconds=0.1)
    for size in params.sizes.split(","):
        if size not in SIZES:
            raise UserError(f"sizes: value {size!r}: unknown; choose from {', '.join(SIZES)}")
    result = Result("distill")
    for size in params.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            _measure(result, size, SIZES[size], params, Path(folder))
    return result


def _measure(result: Result, size: str, config: ModelConfig, params: Params, folder: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("tokens", "labels"):
        with TokenWriter(folder / kind, config.vocab_size, EOS) as writer:
            for _ in range(DOCUMENTS):
                ids = rng.integers(2, config.vocab_size, LENGTH)
                writer.add(
                    SOURCE, "train", ids[:-1].tolist(), LENGTH, end_id=int(ids[-1]) if kind == "labels" else None
                )
    torch.manual_seed(0)
    teacher = Transformer(replace(config, d_ff=3 * config.d_ff)).requires_grad_(False)
    steps = {
        PLAIN: _step(config, params, folder, None, labels=False),
        ONLINE: _step(config, params, folder, teacher, labels=False),
        READ: _step(config, params, folder, None, labels=True),
    }
    rates: dict[str, list[float]] = {system: [] for system in steps}
    cpu: dict[str, list[float]] = {system: [] for system in steps}  # tokens per second of processor time
    done = dict.fromkeys(steps, 0)
    for system, step in steps.items():
        step(0)  # warms up
        done[system] += 1
    for _ in range(params.repeats):
        for system, step in steps.items():
            step(done[system])  # brings the weights back into the caches
            first, start, start_cpu = done[system] + 1, time.perf_counter(), time.process_time()
            done[system] = first
            while done[system] == first or time.process_time() - start_cpu < params.seconds:
                step(done[system])
                done[system] += 1
            tokens = (done[system] - first) * params.batch_size * params.seq_len
            rates[system].append(tokens / (time.perf_counter() - start))
            cpu[system].append(tokens / (time.process_time() - start_cpu))
    for system, values in rates.items():
        result.row(size, system, "tokens", statistics.median(values), "tokens/s", min(values), max(values))
    for system in (READ, ONLINE):
        shares = [ours / plain for ours, plain in zip(cpu[system], cpu[PLAIN], strict=True)]
        share, low, high = statistics.median(shares), min(shares), max(shares)
        result.row(size, system, f"share of the speed of {PLAIN}", share, "1", low, high)
        if system == READ:
            result.ratio(size, "tokens per processor time, labels read", PLAIN, share, ">=", 0.85)


def _step(config: ModelConfig, params: Params, folder: Path, teacher: Transformer | None, labels: bool) -> Step:
    torch.manual_seed(1)
    student = Transformer(config)
    optimizer = RMSPropMomentum(param_groups(student), lr=1e-4)
    read = folder / "labels" if labels else None
    loader = Loader(folder / "tokens", {SOURCE: 1.0}, "train", params.seq_len, params.batch_size, 0, labels=read)
    loss_of: Callable[[Batch, int], Loss] = partial(next_token_loss, student, 1e-6)
    if labels or teacher is not None:
        loss_of = partial(distillation_loss, student, teacher, 0.9, 1e-6)

    def step(number: int) -> None:
        loss = loss_of(loader.batch(number), number)
        (loss.total / loss.count).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
