"""Is the learning real? Each claim of a recipe against baselines of equal cost, over several seeds.

Claims: the teacher beats a Kneser-Ney 5-gram; distillation beats training from scratch; fine-tuning beats few-shot
prompting; the summary adapter beats no adapter and one trained on shuffled pairs; the recovery adapter wins back half
of what compression cost. Seeds change weights and batches, not the text.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pippin.bench.result import Result
from pippin.data.loader import EvalReader
from pippin.data.packing import TokenSet
from pippin.errors import UserError
from pippin.evaluate.bits_per_byte import ngram_bits_per_byte, train_ngram
from pippin.pipeline import Graph, Stage
from pippin.progress import Screen
from pippin.recipes import chain as recipe_chain
from pippin.recipes.chain import chain
from pippin.recipes.quickstart import PARAMS as QUICKSTART
from pippin.recipes.small import PARAMS as SMALL
from pippin.stages.pretrain import Pretrain
from pippin.stages.tokenize import Tokenize
from pippin.stages.training import FULL_LOOK_TOKENS

RECIPES = {"quickstart": QUICKSTART, "small": SMALL}
TARGETS = {
    "teacher": ("core",),
    "distill": ("continued", "scratch-continued", "pruned-continued", "flops-continued"),
    "sft": ("evaluate",),
    "summary": ("summary", "shuffled"),
    "recovery": ("evaluate",),
}


@dataclass(frozen=True)
class Params:
    """Which recipe, how many seeds, which claims, and where the runs are kept (finished stages are reused).

    `compiled` compiles the training steps, which pays for long runs.
    """

    recipe: str = "quickstart"
    seeds: int = 3
    claims: tuple[str, ...] = tuple(TARGETS)
    runs: str = "runs"
    compiled: bool = False


def run(p: Params = Params(), quick: bool = False) -> Result:
    """Run the stages that the claims need and compare.

    Args:
        quick: every training stage is cut to 2 steps and one seed: shows that it runs, the claims will fail.
    """
    if p.recipe not in RECIPES:
        raise UserError(f"recipe={p.recipe}: must be one of {', '.join(RECIPES)}")
    for claim in p.claims:
        if claim not in TARGETS:
            raise UserError(f"claims: {claim!r} is not one of {', '.join(TARGETS)}")
    params = RECIPES[p.recipe]
    if quick:
        params = cut(params)
    targets = list(dict.fromkeys(target for claim in p.claims for target in TARGETS[claim]))
    found: list[dict[str, dict[str, Any]]] = []
    for seed in range(1 if quick else p.seeds):
        graph = Graph(with_baselines(replace(params, seed=seed)), Path(p.runs), p.recipe)
        graph.run(targets, Screen(), p.compiled)
        found.append({name: graph.record(graph.stages[name]) for name in graph.order(targets)})
    result = Result("learning" if p.recipe == "quickstart" else f"learning_{p.recipe}")
    texts = recipe_chain.own_text(params).heldout_sources
    if "teacher" in p.claims:
        _teacher(result, p.recipe, found, _ngram(graph, texts), texts)
    if "distill" in p.claims:
        _distill(result, p.recipe, found, texts)
    if "sft" in p.claims:
        _sft(result, p.recipe, found)
    if "summary" in p.claims:
        _summary(result, p.recipe, found, tuple(params.mixtures.summary))
    if "recovery" in p.claims:
        _recovery(result, p.recipe, found)
    return result


def with_baselines(p: recipe_chain.Params) -> dict[str, Stage]:
    """The recipe's stages and the baselines of its claims.

    Equal cost: `scratch` and `pruned` see as many student tokens as `distill`; `flops` trains the student's shape from
    scratch on as many FLOPs as the teacher, the pruning and the distillation took together. Each is followed by the
    same continued stage, because distillation on hard labels leaves probabilities that only it repairs.
    """
    stages = chain(p)
    core, prune, distill, continued = (stages[name] for name in ("core", "prune", "distill", "continued"))
    assert isinstance(continued, Pretrain)
    assert isinstance(core, Pretrain)
    assert isinstance(continued.tokens, Tokenize)
    student = continued.model
    plain = {"tokens": continued.tokens, "mixture": core.mixture, "model": student, "seed": p.seed}
    plain["heldout_sources"] = continued.heldout_sources
    spent = core.cost().flops + prune.cost().flops + distill.cost().flops
    steps = round(p.distill.steps * spent / p.distill.train_flops(student))
    # From random weights the learning rate and warm-up of core are right, not those of a continuation.
    from_scratch = replace(p.core, steps=p.distill.steps, warmup_steps=min(p.core.warmup_steps, p.distill.steps // 10))
    starts: dict[str, Stage] = {
        "scratch": Pretrain(train=from_scratch, **plain),  # type: ignore[arg-type]
        "pruned": Pretrain(train=p.distill, start=prune, **plain),  # type: ignore[arg-type]
        "flops": Pretrain(train=replace(p.core, steps=steps), **plain),  # type: ignore[arg-type]
    }
    followed = {f"{name}-continued": replace(continued, start=stage) for name, stage in starts.items()}
    summary = stages["summary"]
    tokens = continued.tokens
    shuffled_tokens = Tokenize(curate=tokens.curate, tokenizer=tokens.tokenizer, shuffle_answers=True)
    shuffled = replace(summary, tokens=shuffled_tokens)  # type: ignore[call-arg]
    return stages | starts | followed | {"shuffled-tokens": shuffled_tokens, "shuffled": shuffled}


def cut(p: recipe_chain.Params) -> recipe_chain.Params:
    specs = ("core", "prune", "distill", "continued", "lengthen", "sft", "summary", "tune", "recover")
    short = {name: replace(getattr(p, name), steps=2, warmup_steps=0) for name in specs}
    return replace(p, feedback=None, **short)  # nothing that it could say would be right


def _ngram(graph: Graph, texts: Sequence[str]) -> dict[str, float]:
    """Bits per byte of the 5-gram on the documents that the teacher was scored on."""
    core = graph.stages["core"]
    assert isinstance(core, Pretrain)
    directory = graph.artifact(core.tokens, "tokens")
    tokens = TokenSet(directory)
    ngram = train_ngram([tokens.open(source, "train") for source in core.mixture])
    bits = {}
    for source in texts:
        reader = EvalReader(directory, source, "heldout", core.train.seq_len, 16, FULL_LOOK_TOKENS)
        bits[source] = ngram_bits_per_byte(ngram, tokens.open(source, "heldout"), reader.n_documents).bits_per_byte
    return bits


Found = list[dict[str, dict[str, Any]]]


def _row(result: Result, case: str, system: str, metric: str, values: Sequence[float], unit: str) -> None:
    """Median over the seeds, with the extremes."""
    result.row(case, system, metric, statistics.median(values), unit, min(values), max(values))


def _mean_bits(found: dict[str, Any], texts: Sequence[str]) -> float:
    return statistics.fmean(found[f"bpb_{text}"] for text in texts)


def _teacher(result: Result, case: str, found: Found, ngram: dict[str, float], texts: Sequence[str]) -> None:
    for text in texts:
        values = [seed["core"]["results"][f"bpb_{text}"] for seed in found]
        _row(result, f"{case}/{text}", "teacher", "held-out bits per byte", values, "bits/byte")
        result.row(f"{case}/{text}", "Kneser-Ney 5-gram", "held-out bits per byte", ngram[text], "bits/byte")
        worst = max(values) / ngram[text]
        result.ratio(f"{case}/{text}", "bits per byte, worst seed", "Kneser-Ney 5-gram", worst, "<=", 1.0)


def _distill(result: Result, case: str, found: Found, texts: Sequence[str]) -> None:
    names = {
        "continued": "pruned and distilled",
        "pruned-continued": "pruned, not distilled",
        "scratch-continued": "from scratch, equal student tokens",
        "flops-continued": "from scratch, equal total FLOPs",
    }
    bits = {name: [_mean_bits(seed[name]["results"], texts) for seed in found] for name in names}
    for name, system in names.items():
        _row(result, f"{case}/student", system, "held-out bits per byte", bits[name], "bits/byte")
    for name in list(names)[1:]:
        worst = max(ours / theirs for ours, theirs in zip(bits["continued"], bits[name], strict=True))
        reason = "" if name == "scratch-continued" else "shown beside the claim; the claim is equal student tokens"
        result.ratio(f"{case}/student", "bits per byte, worst seed", names[name], worst, "<=", 1.0, reason)


def _sft(result: Result, case: str, found: Found) -> None:
    systems = [seed["evaluate"]["results"]["systems"] for seed in found]
    for name in systems[0]:
        _row(result, f"{case}/chat", name, "exact match", [100 * s[name] for s in systems], "%")
    gains = []
    for shares in systems:
        baselines = [shares[name] for name in ("few-shot base", "majority answer", "nearest training item")]
        gains.append(100 * (shares["sft"] - max(baselines)))
    result.ratio(f"{case}/chat", "points, worst seed", "the best baseline", min(gains), ">=", 30.0)


def _summary(result: Result, case: str, found: Found, sources: Sequence[str]) -> None:
    before = [_mean_bits(seed["summary"]["results"]["before"], sources) for seed in found]
    after = [_mean_bits(seed["summary"]["results"], sources) for seed in found]
    shuffled = [_mean_bits(seed["shuffled"]["results"], sources) for seed in found]
    for system, values in (("no adapter", before), ("adapter", after), ("adapter on shuffled pairs", shuffled)):
        _row(result, f"{case}/summary", system, "held-out bits per byte of summaries", values, "bits/byte")
    for versus, values in (("no adapter", before), ("adapter on shuffled pairs", shuffled)):
        worst = max(ours / theirs for ours, theirs in zip(after, values, strict=True))
        result.ratio(f"{case}/summary", "bits per byte, worst seed", versus, worst, "<=", 1.0)


def _recovery(result: Result, case: str, found: Found) -> None:
    recovery = [seed["evaluate"]["results"]["recovery"] for seed in found]
    for key in ("float", "float_adapter", "compressed", "compressed_adapter"):
        _row(result, f"{case}/compression", key, "held-out bits per byte", [r[key] for r in recovery], "bits/byte")
    for key in ("bits_per_weight", "bits_per_parameter"):
        values = [seed["compress"]["results"][key] for seed in found]
        _row(result, f"{case}/compression", "compressed", key, values, "bits")
    shares = [r["share"] for r in recovery]
    if any(share is None for share in shares):
        result.ratio(f"{case}/compression", "share won back", "float", None, ">=", 0.5, "compression cost nothing here")
    else:
        result.ratio(f"{case}/compression", "share won back, worst seed", "float + adapter", min(shares), ">=", 0.5)
