"""Speculative decoding of three fixed texts by a trained model: code that is edited, a summary, a story.

The model is the one of `pippin bench compress`, compressed to 3.7 bits; its draft is distilled from it. It is small, so
its own times say little about a large model, and what it writes is not good; how often its next tokens can be guessed
is counted.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pippin.bench.compress_model import MIXTURE, MODEL, TRAIN, model_graph
from pippin.bench.device_shape import THREADS, ask_ours, decode
from pippin.bench.result import Result
from pippin.data.tokenizer import Tokenizer
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.stages.compress import Compress
from pippin.stages.distill import Distill
from pippin.stages.pretrain import Pretrain

BITS_PER_WEIGHT = 3.7
DRAFT = replace(MODEL, d_model=128, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=384)
DRAFT_TRAIN = replace(TRAIN, steps=300)
WAYS = {"no": "without guesses", "lookup": "look-up", "draft": "draft model"}
AIM = 1.5
TEXTS = {
    "code edit": '''class Point:
    """A point in the plane."""

    def __init__(self, x, y, name=None):
        self.x = x
        self.y = y
        self.name = name

    def __eq__(self, other):
        if not isinstance(other, Point):
            return NotImplemented
        return self.x == other.x and self.y == other.y

    def __repr__(self):
        return "Point(%r, %r)" % (self.x, self.y)


class NamedPoint(Point):
    """A point in the plane with a name."""

    def __init__(self, x, y, name):
        self.x = x
        self.y = y
        self.name = name

    def __eq__(self, other):
        if not isinstance(other, NamedPoint):
''',
    "summary": (
        "The committee met on Monday to talk about the new bridge over the river. The old bridge was built eighty "
        "years ago and is too narrow for the buses that cross it every day. Two plans were shown. The first plan is "
        "to make the old bridge wider, which takes one year. The second plan is to build a new bridge beside the old "
        "one, which takes three years and costs twice as much. After a long talk the committee chose the first plan, "
        "because the buses cannot wait.\n\nIn short: the committee met on Monday to talk about"
    ),
    "story": "Once upon a time there was a fox who lived near the river. One day the fox",
}


class Trained(NamedTuple):
    """Packed model directories and the texts as token ids."""

    model: Path
    draft: Path
    prompts: dict[str, list[int]]


def trained(runs: Path, steps: int = TRAIN.steps) -> Trained:
    """The model and its draft, trained and compressed once and kept in `runs`."""
    graph = model_graph(runs, steps)
    core = graph.stages["core"]
    assert isinstance(core, Pretrain)
    common: dict[str, Any] = {"tokens": core.tokens, "mixture": MIXTURE, "heldout_sources": core.heldout_sources}
    sketch = replace(core, model=DRAFT, train=DRAFT_TRAIN)
    draft = Distill(start=sketch, teacher=core, teacher_model=core.model, model=DRAFT, train=DRAFT_TRAIN, **common)
    packed = {
        f"{name}_packed": Compress(
            start=stage, model=stage.model, bits_per_weight=bits, sensitivity="proxy", calibration_tokens=16_384,
            **common,
        )
        for name, stage, bits in (("core", core, BITS_PER_WEIGHT), ("draft", draft, 4.5))
    }  # fmt: skip
    whole = Graph(graph.stages | {"sketch": sketch, "draft": draft} | packed, runs, "device")
    whole.run(list(packed), Screen())
    model, small = (whole.artifact(stage, "model") for stage in packed.values())
    tokenizer = Tokenizer.load(model)
    return Trained(model, small, {name: tokenizer.encode(text) for name, text in TEXTS.items()})


def speculation(result: Result, given: Trained, costs: list[float], shape: str, tokens: int, rounds: int) -> None:
    """Rows for every text and way to guess, and the aim for the first text.

    Args:
        costs: seconds of a pass of 1, 2, ... rows at `shape`, for what the counted guesses would be worth there.
        tokens: length of each answer.
    """
    one_round = [
        {"do": "text", "threads": THREADS[-1], "prompt": prompt, "tokens": tokens, "speculate": way}
        for prompt in given.prompts.values()
        for way in WAYS
    ]
    request = {"context": 2_048, "seed": 0, "tasks": one_round * (rounds + 1)}  # the first is to warm up
    values = ask_ours(given.model, "fast", [], request, given.draft)["values"]
    keys = [(name, way) for name in given.prompts for way in WAYS]
    for place, (name, way) in enumerate(keys):
        samples = values[len(keys) + place :: len(keys)]
        plain = values[len(keys) + place - list(WAYS).index(way) :: len(keys)]
        system = f"trained model, {WAYS[way]}"
        speeds = [(tokens - 1) / sample["seconds"] for sample in samples]
        _row(result, name, system, decode(THREADS[-1]), speeds, "tokens/s")
        if way == "no":
            continue
        faster = [before["seconds"] / sample["seconds"] for before, sample in zip(plain, samples, strict=True)]
        counted = samples[0]
        gain = (tokens - 1) / counted["passes"]
        _row(result, name, system, "wall clock / without guesses", faster, "1")
        _row(result, name, system, "tokens a pass", [gain], "1")
        _row(result, name, system, "guesses that were kept", [counted["kept"] / max(1, counted["guessed"])], "1")
        same = float(counted["tokens"] == plain[0]["tokens"])
        _row(result, name, system, "same text as without guesses", [same], "1")
        measured = {f"{WAYS[way]}, wall clock, trained model": statistics.median(faster)}
        if way == "lookup":  # a draft model of that size would cost time of its own
            rows = counted["rows"] / counted["passes"]
            cost = float(np.interp(rows, range(1, len(costs) + 1), costs)) / costs[0]
            metric = f"{WAYS[way]}, its tokens a pass over the cost of its passes at {shape}"
            _row(result, name, system, metric, [gain / cost], "1")
            measured[metric] = gain / cost
        if name == next(iter(given.prompts)):
            for metric, value in measured.items():
                result.ratio(name, f"speculative decoding: {metric}", "without", value, ">=", AIM)


def _row(result: Result, case: str, system: str, metric: str, values: list[float], unit: str) -> None:
    spread = (min(values), max(values)) if min(values) < max(values) else (None, None)
    result.row(case, system, metric, statistics.median(values), unit, *spread)
