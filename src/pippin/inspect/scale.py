"""`pippin show RECIPE --devices N`: each training stage on a cluster that nobody needs to have."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.pipeline import Graph
from pippin.stages.adapter import Adapter
from pippin.stages.distill import Distill
from pippin.stages.training import TrainingStage
from pippin.training.chips import CHIPS, Chip
from pippin.training.estimate import MATMUL_SHARE, USABLE, Estimate, Work, choose, estimate, remedies
from pippin.training.plan import AXES, Plan

REPORT_MFU = 0.52
"""What the report's server run sustained on 8,192 TPU v4 (afm 4.33)."""
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2.0**10, "MI": 2.0**20, "GI": 2.0**30, "TI": 2.0**40}


def parse_bytes(text: str) -> float:
    """Bytes from "80GB", "32GiB" or "24G".

    Raises:
        UserError: not such a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", text, re.IGNORECASE)
    if found is None or not float(found[1]):
        raise UserError(f"--memory: value {text!r}: write a size such as 80GB or 32GiB")
    return float(found[1]) * _UNITS[(found[2] or "").upper()]


def training_work(stage: TrainingStage) -> Work:
    """A stage as the numbers that an estimate needs; its FLOPs are those of its cost, teachers and all."""
    spec, trained = stage.train, None
    frozen: tuple[ModelConfig, ...] = ()
    if isinstance(stage, Distill) and stage.labels is None:
        frozen = (stage.teacher_model,)
    if isinstance(stage, Adapter):
        m = stage.model
        heads, keys = m.n_heads * m.d_head, m.n_kv_heads * m.d_head
        widths = 2 * (m.d_model + heads) + 2 * (m.d_model + keys) + 3 * (m.d_model + m.d_ff)
        trained = m.n_layers * stage.rank * widths
        frozen = (m,) if stage.teacher is not None else ()
    flops = stage.cost().flops / spec.tokens
    return Work(stage.model, spec.batch_size, spec.seq_len, spec.steps, flops, trained, frozen, spec.dtype.itemsize)


def at_scale(
    graph: Graph, devices: int, chip: Chip, limit: float | None, line: str | None
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Estimates of the training stages of a recipe by name, and why others cannot be spread so.

    Args:
        limit: bytes of a device; None: the chip's.
        line: the plan of all stages; None: for each the fastest that fits.

    Raises:
        UserError: the plan is for another number of devices or divides no stage; nothing is trained.
    """
    usable = None if limit is None else USABLE * limit
    plan = None if line is None else Plan.parse(line, devices)
    found, refused = {}, {}
    for name in graph.order():
        stage = graph.stages[name]
        if not isinstance(stage, TrainingStage):
            continue
        work = training_work(stage)
        try:
            found[name] = choose(work, devices, chip, usable) if plan is None else estimate(work, plan, chip, usable)
        except UserError as error:
            refused[name] = str(error)
    if not found:
        name, why = next(iter(refused.items()), ("", "it trains nothing"))
        raise UserError(f"stage {name}: {why}" if name else f"recipe {graph.recipe}: {why}")
    return found, refused


def describe_scale(found: dict[str, Estimate], refused: dict[str, str]) -> dict[str, Any]:
    """The JSON form: bytes of one device, bytes that it receives in a step, seconds of a step, days of the stage."""
    any_one = next(iter(found.values()))
    chip = any_one.chip
    return {
        "devices": any_one.plan.size,
        "chip": vars(chip),
        "usable_bytes": any_one.limit,
        "assumed": {"matmul_share": MATMUL_SHARE},
        "stages": [_stage(name, each) for name, each in found.items()],
        "refused": refused,
        "days": sum(each.days for each in found.values()),
    }


def _stage(name: str, each: Estimate) -> dict[str, Any]:
    work, memory = each.work, each.memory
    whole = work.flops_per_token * work.tokens_per_step
    at_report = whole / (each.plan.size * each.chip.flops_per_s * REPORT_MFU)
    return {
        "stage": name,
        "parameters": work.model.n_params().total,
        "trained_parameters": work.model.n_params().total if work.trained is None else work.trained,
        "steps": work.steps,
        "tokens_per_step": work.tokens_per_step,
        "tokens": work.tokens_per_step * work.steps,
        "flops": whole * work.steps,
        "plan": str(each.plan) or "fsdp=1",
        "memory_bytes": vars(memory) | {"total": memory.total},
        "fits": each.fits,
        "would_fit": [] if each.fits else [{"change": text, "bytes": now.memory.total} for text, now in remedies(each)],
        "received_bytes_per_step": each.exchanged,
        "predicted": {
            "step_s": each.seconds.step,
            "computed_s": each.seconds.computed,
            "hidden_exchange_s": each.seconds.hidden,
            "exposed_exchange_s": each.seconds.exposed,
            "mfu": each.mfu,
            "days": each.days,
        },
        "at_report_mfu": {"mfu": REPORT_MFU, "step_s": at_report, "days": at_report * work.steps / 86_400},
    }


def print_scale(recipe: str, found: dict[str, Estimate], refused: dict[str, str], console: Console) -> None:
    """Two tables: what each stage takes of a device, and what it takes in time; then what does not fit, and why."""
    any_one = next(iter(found.values()))
    chip = any_one.chip
    console.print(
        f"recipe {escape(recipe)} on {any_one.plan.size:,} x {chip.name}: {chip.flops_per_s / 1e12:.0f} TFLOP/s, "
        f"{any_one.limit / 1e9:.1f} GB usable, {chip.memory_bytes_per_s / 1e12:.2f} TB/s, {chip.domain:,} joined at "
        f"{chip.link_bytes_per_s / 1e9:.0f} GB/s, beyond {chip.network_bytes_per_s / 1e9:.3g} GB/s ({chip.source})",
        soft_wrap=True,
    )
    table = _table("GB of a device at the worst moment", "stage", "plan")
    for column in ("weights", "gradients", "optimizer", "activations", "working", "total", "fits"):
        table.add_column(column, justify="right")
    for name, each in found.items():
        sizes = (*vars(each.memory).values(), each.memory.total)
        row = (f"{size / 1e9:.2f}" for size in sizes)
        table.add_row(escape(name), str(each.plan) or "fsdp=1", *row, "yes" if each.fits else "no")
    console.print(table)
    table = _table("steps, and what a device receives in one", "stage")
    for column in ("parameters", "tokens", "steps", "step", "MFU", "days", f"at {REPORT_MFU:.0%}", *AXES):
        table.add_column(column, justify="right")
    for name, each in found.items():
        work = each.work
        tokens = work.tokens_per_step * work.steps
        received = (f"{each.exchanged[axis] / 1e9:.1f} GB" if each.exchanged[axis] else "" for axis in AXES)
        table.add_row(
            escape(name),
            f"{work.model.n_params().total / 1e9:.2f}B",
            f"{tokens / 1e12:.3g}T" if tokens >= 1e12 else f"{tokens / 1e9:.3g}B",
            f"{work.steps:,}",
            f"{each.seconds.step:.3g} s",
            f"{each.mfu:.0%}",
            f"{each.days:.3g}",
            f"{each.days * each.mfu / REPORT_MFU:.3g}",
            *received,
        )
    console.print(table)
    days = sum(each.days for each in found.values())
    console.print(
        f"{days:.3g} days together. Products are taken to reach {MATMUL_SHARE:.0%} of the peak, exchanges behind "
        "computing to cost nothing: no latency, no straggler, no failure is in it. The report's run sustained "
        f"{REPORT_MFU:.0%} of 8,192 TPU v4; the column of that name has the days at that rate.",
        soft_wrap=True,
    )
    for name, each in found.items():
        if not each.fits:
            console.print(_why_not(name, each), soft_wrap=True)
    for name, why in refused.items():
        console.print(f"{escape(name)} cannot be spread so: {escape(why)}", soft_wrap=True)


def _table(title: str, *left: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in left:
        table.add_column(column)
    return table


def _why_not(name: str, each: Estimate) -> str:
    needs = f"{escape(name)} does not fit: {each.memory.total / 1e9:.1f} GB of {each.limit / 1e9:.1f} GB usable."
    ways = [f"{text} ({now.memory.total / 1e9:.1f} GB)" for text, now in remedies(each)[:4]]
    if ways:
        return f"{needs} It would with {', or '.join(ways)}."
    other = choose(each.work, each.plan.size, each.chip, each.limit)
    if other.fits:
        return f"{needs} No single change helps; this does: {other.plan} ({other.memory.total / 1e9:.1f} GB)."
    return f"{needs} No plan does on {each.plan.size:,} devices: take more, or devices with more memory."


def chip_named(name: str) -> Chip:
    """A chip of the table.

    Raises:
        UserError: it is not there.
    """
    if name not in CHIPS:
        raise UserError(f"--chip: value {name!r}: unknown; choose from {', '.join(CHIPS)}")
    return CHIPS[name]
