"""Post-training on tasks with exact verifiers: every algorithm beside the others, then rounds of the committee (iTeC).

A small model learns to write (`pretrain`) and to answer from demonstrations of which half are bad (`sft`): it can do
better than it does, which is what the rest has to bring out. Rounds of the committee follow (`recipes.committee`), and
`compare` judges all models on held-out prompts. The numbers are ours, and small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pippin.model.config import ModelConfig
from pippin.pipeline import Stage
from pippin.recipes.committee import Round, committee_round, spec
from pippin.recipes.corpus import Corpus, up_to
from pippin.stages.demonstrations import SOURCE as DEMONSTRATIONS
from pippin.stages.demonstrations import Demonstrations
from pippin.stages.policies import ComparePolicies
from pippin.stages.pretrain import Pretrain
from pippin.stages.prompts import Prompts
from pippin.stages.sft import Sft
from pippin.stages.tokenize import Tokenize, TrainTokenizer
from pippin.training.loop import TrainSpec


@dataclass(frozen=True)
class Params:
    """Every number.

    Attributes:
        data: a file of prompts (see `data.prompts`); "": exercises of the generated world.
        tasks: of the world (`data.world_tasks`), for the demonstrations and, without `data`, for the prompts.
        prompts, heldout_prompts: how many exercises.
        rounds: of the committee.
        bad: the share of bad demonstrations.
    """

    data: str = ""
    tasks: tuple[str, ...] = ("add", "sort", "digits", "form")
    prompts: int = 6_000
    heldout_prompts: int = 400
    rounds: int = 3
    demonstrations: int = 20_000
    bad: float = 0.5
    corpus: Corpus = field(default_factory=lambda: Corpus(world_tasks=10_000, instruct_world=2_000))
    vocab_size: int = 512
    pretrain: TrainSpec = field(default_factory=lambda: spec(1_500, 8, 0.005, warmup_steps=40))
    sft: TrainSpec = field(default_factory=lambda: spec(800, 8, 0.004, floor=0.05))
    round: Round = field(
        default_factory=lambda: Round(
            reward=spec(150, 32, 0.002),
            rs=spec(150, 16, 0.002),
            preference=spec(120, 32, 0.0002),
            mdloo=spec(120, 128, 0.0005, schedule="constant", checkpoint_every=120),
            student=spec(300, 16, 0.002),
            prompts=2_000,
            picked_by="both",
            rl_reward="verifier",
        )
    )
    seed: int = 0


PARAMS = Params()


def small_model(vocab_size: int) -> ModelConfig:
    """650,000 parameters: the shape of the quickstart's student, with less context."""
    return ModelConfig(
        vocab_size=vocab_size, d_model=128, n_layers=3, n_heads=2, n_kv_heads=2, d_head=64, d_ff=336, max_seq_len=256,
        rope_base=10_000.0,
    )  # fmt: skip


def start_of(p: Params) -> dict[str, Stage]:
    """The stages up to the fine-tuned model, and the prompts."""
    curate = p.corpus.curate()
    tokenizer = TrainTokenizer(curate=curate, vocab_size=p.vocab_size, or_fewer=True)
    tokens = Tokenize(curate=curate, tokenizer=tokenizer)
    model = small_model(p.vocab_size)
    pretrain = Pretrain(tokens=tokens, train=p.pretrain, mixture={"tasks": 1.0}, model=model, seed=p.seed)
    shown = Demonstrations(tokenizer=tokenizer, tasks=p.tasks, train=p.demonstrations, bad=p.bad, seed=p.seed)
    sft = Sft(tokens=shown, start=pretrain, train=p.sft, mixture={DEMONSTRATIONS: 1.0}, model=model, seed=p.seed)
    asked: dict[str, Any] = {"tasks": p.tasks, "train": p.prompts, "heldout": p.heldout_prompts, "seed": p.seed}
    prompts = Prompts(data=p.data) if p.data else Prompts(**asked)
    return {
        **up_to(curate), "tokenizer": tokenizer, "tokens": tokens, "pretrain": pretrain, "demonstrations": shown,
        "sft": sft, "prompts": prompts,
    }  # fmt: skip


def posttrain(p: Params = PARAMS) -> dict[str, Stage]:
    """Stages of the recipe."""
    stages = start_of(p)
    sft, prompts = stages["sft"], stages["prompts"]
    assert isinstance(sft, Sft)
    assert isinstance(prompts, Prompts)
    judged: dict[str, Stage] = {"sft": sft}
    student: Stage = sft
    members: dict[str, Stage] = {"sft": sft}
    for number in range(1, p.rounds + 1):
        made = committee_round(number, student, sft, sft.model, prompts, members, p.round, p.seed + number)
        stages |= made
        models = {name: made[f"{name}-{number}"] for name in (*p.round.methods, "student")}
        judged |= {f"{name}-{number}": stage for name, stage in models.items()}
        # The latest models and the best earlier one, the student that they began from (afm 8.2).
        members = models | ({"earlier": student} if number > 1 else {"sft": sft})
        student = models["student"]
    stages["compare"] = ComparePolicies(
        prompts=prompts, reference=sft, members=judged, max_tokens=p.round.max_tokens, seed=p.seed
    )
    return stages
