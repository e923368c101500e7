"""The report's appendix B in miniature: what pruning and distillation are each worth, at equal student tokens.

The stages are those of the recipe `ablation`; finished ones are reused.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from pippin.bench.result import Result
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.recipes import ablation as recipe
from pippin.recipes.ablation import ARMS, ablation
from pippin.training.loop import TrainSpec

PAIRS = (
    ("pruned only", "from scratch"),
    ("distilled only", "from scratch"),
    ("pruned and distilled", "pruned only"),
    ("pruned and distilled", "distilled only"),
)


@dataclass(frozen=True)
class Params:
    """How many seeds, and where the runs are kept."""

    seeds: int = 3
    runs: str = "runs"


def run(p: Params = Params(), quick: bool = False) -> Result:
    """Train the four students with each seed and compare; about 8 minutes of one core after the teacher.

    Args:
        quick: every training stage is cut to 2 steps and one seed: shows that it runs.
    """
    params = replace(recipe.PARAMS, seeds=1 if quick else p.seeds)
    if quick:
        base = replace(params.base, core=cut(params.base.core), prune=cut(params.base.prune))
        scratch, pruned, continued = (cut(train) for train in (params.scratch, params.pruned, params.continued))
        params = replace(params, base=base, scratch=scratch, pruned=pruned, continued=continued)
    graph = Graph(ablation(params), Path(p.runs), "ablation")
    graph.run(["table"], Screen())
    record = graph.record(graph.stages["table"])["results"]["bits_per_byte"]
    found = {system: values for system, curve in record.items() for values in curve.values()}
    result = Result("ablation")
    for system, values in found.items():
        mean = statistics.fmean(values)
        result.row("student", system, "held-out bits per byte", mean, "bits/byte", min(values), max(values))
    means = {arm: statistics.fmean(found[arm]) for arm in ARMS}
    for ours, theirs in PAIRS:
        value = means[ours] / means[theirs]
        reason = "" if value <= 1 else "worse here; docs/ablations.md says why"
        result.ratio(f"student: {ours}", "mean bits per byte over that of", theirs, value, "<=", 1.0, reason)
    return result


def cut(train: TrainSpec) -> TrainSpec:
    """The shortest training that reaches everything."""
    return replace(train, steps=2, warmup_steps=0)
