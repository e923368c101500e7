"""Speed of the engine and of llama.cpp on the same shapes with random weights, in one interleaved run.

The main figure is the share of the memory limit: bytes that a token reads times tokens a second, over a plain read of
memory that is measured before and after each system. Bytes are weights, tables and adapters, not the cache, which is
nearly empty. Every measurement is made in a process of its own, system after system, round after round.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pippin.bench import device_shape
from pippin.bench.device_models import random_plan, write_random_packed
from pippin.bench.device_shape import (
    BYTES,
    LIMIT,
    MAIN,
    PEER,
    PROFILES,
    SHAPES,
    THREADS,
    Shape,
    decode,
    over,
    prefill,
    share,
)
from pippin.bench.device_texts import TEXTS, Given, speculation, trained
from pippin.bench.result import Result, cores
from pippin.device.engine import read_bandwidth
from pippin.errors import UserError
from pippin.model.config import ModelConfig

QUICK = ModelConfig(512, 128, 2, n_heads=4, n_kv_heads=2, d_head=32, d_ff=256, max_seq_len=512)
SHARES = {"0.6B": 0.85, "3B": 0.95}
SPEEDUPS = {"0.6B": 1.5, "3B": 1.2}
_QUIET = 0.05  # of the processors, taken by other programs
PASS_ROWS = 13  # the engine checks at most twelve guesses at a time


@dataclass(frozen=True)
class Params:
    """What is measured.

    `runs` keeps models, llama.cpp's files and its environment: 2 GB for 0.6B, 7 GB for 1.7B, 14 GB for 3B. Decoding
    reads `read_gb` a sample. `texts` is speculative decoding, for which a small model is trained once (some minutes).
    """

    runs: str = "runs"
    shapes: tuple[str, ...] = tuple(SHAPES)
    bits: tuple[str, ...] = ("4.0", "3.7", "3.5", "2.0")
    prompts: tuple[int, ...] = (128, 512)
    rounds: int = 3
    read_gb: float = 8.0
    text_tokens: int = 128
    peers: bool = True
    texts: bool = True


def run(params: Params = Params(), quick: bool = False) -> Result:
    """Write the models that are missing, measure, compare.

    Args:
        quick: two tiny shapes at 3.7 bits, no peers, nothing trained: shows that it runs; the aims will fail.

    Raises:
        UserError: an unknown shape, or the engine is not built.
    """
    if unknown := set(params.shapes) - SHAPES.keys():
        raise UserError(f"shapes: value {sorted(unknown)}: choose from {', '.join(SHAPES)}")
    shapes = {name: SHAPES[name] for name in params.shapes}
    if quick:
        shapes = {"trial": QUICK}
        params = replace(params, bits=("3.7",), prompts=(16, 32), rounds=1, read_gb=1e-3, text_tokens=8, peers=False)
    if "3.7" not in params.bits:
        raise UserError(f"bits: value {params.bits}: 3.7 must be among them, the aims are about it")
    folder, runs = Path(params.runs) / "device", Path(params.runs)
    result = Result("device")
    limit_bytes = 1 << 20 if quick else device_shape.LIMIT_BYTES
    print(estimate(shapes, params, read_bandwidth(limit_bytes, THREADS[-1], 3)), file=sys.stderr)
    for name, config in shapes.items():
        start, busy = time.perf_counter(), others_s()
        shape = Shape(name, config, folder / name, runs, params.prompts, limit_bytes)
        shape.prepare(params.bits, params.peers)
        shape.rounds(params.rounds, params.read_gb * 1e9)
        shape.extras(params.rounds, shape.tokens(params.read_gb * 1e9))
        shape.rows(result)
        aims(result, shape)
        _pass_costs(result, shape)
        seconds = time.perf_counter() - start
        print(f"{name}: done in {seconds:.0f} s", file=sys.stderr)
        if busy is not None and (after := others_s()) is not None:
            taken = max(0.0, after - busy) / (seconds * cores())
            result.row(name, "machine", "processor time taken by other programs", taken, "1")
            if taken > _QUIET:
                print(f"{name}: other programs took {taken:.0%} of the processors; measure again", file=sys.stderr)
    _texts(result, params, quick)
    return result


def estimate(shapes: dict[str, ModelConfig], params: Params, bytes_per_s: float) -> str:
    """One line: how long it will take once all files are there."""
    systems = 4 * len(params.bits) + 5 * params.peers
    seconds = 0.0
    for config in shapes.values():
        sample = 2 + 3 * params.read_gb * 1e9 / bytes_per_s
        filled = np.array([device_shape.prefill_s(config, tokens) for tokens in params.prompts])
        often = np.where(filled > device_shape.ONCE_S, 1, params.rounds)
        seconds += params.rounds * (systems + 8) * sample + systems * float((filled * often).sum())
    minutes = f"about {seconds / 60:.0f} minutes once their files are there"
    return f"device: {systems} systems at {len(shapes)} shapes, {minutes}"


def others_s() -> float | None:
    """Seconds of processor time that other processes have used since the system started; None where nothing tells it.

    llama.cpp's threads wait for each other and fall far behind where a processor is shared, so a run on a busy machine
    flatters us.
    """
    found = Path("/proc/stat")
    if not found.is_file():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, found.read_text(encoding="ascii").split()[1:9])
    own = os.times()
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK") - (own.user + own.system + own.children_user + own.children_system)


def aims(result: Result, shape: Shape) -> None:
    """The aims of a shape; a missed one says what it was up against."""
    both = THREADS[-1]
    byte_ratio = over(shape.median(MAIN, BYTES), shape.median(PEER, BYTES))
    bytes_of = "not measured" if byte_ratio is None else f"{byte_ratio:.2f}"
    absent = shape.reasons.get(PEER, "")
    if shape.name in SHARES:
        reached = shape.median(MAIN, share(both))
        limit = shape.median(LIMIT, device_shape.plain_read(both)) or 0.0
        reason = f"{limit / 1e9:.1f} GB/s can be read here; {shape.profiled(MAIN, PROFILES[0])}"
        result.ratio(f"{shape.name} {MAIN}", share(both), "plain read", reached, ">=", SHARES[shape.name], reason)
    if shape.name in SPEEDUPS:
        faster = over(shape.median(MAIN, decode(both)), shape.median(PEER, decode(both)))
        metric = f"{decode(both)} (bytes a token: {bytes_of} of its)"
        reason = absent or f"it reaches {shape.median(PEER, share(both)) or 0:.2f} of the memory limit itself"
        result.ratio(f"{shape.name} {MAIN}", metric, PEER, faster, ">=", SPEEDUPS[shape.name], reason)
    for tokens in shape.prompts:
        ours, theirs = shape.median(MAIN, prefill(tokens)), shape.median(PEER, prefill(tokens))
        rates = [f"{_tera(shape, 1e3 / ms):.2f}" for ms in (ours, theirs) if ms]
        metric = f"{prefill(tokens)}, times faster (bytes: {bytes_of} of its)"
        profile = shape.profiled(MAIN, PROFILES[2])
        reason = absent or f"{' and '.join(rates)} tera-operations/s in the projections; {profile}"
        result.ratio(f"{shape.name} {MAIN}", metric, PEER, over(theirs, ours), ">=", 4.0, reason)
    for system, metric in device_shape.BATCHES:
        together = _tera(shape, shape.median(system, metric.removesuffix(" / one")) or 0.0)
        reason = f"{together:.2f} tera-operations/s in the projections; {shape.profiled('ours 3.7, fast', PROFILES[1])}"
        result.ratio(f"{shape.name} {system}", metric, "one sequence", shape.median(system, metric), ">=", 4.0, reason)
    beside = shape.median(MAIN, device_shape.BESIDE)
    result.ratio(f"{shape.name} {MAIN}", device_shape.BESIDE, "alone", beside, ">=", 0.5)


def _tera(shape: Shape, tokens_per_s: float) -> float:
    """Operations of the projections, in 1e12 a second."""
    return 2e-12 * shape.config.n_matmul_params() * tokens_per_s


def _pass_costs(result: Result, shape: Shape) -> None:
    """Rows for the time of a pass with 1, 2, ... rows, as when guesses are checked."""
    tasks = [{"do": "decode", "threads": THREADS[-1], "tokens": 2}]
    tasks.append({"do": "passes", "threads": THREADS[-1], "rows": PASS_ROWS, "repeats": 9})
    for rows, seconds in enumerate(shape.ask([], tasks)[1], start=1):
        result.row(shape.name, "ours 3.7, fast", f"pass of {rows} rows", 1e3 * seconds, "ms")


def _texts(result: Result, params: Params, quick: bool) -> None:
    if not params.texts:
        result.ratio("code edit", "speculative decoding", "none", None, ">=", 1.5, "texts=false")
        return
    with tempfile.TemporaryDirectory() as scratch:
        if quick:
            model = Path(scratch)
            write_random_packed(model, QUICK, random_plan(QUICK, 4.0))
            prompts = {name: list(asked[:99].encode()) for name, (asked, _) in TEXTS.items()}
            lengths = dict.fromkeys(prompts, params.text_tokens)
            models = [Given("trial", model, prompts, lengths, ("no", "lookup", "draft"), model)]
        else:
            models = trained(Path(params.runs), params.text_tokens)
        for number, given in enumerate(models):
            speculation(result, given, params.rounds, aim=number == 0)
