"""Training speed: one step (forward, backward, optimizer) of ours beside transformers' Qwen3 of the same shape.

Same weights at the start, same tokens, same loss (next-token cross-entropy), float32 parameters and bfloat16 compute;
theirs under torch.autocast with fused AdamW, ours with the report's optimizer and, as an extra row, with fused AdamW.
All systems of a size are visited in turn within each repeat, so that a disturbed minute hits all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pippin.bench.result import Result
from pippin.errors import UserError
from pippin.interop.layouts import hf_name, to_hf_config
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Targets
from pippin.model.transformer import Transformer
from pippin.training.chips import matmul_flops_per_s
from pippin.training.optimizer import RMSPropMomentum, param_groups

SIZES = {
    "1M": ModelConfig(4096, 128, 4, n_heads=4, n_kv_heads=2, d_head=32, d_ff=336, max_seq_len=256),
    "10M": ModelConfig(8192, 320, 6, n_heads=10, n_kv_heads=5, d_head=32, d_ff=840, max_seq_len=256),
    "30M": ModelConfig(8192, 512, 8, n_heads=8, n_kv_heads=4, d_head=64, d_ff=1344, max_seq_len=256),
}
OURS, OURS_ADAMW, THEIRS = "pippin", "pippin, fused AdamW", "transformers"
AIMS = {"eager": 1.5, "compiled": 1.0}  # ours compiled over theirs


@dataclass(frozen=True)
class Params:
    """Settings of the bench."""

    sizes: str = "1M,10M,30M"
    seq_len: int = 256  # tokens in a row
    tokens_per_step: int = 2048
    repeats: int = 5  # visits of each system
    seconds: float = 3.0  # of each visit, at least two steps
    compiled: bool = True


@dataclass(frozen=True)
class _Visit:
    """Medians over the steps of one visit."""

    step_s: float
    cpu_s: float


def run(params: Params = Params(), quick: bool = False) -> Result:
    """Measure all sizes.

    Args:
        quick: the smallest size, two short visits, nothing compiled.
    Raises:
        UserError: an unknown size.
    """
    sizes = ["1M"] if quick else params.sizes.split(",")
    for size in sizes:
        if size not in SIZES:
            raise UserError(f"sizes: value {size!r}: unknown; choose from {', '.join(SIZES)}")
    if quick:
        params = Params(repeats=2, seconds=0.2, compiled=False)
    result = Result("train")
    for size in sizes:
        _measure(result, size, SIZES[size], params)
    return result


def _measure(result: Result, size: str, config: ModelConfig, params: Params) -> None:
    rows = params.tokens_per_step // params.seq_len
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(0, config.vocab_size, (rows, params.seq_len), generator=generator)
    modes = ["eager", "compiled"] if params.compiled else ["eager"]
    steps: dict[str, Callable[[], float]] = {}
    missing = ""
    for mode in modes:
        steps[f"{OURS} {mode}"] = _our_step(config, tokens_BT, mode, adamw=False)
    steps[f"{OURS_ADAMW} {modes[-1]}"] = _our_step(config, tokens_BT, modes[-1], adamw=True)
    try:
        for mode in modes:
            steps[f"{THEIRS} {mode}"] = _their_step(config, tokens_BT, mode)
    except ImportError:
        missing = "transformers is not installed: pippin[bench]"
    losses = {system: step() for system, step in steps.items()}  # compiles, and warms up
    if max(losses.values()) > 1.02 * min(losses.values()):
        raise RuntimeError(f"{size}: first losses differ, so the systems do not compute the same: {losses}")
    visits: dict[str, list[_Visit]] = {system: [] for system in steps}
    peaks = []
    for _ in range(params.repeats):
        peaks.append(matmul_flops_per_s())
        for system, step in steps.items():
            visits[system].append(_visit(step, params.seconds))
    torch.compiler.reset()

    result.row(size, "torch", "matmul bf16", statistics.median(peaks), "FLOP/s", min(peaks), max(peaks))
    flops = config.train_flops_per_token(params.seq_len)
    for system in steps:
        rates = [params.tokens_per_step / visit.step_s for visit in visits[system]]
        rate, low, high = statistics.median(rates), min(rates), max(rates)
        result.row(size, system, "tokens", rate, "tokens/s", low, high)
        result.row(size, system, "compute", rate * flops, "FLOP/s", low * flops, high * flops)
        peak = statistics.median(peaks)
        result.row(size, system, "share of matmul", rate * flops / peak, "1", low * flops / peak, high * flops / peak)
        cpu = [visit.cpu_s for visit in visits[system]]
        result.row(size, system, "processor time per step", statistics.median(cpu), "s", min(cpu), max(cpu))
    if missing:
        for mode in ("eager", "compiled"):
            result.row(size, f"{THEIRS} {mode}", "tokens", None, "tokens/s")
    for mode, aim in AIMS.items():
        versus, ours = f"{THEIRS} {mode}", f"{OURS} compiled"
        if versus not in visits or ours not in visits:
            reason = missing or "nothing was compiled in this run"
            result.ratio(size, "tokens, compiled", versus, None, ">=", aim, reason)
            continue
        pairs = zip(visits[versus], visits[ours], strict=True)
        value = statistics.median(their.step_s / our.step_s for their, our in pairs)
        reason = "" if value >= aim else "matrix products, which both systems share, dominate the step"
        result.ratio(size, "tokens, compiled", versus, value, ">=", aim, reason)


def _visit(step: Callable[[], float], seconds: float) -> _Visit:
    step()  # brings the weights back into the caches
    walls: list[float] = []
    cpus: list[float] = []
    while len(walls) < 2 or sum(walls) < seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return _Visit(statistics.median(walls), statistics.median(cpus))


def _our_step(config: ModelConfig, tokens_BT: torch.Tensor, mode: str, adamw: bool) -> Callable[[], float]:
    model = _fresh(config)
    forward = torch.compile(model) if mode == "compiled" else model
    optimizer: Any
    if adamw:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    else:
        optimizer = RMSPropMomentum(param_groups(model), lr=1e-4)
    targets_BT = torch.cat((tokens_BT[:, 1:], torch.full_like(tokens_BT[:, :1], -100)), dim=1)

    def step() -> float:
        loss = forward(tokens_BT, targets=Targets(targets_BT))
        mean = loss.total / loss.count
        mean.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(mean.detach())

    return step


def _their_step(config: ModelConfig, tokens_BT: torch.Tensor, mode: str) -> Callable[[], float]:
    import transformers

    shape = {name: value for name, value in to_hf_config(config).items() if name not in ("architectures", "model_type")}
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**shape)).train()
    ours = {hf_name(name): parameter for name, parameter in _fresh(config).named_parameters()}
    model.load_state_dict(ours, strict=False)
    forward = torch.compile(model) if mode == "compiled" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = forward(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _fresh(config: ModelConfig) -> Transformer:
    torch.manual_seed(0)
    return Transformer(config)
