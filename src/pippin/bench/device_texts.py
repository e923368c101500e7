"""Speculative decoding of three fixed texts at the 0.6B shape: an edit of code, a summary, a story.

No model that can be trained here would write them, and a poor model's own greedy text repeats itself, which is easy to
guess. So a small model learns the three answers by heart, and is put into the large shape (`device_widen`): what it
then says is what a good model would say, at the speed of the large one, and how much of it look-up guesses is a fact
about the texts. A draft model must know as much as its share of the model, so it is measured on what both have really
been trained on, where the model writes its own text.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pippin.bench.compress_model import MIXTURE, MODEL, TRAIN, model_graph
from pippin.bench.device_models import random_plan
from pippin.bench.device_shape import SHAPES, THREADS, ask_ours, decode
from pippin.bench.device_widen import widen
from pippin.bench.result import Result
from pippin.compress.packed import save_packed
from pippin.compress.palettize import palettize
from pippin.data.loader import Batch
from pippin.data.tokenizer import Tokenizer
from pippin.device.engine import Speculation
from pippin.interop.load import load_model
from pippin.model.cross_entropy import Targets
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.stages.compress import Compress
from pippin.stages.distill import Distill
from pippin.stages.pretrain import Pretrain

DRAFT = replace(MODEL, d_model=128, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=384)
DRAFT_TRAIN = replace(TRAIN, steps=300)
WIDE_DRAFT = replace(SHAPES["0.6B"], d_model=256, n_layers=8, n_heads=4, n_kv_heads=2, d_ff=1024)
AIM = 1.5
_STEPS, _LR, _KNOWN = 300, 5e-4, 0.003  # learning by heart: at most so many steps, until so few nats a token

# What is asked and what is answered.
TEXTS = {
    "code edit": (
        '''class Point:
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

# Give the point a third coordinate, z, which may be left out.
''',
        '''class Point:
    """A point in space."""

    def __init__(self, x, y, z=0, name=None):
        self.x = x
        self.y = y
        self.z = z
        self.name = name

    def __eq__(self, other):
        if not isinstance(other, Point):
            return NotImplemented
        return self.x == other.x and self.y == other.y and self.z == other.z

    def __repr__(self):
        return "Point(%r, %r, %r)" % (self.x, self.y, self.z)
''',
    ),
    "summary": (
        "The committee met on Monday to talk about the new bridge over the river. The old bridge was built eighty "
        "years ago and is too narrow for the buses that cross it every day. Two plans were shown. The first plan is "
        "to make the old bridge wider, which takes one year. The second plan is to build a new bridge beside the old "
        "one, which takes three years and costs twice as much. After a long talk the committee chose the first plan, "
        "because the buses cannot wait.\n\nSummary:",
        " The old bridge over the river is too narrow for today's buses. Of two plans, a wider bridge within one year "
        "or a new one that takes three years and costs twice as much, the committee chose the first, because the "
        "buses cannot wait. Work is to begin as soon as the money has been found.",
    ),
    "story": (
        "Write a story about a fox who is afraid of water.\n\n",
        "Once there was a young fox who would drink only from puddles. Rivers were loud, he said, and lakes looked "
        "back at you. One dry summer every puddle in the wood was gone, and the fox grew thin. An old heron saw him "
        "by the bank and asked what he was waiting for. For it to stop moving, said the fox. The heron laughed and "
        "stood so that her shadow lay still on the stream. Drink from me, then. The fox drank, and when he looked "
        "up the heron had long flown away.",
    ),
}


class Given(NamedTuple):
    """A packed model, and for each text the prompt and the length of the answer; perhaps a draft model."""

    name: str
    model: Path
    prompts: dict[str, list[int]]
    lengths: dict[str, int]
    ways: tuple[Speculation, ...]
    draft: Path | None = None


def trained(runs: Path, tokens: int, steps: int = TRAIN.steps) -> list[Given]:
    """The models, trained and compressed once and kept in `runs`: one with answers by heart, one with a draft."""
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
        for name, stage, bits in (("core", core, 3.7), ("draft", draft, 4.5))
    }  # fmt: skip
    whole = Graph(graph.stages | {"sketch": sketch, "draft": draft} | packed, runs, "device")
    whole.run(list(packed), Screen())
    model, small = (whole.artifact(stage, "model") for stage in packed.values())
    tokenizer = Tokenizer.load(model)
    ids = {name: (tokenizer.encode(asked), tokenizer.encode(answer)) for name, (asked, answer) in TEXTS.items()}
    prompts = {name: asked for name, (asked, _) in ids.items()}
    answers = {name: len(answer) for name, (_, answer) in ids.items()}
    learnt = runs / "device" / "by_heart"
    if not (learnt / "config.json").is_file():
        learn_by_heart(whole.artifact(core, "model"), list(ids.values()), learnt)
    wide = {}
    for source, shape in ((learnt, SHAPES["0.6B"]), (model, SHAPES["0.6B"]), (small, WIDE_DRAFT)):
        wide[source] = runs / "device" / f"{source.name if source == learnt else source.parent.name}_wide"
        if not (wide[source] / "config.json").is_file():
            widen(source, wide[source], shape, random_plan(shape, 3.7))
    own = dict.fromkeys(prompts, tokens)
    return [
        Given("0.6B, knows the answers", wide[learnt], prompts, answers, ("no", "lookup")),
        Given("0.6B, on its own", wide[model], prompts, own, ("no", "lookup", "draft"), wide[small]),
    ]


def learn_by_heart(start: Path, texts: Sequence[tuple[list[int], list[int]]], directory: Path) -> float:
    """Train a dense model on prompts and answers until it knows them, and write it palettized at 4 bits.

    Returns:
        The last loss in nats a token.
    """
    print(f"writing {directory}", file=sys.stderr)
    model = load_model(start, torch.float32)
    length = max(len(asked) + len(answer) for asked, answer in texts) - 1
    tokens, targets = torch.zeros(len(texts), length, dtype=torch.long), torch.full((len(texts), length), -100)
    for row, (asked, answer) in enumerate(texts):
        whole = torch.tensor(asked + answer)
        tokens[row, : len(whole) - 1], targets[row, : len(whole) - 1] = whole[:-1], whole[1:]
    segments = (targets >= 0).long()
    batch = Batch(tokens, targets, torch.arange(length).expand(len(texts), -1), segments)
    optimizer = torch.optim.AdamW(model.parameters(), _LR, weight_decay=0.0)
    for _ in range(_STEPS):
        loss = model(batch.tokens, segment_ids_BT=segments, positions_BT=batch.positions, targets=Targets(targets))
        last = float(loss.total.detach() / loss.count)
        if last < _KNOWN:
            break
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    palettize(model, {name: 4 for name, _ in model.linears()}, [batch])
    save_packed(model, directory)
    return last


def speculation(result: Result, given: Given, rounds: int, aim: bool) -> None:
    """Rows for every text and way to guess, and with `aim` the aim for the first text."""
    keys = [(name, way) for name in given.prompts for way in given.ways]
    one_round = [
        {
            "do": "text", "threads": THREADS[-1], "prompt": given.prompts[name], "tokens": given.lengths[name],
            "speculate": way,
        }
        for name, way in keys
    ]  # fmt: skip
    warm = {"do": "decode", "threads": THREADS[-1], "tokens": 4}
    request = {"context": 2_048, "seed": 0, "tasks": [warm, *one_round * rounds]}
    values = ask_ours(given.model, "fast", [], request, given.draft)["values"][1:]
    samples = {key: values[place :: len(keys)] for place, key in enumerate(keys)}
    for (name, way), found in samples.items():
        plain, made = samples[name, "no"], given.lengths[name] - 1
        system = f"{given.name}, {way}"
        _row(result, name, system, decode(THREADS[-1]), [made / each["seconds"] for each in found], "tokens/s")
        if way == "no":
            continue
        counted = found[0]
        gain = made / counted["passes"]
        faster = [before["seconds"] / each["seconds"] for before, each in zip(plain, found, strict=True)]
        same = float(counted["tokens"] == plain[0]["tokens"])
        _row(result, name, system, "wall clock / without guesses", faster, "1")
        _row(result, name, system, "tokens a pass", [gain], "1")
        _row(result, name, system, "guesses that were kept", [counted["kept"] / max(1, counted["guessed"])], "1")
        _row(result, name, system, "same text as without guesses", [same], "1")
        if aim and name == next(iter(given.prompts)):
            reason = f"{gain:.2f} tokens a pass, of {counted['rows'] / counted['passes']:.2f} rows"
            metric = f"speculative decoding, {given.name}, {way}: times faster"
            result.ratio(name, metric, "no guesses", statistics.median(faster), ">=", AIM, reason)


def _row(result: Result, case: str, system: str, metric: str, values: list[float], unit: str) -> None:
    spread = (min(values), max(values)) if min(values) < max(values) else (None, None)
    result.row(case, system, metric, statistics.median(values), unit, *spread)
