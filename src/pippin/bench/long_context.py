"""Context lengthening with and without synthetic long question answering: facts found at four times the length.

The stages are those of the recipe `long_context`; finished ones are reused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pippin import files
from pippin.bench.ablation import cut
from pippin.bench.result import Result
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.recipes import long_context as recipe
from pippin.recipes.long_context import ARMS, long_context


@dataclass(frozen=True)
class Params:
    """How many seeds, where the runs are kept; `svg` is a file for the picture, if given."""

    seeds: int = 2
    runs: str = "runs"
    svg: str = ""
    recipe: recipe.Params = field(default_factory=lambda: recipe.PARAMS)


def run(p: Params = Params(), quick: bool = False) -> Result:
    """Train, lengthen in three ways and ask; about 4 minutes of one core after the quickstart's first stages.

    Args:
        quick: every training stage is cut to 2 steps, one seed, 2 questions a cell: shows that it runs.
    """
    params = replace(p.recipe, seeds=p.seeds)
    if quick:
        params = replace(params, short=cut(params.short), lengthen=cut(params.lengthen), short_rows=50, long_rows=20)
        params = replace(params, per_cell=2, seeds=1)
    graph = Graph(long_context(params), Path(p.runs), "long_context")
    graph.run(["retrieval"], Screen())
    stage = graph.stages["retrieval"]
    found = graph.record(stage)["results"]
    result = Result("long_context")
    for arm, cells in found["retrieval"].items():
        for cell, share in cells.items():
            value, low, high = (100 * share[name] for name in ("share", "low", "high"))
            result.row(f"{cell} tokens", arm, "exact match", value, "%", low, high)
    ours, *controls = ARMS
    for cell in found["retrieval"][ours]:
        if cell.endswith(f" {params.lengthen.seq_len}"):
            for other in ("before", *controls):
                gained = 100 * (found["retrieval"][ours][cell]["share"] - found["retrieval"][other][cell]["share"])
                reason = "" if gained >= 20 else "docs/long_context.md says why"
                result.ratio(f"{cell} tokens", "points of exact match gained on", other, gained, ">=", 20, reason)
    if p.svg:
        drawn = graph.directory(stage) / "report" / "retrieval.svg"
        files.write_text(Path(p.svg), drawn.read_text(encoding="utf-8"))
    return result
