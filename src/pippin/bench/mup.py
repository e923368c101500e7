"""Simplified muP at work: the best learning rate of a narrow model, is it the best of wider ones?

All widths learn the same small language: 8 symbols, each decided by the three before it through one fixed random
table, so that the layers' matrices, whose updates muP scales, have to do the work. Fresh batches, the report's schedule
and optimizer, held-out cross-entropy at the end, the mean over seeds, on a grid of learning rates of factor 2. The base
width is the narrowest: muP leaves it as it is. docs/mup.md has the outcome, and other settings with theirs.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pippin import files
from pippin.bench.result import Result
from pippin.errors import UserError
from pippin.evaluate.curves import picture
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Loss, Targets
from pippin.model.transformer import Transformer
from pippin.progress import Screen
from pippin.training.optimizer import RMSPropMomentum, param_groups
from pippin.training.schedule import warmup_cosine

VOCAB_SIZE, ORDER, SEQ_LEN = 8, 3, 16
HELDOUT_ROWS = 128
D_HEAD = 16
WITH, WITHOUT = "muP", "no muP"


@dataclass(frozen=True)
class Params:
    """Settings of the bench. The grid is 2^low, 2^(low + 1) ... 2^high; `svg` is a file for the picture, if given.

    `floor` is the fraction of the peak at which the cosine ends; 1 is a constant rate after the warmup.
    """

    widths: tuple[int, ...] = (32, 64, 96, 128)
    n_layers: int = 3
    steps: int = 80
    warmup_steps: int = 8
    floor: float = 0.005
    batch_size: int = 32
    low: int = -8
    high: int = -3
    seeds: int = 2
    svg: str = ""


Curve = dict[int, list[float]]  # exponent of the learning rate -> held-out loss of each seed


def run(params: Params = Params(), quick: bool = False) -> Result:
    """Train all widths, rates and seeds; about 4 minutes of one core.

    Args:
        quick: three rates, one seed, few steps: shows that it runs, measures nothing.
    Raises:
        UserError: widths do not make heads, or the grid is empty.
    """
    if quick:
        params = Params(widths=(32, 64), steps=3, warmup_steps=1, seeds=1, low=-7, high=-5, svg=params.svg)
    if len(params.widths) < 2 or list(params.widths) != sorted(set(params.widths)):
        raise UserError(f"widths: value {params.widths}: give at least two, rising")
    for width in params.widths:
        if width % (2 * D_HEAD) or width < 2 * D_HEAD:
            raise UserError(f"widths: value {width}: must be a multiple of {2 * D_HEAD}")
    if params.high < params.low or params.seeds < 1:
        raise UserError(f"high: value {params.high}: must be at least low ({params.low}), and seeds at least 1")
    curves = measure(params)
    result = Result("mup")
    for (width, system), curve in curves.items():
        for exponent, losses in curve.items():
            metric = f"held-out loss at lr 2^{exponent}"
            result.row(f"d_model {width}", system, metric, statistics.mean(losses), "nats", min(losses), max(losses))
        result.row(f"d_model {width}", system, "log2 of the best lr", best(curve), "1")
    narrow, wide = params.widths[0], params.widths[-1]
    start = best(curves[narrow, WITH])
    aims: tuple[tuple[str, Literal["<=", ">="], int], ...] = ((WITH, "<=", 1), (WITHOUT, ">=", 2))
    for system, direction, aim in aims:
        end = best(curves[wide, system])
        edge = {start, end} & {params.low, params.high}
        reason = "an optimum lies at the edge of the grid, the true one may lie beyond" if edge else ""
        # An optimum at the edge is not an optimum that was measured.
        moved = None if edge else abs(end - start)
        case = f"d_model {narrow} to {wide}"
        result.ratio(case, "grid steps that the best lr moves", system, moved, direction, aim, reason)
    if params.svg:
        files.write_text(Path(params.svg), drawn(curves))
    return result


def measure(params: Params) -> dict[tuple[int, str], Curve]:
    """Held-out losses of all widths with muP, and of those above the narrowest without, for all rates and seeds."""
    narrow = params.widths[0]
    plan = [*((width, WITH) for width in params.widths), *((width, WITHOUT) for width in params.widths[1:])]
    exponents = range(params.low, params.high + 1)
    curves: dict[tuple[int, str], Curve] = {key: {e: [] for e in exponents} for key in plan}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as fast for matrices of this size, and the same numbers on any count of cores
    with Screen().track(len(plan) * len(exponents) * params.seeds, "mup") as bar:
        for seed in range(params.seeds):
            for width, system in plan:
                base_width = narrow if system == WITH else width
                for exponent in exponents:
                    curves[width, system][exponent].append(train(params, width, base_width, 2.0**exponent, seed))
                    bar.advance(1)
    torch.set_num_threads(threads)
    return curves


def language(rows: int, seed: int) -> Tensor:
    """Sequences [rows, SEQ_LEN + 1]: three random symbols, then each one looked up by the three before it."""
    table = torch.randint(VOCAB_SIZE, (VOCAB_SIZE,) * ORDER, generator=torch.Generator().manual_seed(0))
    tokens_BT = torch.randint(VOCAB_SIZE, (rows, SEQ_LEN + 1), generator=torch.Generator().manual_seed(1 + seed))
    for t in range(ORDER, SEQ_LEN + 1):
        tokens_BT[:, t] = table[tuple(tokens_BT[:, t - i] for i in range(ORDER, 0, -1))]
    return tokens_BT


def train(params: Params, width: int, base_width: int, lr: float, seed: int) -> float:
    """Train one model from scratch and return its held-out loss in nats per predictable symbol.

    Seed decides weights and batches; the language and the held-out rows are always the same.
    """
    torch.manual_seed(seed)
    heads = width // D_HEAD
    config = ModelConfig(
        VOCAB_SIZE, width, params.n_layers, heads, heads // 2, D_HEAD, d_ff=3 * width, max_seq_len=SEQ_LEN
    )
    model = Transformer(config, torch.float32)
    optimizer = RMSPropMomentum(param_groups(model, base_width), lr=lr)
    rows = language(params.steps * params.batch_size, seed=1 + seed)
    for step, batch in enumerate(rows.split(params.batch_size)):
        loss = _loss(model, batch)
        (loss.total / loss.count).backward()
        optimizer.step(warmup_cosine(step, steps=params.steps, warmup_steps=params.warmup_steps, floor=params.floor))
        optimizer.zero_grad()
    with torch.no_grad():
        loss = _loss(model, language(HELDOUT_ROWS, seed=0))
    # A model that blew up is as bad as one that knows nothing, not infinitely bad: the mean over seeds must exist.
    value = float(loss.nll / loss.count)
    return value if math.isfinite(value) else math.log(VOCAB_SIZE)


def best(curve: Curve) -> int:
    """The exponent with the lowest mean loss over the seeds."""
    return min(curve, key=lambda exponent: statistics.mean(curve[exponent]))


def _loss(model: Transformer, tokens_BT: Tensor) -> Loss:
    targets_BT = tokens_BT[:, 1:].clone()
    targets_BT[:, : ORDER - 1] = -100  # random symbols: nothing to learn
    loss = model(tokens_BT[:, :-1], targets=Targets(targets_BT))
    assert isinstance(loss, Loss)
    return loss


def drawn(curves: dict[tuple[int, str], Curve]) -> str:
    """The curves as an SVG: one colour a width, dashes without muP."""
    widths = sorted({width for width, _ in curves})
    base = widths[0]
    labels = {
        key: f"d_model {key[0]}" + (" (base width)" if key[0] == base else "" if key[1] == WITH else ", without muP")
        for key in curves
    }
    return picture(
        "held-out loss over the learning rate, with and without muP",
        "peak learning rate",
        "held-out loss, nats",
        {labels[key]: {2.0**e: losses for e, losses in curve.items()} for key, curve in curves.items()},
        lambda rate: f"2^{math.log2(rate):g}",
        styles={label: (widths.index(key[0]), 0 if key[1] == WITH else 1) for key, label in labels.items()},
    )
