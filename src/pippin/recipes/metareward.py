"""Meta-Rewarding in miniature: a small model answers, judges and judges its judgements (docs/metareward.md).

    pippin run metareward seed=0

Fine-tuning teaches all three parts of the generated world, each with exact answers. Then come iterations of
Meta-Rewarding and DPO, beside the same without the meta-judge, and a table of what became of each part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pippin.data.judging import BRIEF
from pippin.data.world_judging import TASKS
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.pipeline import Stage
from pippin.stages.judging import PARTS, TEXT, JudgingTokens
from pippin.stages.judging_report import JudgingReport
from pippin.stages.metareward import MetaReward
from pippin.stages.preference import PreferenceTuning
from pippin.stages.pretrain import Pretrain
from pippin.stages.prompts import Prompts
from pippin.stages.sft import Sft
from pippin.training.loop import TrainSpec


@dataclass(frozen=True)
class Params:
    """Every number of the miniature. K, N and rho are small because each prompt costs up to K + K N + N(N - 1) calls.

    Attributes:
        documents, each, vocab_size: see `stages.judging`.
        core, sft, dpo: the numbers of pre-training, fine-tuning and of each iteration.
        parts: shares of the three parts in fine-tuning.
        prompts: of each iteration; every iteration has its own.
        heldout: prompts, and meta-judgements, of the table.
        answers, judgements, rho: of Meta-Rewarding.
        iterations: at most 9.
        seed: of all: the world, the weights, the samples.
    """

    documents: int = 4_000
    each: int = 12_000
    vocab_size: int = 720
    d_model: int = 128
    n_layers: int = 3
    core: TrainSpec = field(
        default_factory=lambda: TrainSpec(
            steps=200, batch_size=8, seq_len=128, lr=0.003, warmup_steps=20, schedule="constant", optimizer="adamw"
        )
    )
    sft: TrainSpec = field(
        default_factory=lambda: TrainSpec(
            steps=1_500,
            batch_size=8,
            seq_len=128,
            lr=0.003,
            warmup_steps=20,
            floor=0.05,
            optimizer="adamw",
            eval_every=500,
            checkpoint_every=500,
        )
    )
    parts: dict[str, float] = field(default_factory=lambda: {"act": 0.25, "judge": 0.5, "meta": 0.25})
    dpo: TrainSpec = field(
        default_factory=lambda: TrainSpec(
            steps=60, batch_size=32, seq_len=96, lr=0.0002, warmup_steps=5, weight_decay=0.0, optimizer="adamw"
        )
    )
    beta: float = 0.1
    prompts: int = 128
    heldout: int = 150
    answers: int = 4
    judgements: int = 4
    rho: float = 0.1
    iterations: int = 2
    seed: int = 0


CONTEXT = 192
ANSWER_TOKENS = 12
JUDGE_TOKENS = 40
META_TOKENS = 8


def metareward(p: Params = Params()) -> dict[str, Stage]:
    """Stages of the miniature."""
    if not 1 <= p.iterations <= 9:
        raise UserError(f"iterations={p.iterations}: must lie between 1 and 9")
    tokens = JudgingTokens(documents=p.documents, each=p.each, heldout=p.heldout, vocab_size=p.vocab_size, seed=p.seed)
    # Heads of 64 and a short RoPE base, as in the quickstart: copying is learnt sooner.
    model = ModelConfig(
        vocab_size=p.vocab_size, d_model=p.d_model, n_layers=p.n_layers, n_heads=p.d_model // 64,
        n_kv_heads=p.d_model // 64, d_head=64, d_ff=2 * p.d_model, max_seq_len=CONTEXT, rope_base=10_000,
    )  # fmt: skip
    common: dict[str, Any] = {"tokens": tokens, "model": model, "seed": p.seed}
    core = Pretrain(train=p.core, mixture={TEXT: 1.0}, **common)
    sft = Sft(train=p.sft, mixture=p.parts, start=core, heldout_sources=PARTS, **common)
    asked = [
        Prompts(tasks=TASKS, train=p.prompts, heldout=p.heldout, seed=10 * p.seed + number)
        for number in range(p.iterations)
    ]
    stages: dict[str, Stage] = {"tokens": tokens, "core": core, "sft": sft}
    stages |= {f"prompts-{number}": each for number, each in enumerate(asked, 1)}
    models: dict[str, Stage] = {"sft": sft}
    for arm, meta in (("meta", True), ("self", False)):
        before: Stage = sft
        for number, prompts in enumerate(asked, 1):
            pairs = MetaReward(
                prompts=prompts, model=before, rubric=BRIEF, answers=p.answers, judgements=p.judgements, meta=meta,
                rho=p.rho, max_tokens=ANSWER_TOKENS, judge_tokens=JUDGE_TOKENS, meta_tokens=META_TOKENS,
                temperature=1.0, seed=p.seed,
            )  # fmt: skip
            before = PreferenceTuning(start=before, preferences=pairs, train=p.dpo, beta=p.beta, seed=p.seed)
            stages |= {f"{arm}-pairs-{number}": pairs, f"{arm}-{number}": before}
            models[f"{arm}-{number}"] = before
    report = JudgingReport(
        prompts=asked[0], models=models, answers=p.answers, judgements=p.judgements, exercises=p.heldout,
        max_tokens=ANSWER_TOKENS, judge_tokens=JUDGE_TOKENS, temperature=1.0, seed=p.seed,
    )  # fmt: skip
    return stages | {"report": report}
