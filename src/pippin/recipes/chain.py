"""The chain of the report in one graph: text -> tokens -> teacher -> pruned, distilled student -> chat -> low bits.

`quickstart` and `small` are this chain with other numbers. Everything that can be derived is derived here, after the
overrides: the student's shape, the lengthened RoPE base, the adapters' scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from pippin.model.config import ModelConfig
from pippin.pipeline import Stage
from pippin.recipes.committee import Round, committee_round
from pippin.recipes.corpus import Corpus, up_to
from pippin.stages.adapter import Adapter
from pippin.stages.compress import Compress
from pippin.stages.distill import Distill
from pippin.stages.evaluate import Evaluate
from pippin.stages.lengthen import Lengthen, lengthened_rope_base
from pippin.stages.policies import ComparePolicies
from pippin.stages.pretrain import Pretrain
from pippin.stages.prompts import Prompts
from pippin.stages.prune import Prune
from pippin.stages.sft import Sft
from pippin.stages.tokenize import Tokenize, TrainTokenizer
from pippin.training.loop import TrainSpec

REAL_SOURCES = ("python", "packages")


@dataclass(frozen=True)
class Shape:
    """The teacher's shape, and the student's FFN width (`student_d_ff`): pruning touches nothing else (afm 4.21)."""

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int
    student_d_ff: int
    rope_base: float = 500_000.0


@dataclass(frozen=True)
class AdapterParams:
    """Rank and scale of the adapters; `alpha` / rank multiplies the low-rank path."""

    task_rank: int
    recovery_rank: int
    alpha_per_rank: float = 1.0


@dataclass(frozen=True)
class Mixtures:
    """Shares of rows by source, per stage (afm 4.10: fewer bulk pages and better text as training goes on)."""

    core: dict[str, float]
    continued: dict[str, float]
    lengthen: dict[str, float]
    sft: dict[str, float]
    summary: dict[str, float]
    recover: dict[str, float]


@dataclass(frozen=True)
class Feedback:
    """One round of the committee after fine-tuning, on exercises of the world, beside the chain: what it does is shown,
    the chain goes on from the fine-tuned model.

    Attributes:
        tasks: of the exercises.
        prompts, heldout: how many exercises are answered, and how many judge the models.
        round: its numbers.
    """

    round: Round
    tasks: tuple[str, ...]
    prompts: int
    heldout: int


@dataclass(frozen=True)
class Params:
    """Every number of the chain; `plan` is a bitplan.json to use instead of choosing bits."""

    corpus: Corpus
    vocab_size: int
    shape: Shape
    mixtures: Mixtures
    core: TrainSpec
    prune: TrainSpec
    distill: TrainSpec
    continued: TrainSpec
    lengthen: TrainSpec
    sft: TrainSpec
    summary: TrainSpec
    tune: TrainSpec
    recover: TrainSpec
    adapters: AdapterParams
    bits_per_weight: float = 3.7
    plan: str = ""
    teacher_weight: float = 0.9
    feedback: Feedback | None = None
    seed: int = 0
    heldout_sources: tuple[str, ...] = field(default=("world", "stdlib"))


def own_text(p: Params) -> Params:
    """With `corpus.folder`, the user's text takes the place of the real text that the recipe came with."""
    if not p.corpus.folder:
        return p

    def replaced(mixture: dict[str, float]) -> dict[str, float]:
        share = sum(weight for source, weight in mixture.items() if source in REAL_SOURCES)
        kept = {source: weight for source, weight in mixture.items() if source not in REAL_SOURCES}
        return kept | ({"folder": share} if share else {})

    mixtures = {f.name: replaced(getattr(p.mixtures, f.name)) for f in fields(p.mixtures)}
    heldout_sources = tuple(dict.fromkeys("folder" if s in REAL_SOURCES else s for s in p.heldout_sources))
    return replace(p, mixtures=Mixtures(**mixtures), heldout_sources=heldout_sources)


def chain(p: Params) -> dict[str, Stage]:
    """The stages in order, by name."""
    p = own_text(p)
    curate = p.corpus.curate()
    tokenizer = TrainTokenizer(curate=curate, vocab_size=p.vocab_size)
    tokens = Tokenize(curate=curate, tokenizer=tokenizer)
    s = p.shape
    teacher = ModelConfig(
        vocab_size=p.vocab_size,
        d_model=s.d_model,
        n_layers=s.n_layers,
        n_heads=s.n_heads,
        n_kv_heads=s.n_kv_heads,
        d_head=s.d_head,
        d_ff=s.d_ff,
        max_seq_len=max(p.core.seq_len, p.continued.seq_len),
        rope_base=s.rope_base,
    )
    student = replace(teacher, d_ff=s.student_d_ff)
    long_base = lengthened_rope_base(s.rope_base, p.continued.seq_len, p.lengthen.seq_len)
    long = replace(student, max_seq_len=p.lengthen.seq_len, rope_base=long_base)

    common: dict[str, Any] = {"tokens": tokens, "seed": p.seed, "heldout_sources": p.heldout_sources}
    core = Pretrain(train=p.core, mixture=p.mixtures.core, model=teacher, **common)
    prune = Prune(train=p.prune, mixture=p.mixtures.core, model=teacher, parent=core, d_ff=s.student_d_ff, **common)
    distill = Distill(
        train=p.distill,
        mixture=p.mixtures.core,
        model=student,
        start=prune,
        teacher=core,
        teacher_model=teacher,
        teacher_weight=p.teacher_weight,
        **common,
    )
    continued = Pretrain(train=p.continued, mixture=p.mixtures.continued, model=student, start=distill, **common)
    lengthen = Lengthen(train=p.lengthen, mixture=p.mixtures.lengthen, model=long, start=continued, **common)
    chat_sources: dict[str, Any] = {"heldout_sources": (*p.heldout_sources, "chat")}
    sft = Sft(train=p.sft, mixture=p.mixtures.sft, model=long, start=lengthen, **(common | chat_sources))
    a = p.adapters
    summary = Adapter(
        train=p.summary,
        mixture=p.mixtures.summary,
        model=long,
        start=sft,
        rank=a.task_rank,
        alpha=a.alpha_per_rank * a.task_rank,
        **(common | {"heldout_sources": tuple(p.mixtures.summary)}),
    )
    compress = Compress(
        tokens=tokens,
        start=sft,
        model=long,
        mixture=p.mixtures.recover,
        bits_per_weight=p.bits_per_weight,
        plan=p.plan,
        tune=p.tune,
        seed=p.seed,
        **chat_sources,
    )
    recovery: dict[str, Any] = {
        "train": p.recover,
        "mixture": p.mixtures.recover,
        "model": long,
        "rank": a.recovery_rank,
        "alpha": a.alpha_per_rank * a.recovery_rank,
        "mode": "windows",
    }
    recover = Adapter(start=compress, **recovery, **(common | chat_sources))
    control = Adapter(start=sft, **recovery, **(common | chat_sources))
    shown = feedback(p.feedback, sft, p.seed) if p.feedback is not None else {}
    policies, style = shown.get("policies"), shown.get("style")
    assert policies is None or isinstance(policies, ComparePolicies)
    assert style is None or isinstance(style, ComparePolicies)
    evaluate = Evaluate(
        tokens=tokens,
        teacher=core,
        base=lengthen,
        chat=sft,
        compressed=compress,
        recovered=recover,
        control=control,
        adapter=summary,
        trail=(core, prune, distill, continued, lengthen, sft, compress, recover, control),
        heldout_sources=p.heldout_sources,
        policies=policies,
        style=style,
    )
    return {
        **up_to(curate),
        "tokenizer": tokenizer,
        "tokens": tokens,
        "core": core,
        "prune": prune,
        "distill": distill,
        "continued": continued,
        "lengthen": lengthen,
        "sft": sft,
        "summary": summary,
        "compress": compress,
        "recover": recover,
        "control": control,
        **shown,
        "evaluate": evaluate,
    }


def feedback(f: Feedback, sft: Sft, seed: int) -> dict[str, Stage]:
    """The stages of one round, and two looks at its models: on the exercises, and in the style of two benchmarks."""
    prompts = Prompts(tasks=f.tasks, train=f.prompts, heldout=f.heldout, seed=seed)
    made = committee_round(1, sft, sft, sft.model, prompts, {"sft": sft}, f.round, seed)
    models = {name: made[f"{name}-1"] for name in (*f.round.methods, "student")}
    look: dict[str, Any] = {"reference": sft, "max_tokens": f.round.max_tokens, "seed": seed}
    styled = Prompts(tasks=("add", "form"), train=1, heldout=f.heldout, seed=seed, style="benchmark")
    return {
        "prompts": prompts,
        **made,
        "policies": ComparePolicies(prompts=prompts, members={"sft": sft, **models}, samples=2, **look),
        "style-prompts": styled,
        "style": ComparePolicies(prompts=styled, members={"sft": sft, "student": models["student"]}, samples=1, **look),
    }
