"""Rollouts beside `transformers.generate`: new tokens a second, the same weights, float32, sampled at temperature 1.

The weights are random, so every next token is about as likely as any other, and a share of the vocabulary that stops
gives answers whose lengths are drawn alike on both sides (geometric, cut at max_tokens). Tokens after a stop do not
count. Both sides take as many rows at a time; only ours refills them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from pippin.bench.result import Result
from pippin.interop.hf import save_hf
from pippin.model.config import ModelConfig
from pippin.model.prepacked import multiply, prepack
from pippin.model.transformer import Transformer
from pippin.rollout import rollouts, score

SMALL = ModelConfig(
    vocab_size=8_192, d_model=256, n_layers=8, n_heads=8, n_kv_heads=4, d_head=32, d_ff=1_024, max_seq_len=512
)  # fmt: skip
TINY = ModelConfig(
    vocab_size=512, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48, max_seq_len=512
)  # fmt: skip
SYSTEM = "transformers.generate"


@dataclass(frozen=True)
class Params:
    """Settings of the bench."""

    prompt_tokens: int = 16
    max_tokens: int = 64  # of the cases without stops
    batch: int = 64  # rows at a time of the larger cases
    skewed: int = 128  # sequences of the case with stops
    mean_tokens: int = 48  # of an answer there, about
    longest: int = 384  # tokens of an answer there
    repeats: int = 3  # visits of each system, after one that warms up
    skewed_repeats: int = 1  # in the case with stops, where a visit takes half a minute; none warms up
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """So many prompts, rows at a time, tokens at most, and ids that stop."""

    name: str
    prompts: list[list[int]]
    rows: int
    max_tokens: int
    stop_ids: list[int]
    repeats: int
    aim: float
    limit: str = ""  # what stands in the way, if the aim is missed


def run(params: Params = Params(), quick: bool = False) -> Result:
    """Measure three cases, both systems by turns.

    Args:
        quick: a tiny model, few tokens, two visits.
    """
    if quick:
        params = Params(max_tokens=8, batch=4, skewed=8, mean_tokens=4, longest=16, repeats=2, skewed_repeats=2)
    torch.manual_seed(params.seed)
    model = Transformer(TINY if quick else SMALL, torch.float32).requires_grad_(False).eval()
    # A table this small makes no token likely: what stops is left to chance.
    model.embed.weight.mul_(0.1)
    result = Result("rollout")
    with tempfile.TemporaryDirectory(prefix="pippin-rollout-") as folder:
        from transformers import AutoModelForCausalLM

        save_hf(model, Path(folder))
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for case in _cases(params, model.config.vocab_size):
        _measure(result, case, model, theirs)
    for rows in (1, params.batch):
        _products(result, model, rows, 2 if quick else 41)
    return result


def _products(result: Result, model: Transformer, rows: int, repeats: int) -> None:
    """What all matrix products of a step take, of plain weights and of prepacked ones: most of the floor."""
    weights = [*(linear.dense_weight() for _, linear in model.linears()), model.embed.dense_weight()]
    inputs = {width: torch.randn(rows, 1, width) for width in {weight.shape[1] for weight in weights}}
    systems: dict[str, Callable[[], object]] = {
        "F.linear": lambda: [F.linear(inputs[weight.shape[1]], weight) for weight in weights]
    }
    prepacked = [(weight.shape[1], packed) for weight in weights if (packed := prepack(weight)) is not None]
    if prepacked:
        systems["oneDNN, prepacked"] = lambda: [multiply(inputs[width], packed) for width, packed in prepacked]
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, product in systems.items():
            start = time.perf_counter()
            product()
            times[name].append(1e3 * (time.perf_counter() - start))
    for name, values in times.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        result.row(f"all products of a step, {rows} rows", name, "time", middle, "ms", low, high)


def _cases(params: Params, vocab_size: int) -> list[Case]:
    generator = torch.Generator().manual_seed(params.seed)

    def prompts(count: int) -> list[list[int]]:
        found: list[list[int]] = torch.randint(
            vocab_size, (count, params.prompt_tokens), generator=generator
        ).tolist()  # fmt: skip
        return found

    stops = list(range(vocab_size - max(1, vocab_size // params.mean_tokens), vocab_size))
    return [
        Case(
            "1 row", prompts(1), 1, params.max_tokens, [], params.repeats, 2.3,
            limit="torch starts nearly 500 operations for a token, one by one",
        ),
        Case(
            f"{params.batch} rows, equal lengths", prompts(params.batch), params.batch, params.max_tokens, [],
            params.repeats, 1.8,
        ),
        Case(
            f"{params.batch} rows, {params.skewed} answers of skewed lengths", prompts(params.skewed), params.batch,
            params.longest, stops, params.skewed_repeats, 3.0,
        ),
    ]  # fmt: skip


def _measure(result: Result, case: Case, model: Transformer, theirs: Any) -> None:
    lengths: dict[str, list[int]] = {}
    settings: dict[str, Any] = {"max_tokens": case.max_tokens, "stop_ids": case.stop_ids}

    def ours(seed: int) -> int:
        found = rollouts(model, case.prompts, seed=seed, batch_size=case.rows, **settings)
        lengths.setdefault("pippin", []).extend(len(r.tokens) for r in found)
        if seed == 0:
            _check(result, case.name, model, found[: min(8, len(found))])
        return sum(len(r.tokens) for r in found)

    def peer(seed: int) -> int:
        torch.manual_seed(seed)
        theirs.generation_config.eos_token_id = case.stop_ids or None
        count = 0
        for begin in range(0, len(case.prompts), case.rows):
            tokens = torch.tensor(case.prompts[begin : begin + case.rows])
            with torch.inference_mode():
                out = theirs.generate(
                    tokens, attention_mask=torch.ones_like(tokens), do_sample=True, temperature=1.0, top_k=0,
                    top_p=1.0, max_new_tokens=case.max_tokens, pad_token_id=0,
                )[:, tokens.shape[1] :]  # fmt: skip
            for row in out.tolist():
                ends = [place for place, token in enumerate(row) if token in stops]
                lengths.setdefault(SYSTEM, []).append(ends[0] + 1 if ends else len(row))
                count += lengths[SYSTEM][-1]
        return count

    stops = set(case.stop_ids)
    systems: dict[str, Callable[[int], int]] = {"pippin": ours, SYSTEM: peer}
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    first = 0 if case.stop_ids else 1  # the longest case finds everything warm
    for visit in range(case.repeats + first):
        for name in (list(systems), list(reversed(systems)))[visit % 2]:
            start = time.perf_counter()
            count = systems[name](visit)
            if visit >= first:
                speeds[name].append(count / (time.perf_counter() - start))
    for name, values in speeds.items():
        result.row(case.name, name, "speed", statistics.median(values), "tokens/s", min(values), max(values))
        mean = statistics.fmean(lengths[name])
        result.row(case.name, name, "tokens of an answer", mean, "tokens", min(lengths[name]), max(lengths[name]))
    ratios = [own / other for own, other in zip(speeds["pippin"], speeds[SYSTEM], strict=True)]
    middle = statistics.median(ratios)
    result.row(case.name, "pippin", f"times {SYSTEM}", middle, "1", min(ratios), max(ratios))
    result.ratio(case.name, "speed", SYSTEM, middle, ">=", case.aim, case.limit if middle < case.aim else "")


def _check(result: Result, case: str, model: Transformer, found: list[Any]) -> None:
    """Recorded log-probabilities beside those of full forward passes."""
    scored = score(model, [(r.prompt, r.tokens) for r in found])
    worst = max(
        abs(a - b) for r, values in zip(found, scored, strict=True) for a, b in zip(r.log_probs, values, strict=True)
    )
    result.ratio(case, "largest difference of a recorded log-probability", "full forward passes", worst, "<=", 1e-5)
