"""The report's appendix A in miniature: its recipe against AdamW, each at the learning rate that suits it best.

Both are swept over as many learning rates with one seed; the best of each is then trained with all seeds. A sweep over
batch sizes at equal tokens follows (afm 4.14). The stages are those of the recipe `sweep`; finished ones are reused.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pippin import files
from pippin.bench.ablation import cut
from pippin.bench.result import Result
from pippin.errors import UserError
from pippin.evaluate.curves import best, picture
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.recipes import sweep as recipe
from pippin.recipes.sweep import NAMES, sweep

Optimizer = Literal["rmsprop", "adamw"]
Curve = dict[float, list[float]]


@dataclass(frozen=True)
class Params:
    """The rates of both sweeps (equally many), the batch sizes, how many seeds, where the runs are kept.

    `pictures` is a folder for lr_sweep.svg and batch_sweep.svg, if given.
    """

    rmsprop_lr: tuple[float, ...] = (2**-9, 2**-8, 2**-7, 2**-6, 2**-5)
    adamw_lr: tuple[float, ...] = (2**-10, 2**-9, 2**-8, 2**-7, 2**-6)
    batch_sizes: tuple[int, ...] = (4, 8, 16, 32)
    seeds: int = 3
    runs: str = "runs"
    pictures: str = ""
    sweep: recipe.Params = field(default_factory=lambda: recipe.PARAMS)


def run(p: Params = Params(), quick: bool = False) -> Result:
    """Sweep, choose, compare; about 6 minutes of one core.

    Args:
        quick: two rates, two batch sizes, one seed, 2 steps: shows that it runs.

    Raises:
        UserError: the sweeps differ in cost.
    """
    if len(p.rmsprop_lr) != len(p.adamw_lr):
        raise UserError("adamw_lr: give as many rates as rmsprop_lr, so that both sweeps cost the same")
    if quick:
        short = replace(p.sweep, train=replace(cut(p.sweep.train), batch_size=4))
        p = replace(p, rmsprop_lr=p.rmsprop_lr[:2], adamw_lr=p.adamw_lr[:2], batch_sizes=(2, 4), seeds=1, sweep=short)
    rates: dict[Optimizer, tuple[float, ...]] = {"rmsprop": p.rmsprop_lr, "adamw": p.adamw_lr}
    curves: dict[str, Curve] = {}
    result = Result("baseline")
    final: dict[str, list[float]] = {}
    for optimizer, values in rates.items():
        name = NAMES[optimizer]
        curve = curves[name] = _bits(p, replace(p.sweep, optimizer=optimizer, values=values, seeds=1))
        for rate, bits in curve.items():
            result.row("learning rate, one seed", name, f"held-out at lr 2^{_exponent(rate)}", bits[0], "bits/byte")
        chosen = best(curve)
        result.row("learning rate, one seed", name, "best learning rate", chosen, "1")
        if chosen in (min(curve), max(curve)):
            reason = "an optimum at the edge of the grid: the true one may lie beyond"
            result.row("learning rate, one seed", name, reason, chosen, "1")
        found = _bits(p, replace(p.sweep, optimizer=optimizer, values=(chosen,), seeds=p.seeds))[chosen]
        final[name] = found
        _row(result, "best learning rate, all seeds", name, "held-out bits per byte", found)
    ours, theirs = final[NAMES["rmsprop"]], final[NAMES["adamw"]]
    value = statistics.fmean(ours) / statistics.fmean(theirs)
    reason = "" if value <= 1.01 else "AdamW is ahead here; docs/ablations.md says by how much"
    result.ratio("best learning rate, all seeds", "mean bits per byte over that of", "AdamW", value, "<=", 1.01, reason)
    sizes = tuple(float(size) for size in p.batch_sizes)
    batches = _bits(p, replace(p.sweep, over="batch_size", values=sizes, seeds=1))
    for size, bits in batches.items():
        _row(result, "batch size at equal tokens", NAMES["rmsprop"], f"held-out at {size:g} rows", bits)
    if p.pictures:
        label = "held-out bits per byte"
        drawn = picture("learning rates", "peak learning rate", label, curves, lambda rate: f"2^{_exponent(rate)}")
        files.write_text(Path(p.pictures) / "lr_sweep.svg", drawn)
        drawn = picture("batch sizes", "rows of a step, at equal tokens", label, {NAMES["rmsprop"]: batches})
        files.write_text(Path(p.pictures) / "batch_sweep.svg", drawn)
    return result


def _bits(p: Params, params: recipe.Params) -> Curve:
    """Held-out bits per byte of a sweep, by value and seed."""
    graph = Graph(sweep(params), Path(p.runs), "sweep")
    graph.run(["table"], Screen())
    (curve,) = graph.record(graph.stages["table"])["results"]["bits_per_byte"].values()
    return {value: curve[f"{value:g}"] for value in params.values}


def _row(result: Result, case: str, system: str, metric: str, values: Sequence[float]) -> None:
    result.row(case, system, metric, statistics.fmean(values), "bits/byte", min(values), max(values))


def _exponent(rate: float) -> str:
    return f"{math.log2(rate):g}"
