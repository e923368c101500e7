"""Is the engine right on a trained model? Projections, perplexity and greedy text against the torch model.

The model is the quickstart's palettized one with its recovery adapter, the texts are its held-out ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pippin.bench.learning import cut
from pippin.bench.result import Result
from pippin.data.loader import EvalReader
from pippin.device.engine import KV, Adapter, Engine, Floats, Mode, Model, kernels
from pippin.generate import generate
from pippin.interop.load import load_model
from pippin.interop.lora import adapter_rank
from pippin.interop.peft import load_adapter
from pippin.model.transformer import Transformer
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.recipes.chain import chain, own_text
from pippin.recipes.quickstart import PARAMS as QUICKSTART

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
NEAR_TIE = 1e-4


@dataclass(frozen=True)
class Params:
    """Held-out tokens of each source, new tokens of the greedy text, and where the quickstart's runs are."""

    tokens: int = 4_000
    greedy_tokens: int = 200
    runs: str = "runs"


def run(p: Params = Params(), quick: bool = False) -> Result:
    """Compare; the quickstart's stages are run first if they are not there (about five minutes).

    Args:
        quick: on a chain whose training stages are cut to 2 steps, with few tokens.
    """
    params = cut(QUICKSTART) if quick else QUICKSTART
    if quick:
        p = replace(p, tokens=300, greedy_tokens=20)
    graph = Graph(chain(params), Path(p.runs), "quickstart")
    graph.run(["recover"], Screen(), False)
    stages = graph.stages
    directory = graph.directory(stages["compress"]) / "model"
    adapter_dir = graph.directory(stages["recover"]) / "adapter"
    tokens = graph.directory(stages["tokens"]) / "tokens"
    torch_model = load_model(directory, torch.float32)
    for _, linear in torch_model.linears():
        linear.add_adapters(1, adapter_rank(adapter_dir))
    load_adapter(torch_model, 0, adapter_dir)
    model = Model(directory)
    adapter = Adapter(model, adapter_dir)
    sources = own_text(params).heldout_sources
    texts = {source: documents(tokens, source, torch_model.config.max_seq_len, p.tokens) for source in sources}
    result = Result("device_quality")
    _projections(result, model, torch_model, [text for each in texts.values() for text in each[:2]])
    _perplexity(result, model, adapter, torch_model, texts)
    _greedy(result, model, adapter, torch_model, [each[0] for each in texts.values()], p.greedy_tokens)
    return result


def documents(tokens: Path, source: str, seq_len: int, max_tokens: int) -> list[list[int]]:
    """Held-out documents as token ids, cut to `seq_len`, `<eos>` first."""
    found: list[list[int]] = []
    for batch in EvalReader(tokens, source, "heldout", seq_len, 1, max_tokens):
        segments = batch.segment_ids[0]
        for segment in range(1, int(segments.max()) + 1):
            ids = batch.tokens[0][segments == segment]
            if len(ids) > 1:
                found.append([int(token) for token in ids])
    return found


def _projections(result: Result, model: Model, torch_model: Transformer, texts: Sequence[list[int]]) -> None:
    """Relative RMS error of fast mode per projection, on what the float model feeds it."""
    inputs: dict[str, list[Floats]] = {}
    hooks = [
        linear.register_forward_hook(
            lambda _, given, __, name=name: inputs.setdefault(name, []).append(given[0][0].numpy())
        )
        for name, linear in torch_model.linears()
    ]
    with torch.inference_mode():
        for text in texts:
            torch_model(torch.tensor([text]))
    for hook in hooks:
        hook.remove()
    for table in kernels():
        fast, exact = (Engine(model, mode=mode, kernels=table, threads=1) for mode in ("fast", "exact"))
        errors: list[float] = []
        against_torch: list[float] = []
        for name, linear in torch_model.linears():
            layer, which = int(name.split(".")[1]), PROJECTIONS.index(name.split(".")[-1])
            x = np.concatenate(inputs[name])
            right = exact.project(layer, which, x)
            errors.append(_relative(fast.project(layer, which, x), right))
            reference = x.astype(np.float64) @ linear.dense_weight().double().numpy().T
            against_torch.append(float(np.abs(right - reference).max() / np.abs(reference).max()))
        case = f"kernels {table}"
        result.row(case, "ours, fast", "RMS error of a projection", float(np.median(errors)), "of its output",
                   min(errors), max(errors))  # fmt: skip
        result.row(case, "ours, exact", "largest error of a projection", max(against_torch), "of its largest output")
        result.ratio(case, "RMS error of the worst projection, fast", "exact", max(errors), "<=", 0.015)
        result.ratio(case, "largest error of a projection, exact", "float64", max(against_torch), "<=", 1e-5)


def _relative(found: Floats, right: Floats) -> float:
    return float(np.sqrt(np.square(found - right, dtype=np.float64).sum() / np.square(right, dtype=np.float64).sum()))


def _perplexity(
    result: Result,
    model: Model,
    adapter: Adapter,
    torch_model: Transformer,
    texts: dict[str, list[list[int]]],
) -> None:
    settings: list[tuple[Mode, KV]] = [
        ("exact", "float32"), ("fast", "float32"), ("fast", "bfloat16"), ("fast", "int8"),
    ]  # fmt: skip
    for source, documents_ in texts.items():
        count = sum(len(text) - 1 for text in documents_)
        with torch.inference_mode():
            reference = -sum(_torch_score(torch_model, text) for text in documents_) / count
        result.row(source, "torch, float32", "perplexity", math.exp(reference), "per token")
        for mode, kv in settings:
            engine = Engine(model, mode=mode, kv=kv, threads=1)
            loss = -sum(float(engine.score(text, adapter).sum()) for text in documents_) / count
            system = f"ours, {mode}, {kv} keys and values"
            result.row(source, system, "perplexity", math.exp(loss), "per token")
            aim = {"exact": 1e-4, "fast": 0.01 if kv == "int8" else 0.005}[mode]
            result.ratio(f"{source}/{mode}/{kv}", "perplexity above torch's", "torch, float32",
                         math.expm1(loss - reference), "<=", aim)  # fmt: skip


def _torch_score(torch_model: Transformer, text: list[int]) -> float:
    logits: Any = torch_model(torch.tensor([text]), slots_B=torch.tensor([0]))
    logprobs = logits[0, :-1].double().log_softmax(-1)
    return float(logprobs.gather(1, torch.tensor(text[1:])[:, None]).sum())


def _greedy(
    result: Result,
    model: Model,
    adapter: Adapter,
    torch_model: Transformer,
    texts: Sequence[list[int]],
    new_tokens: int,
) -> None:
    """Greedy text in exact mode, token by token, up to the first difference."""
    engine = Engine(model, mode="exact", threads=1)
    slot = engine.add_adapter(adapter)
    same, gaps = 0, [0.0]
    for text in texts:
        prompt = text[:16]
        settings: dict[str, Any] = {
            "max_tokens": min(new_tokens, model.config.max_seq_len - len(prompt)),
            "stop_ids": (),
        }
        (ours,) = generate(engine, None, [prompt], slots_B=[slot], **settings)
        (theirs,) = generate(torch_model, None, [prompt], slots_B=[0], **settings)
        if ours == theirs:
            same += 1
            continue
        first = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        with torch.inference_mode():
            logits: Any = torch_model(
                torch.tensor([prompt + theirs[:first]]), slots_B=torch.tensor([0]), last_only=True
            )
        best = logits[0, 0].topk(2).values
        gaps.append(float(best[0] - best[1]))
    result.row("greedy text", "ours, exact", "texts that are the same to the last token", same, f"of {len(texts)}")
    result.ratio("greedy text", "gap of the reference's two best logits at the first difference", "torch, float32",
                 max(gaps), "<=", NEAR_TIE)  # fmt: skip
