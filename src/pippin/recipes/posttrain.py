"""Post-training on tasks with exact verifiers: every algorithm beside the others, then rounds of the committee (iTeC).

A small model learns to write (`pretrain`) and to answer from demonstrations of which half are bad (`sft`): it can do
better than it does, which is what the rest has to bring out. Then, in each round (afm 8): the committee answers
prompts, a rule says which answers are better, the reward model is trained anew, every algorithm trains its model
(rejection sampling, DPO, IPO, MDLOO), all of them answer, the best answer to each prompt is picked, and the student
learns from the picks. `compare` judges all of them on held-out prompts. The report is silent about nearly all numbers;
these are ours, and small.

A round is `committee_round`, which other recipes use, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pippin.model.config import ModelConfig
from pippin.pipeline import Stage
from pippin.recipes.corpus import Corpus, up_to
from pippin.stages.collect import CollectPreferences
from pippin.stages.demonstrations import SOURCE as DEMONSTRATIONS
from pippin.stages.demonstrations import Demonstrations
from pippin.stages.picked import SOURCE, Picked
from pippin.stages.policies import ComparePolicies
from pippin.stages.preference import PreferenceTuning
from pippin.stages.pretrain import Pretrain
from pippin.stages.prompts import Prompts
from pippin.stages.reinforce import Reinforce
from pippin.stages.responses import Responses
from pippin.stages.reward import Reward
from pippin.stages.sft import Sft
from pippin.stages.tokenize import Tokenize, TrainTokenizer
from pippin.training.loop import TrainSpec

METHODS = ("rs", "dpo", "ipo", "mdloo")


@dataclass(frozen=True)
class Round:
    """Numbers of one round.

    Attributes:
        methods: which algorithms train a model, of `METHODS`.
        prompts, samples: answered by each member for the preferences, and by all models for the picks.
        pairs_per_prompt: of the preferences.
        picked_by: what picks: the reward model, the prompts' verifiers, or the reward model among right answers.
        rl_reward: what reinforcement learning is rewarded by: the reward model or the verifiers.
        max_tokens: of a response.
        reward, rs, preference, mdloo, student: the training of each part.
        beta: of DPO; tau: of IPO; kl_beta, gamma, responses, minibatches, epochs: of MDLOO (see `Reinforce`).
    """

    reward: TrainSpec
    rs: TrainSpec
    preference: TrainSpec
    mdloo: TrainSpec
    student: TrainSpec
    methods: tuple[str, ...] = METHODS
    prompts: int = 1_000
    samples: int = 4
    pairs_per_prompt: int = 1
    picked_by: Literal["reward", "verifier", "both"] = "reward"
    rl_reward: Literal["reward", "verifier"] = "reward"
    max_tokens: int = 24
    beta: float = 0.3
    tau: float = 0.3
    kl_beta: float = 0.02
    gamma: float = 0.3
    responses: int = 4
    minibatches: int = 2
    epochs: int = 2


def committee_round(
    number: int, start: Stage, reference: Stage, model: ModelConfig, prompts: Prompts, members: dict[str, Stage],
    r: Round, seed: int,
) -> dict[str, Stage]:  # fmt: skip
    """The stages of a round by name, `<what>-<number>`.

    Args:
        number: of the round, from 1.
        start: the newest student (at first the SFT model): what every method starts from.
        reference: what the reward model starts from, the SFT model.
        model: their shape.
        prompts: with a verifier each.
        members: the committee that answers for the preferences: the newest models and the best earlier ones.
        r: the numbers.
        seed: of everything drawn.
    """
    common: dict[str, Any] = {"max_tokens": r.max_tokens, "samples": r.samples, "limit": r.prompts}
    # Other prompts and other noise for what is picked from than for what preferences are of.
    responses = Responses(prompts=prompts, members=members, seed=2 * seed, **common)
    preferences = CollectPreferences(
        prompts=prompts, responses=responses, pairs_per_prompt=r.pairs_per_prompt, seed=seed
    )
    reward = Reward(start=reference, preferences=preferences, train=r.reward, seed=seed)
    found: dict[str, Stage] = {"responses": responses, "preferences": preferences, "reward": reward}
    judge: dict[str, Any] = {"by": r.picked_by, "reward": None if r.picked_by == "verifier" else reward}
    made: dict[str, Stage] = {}
    sft: dict[str, Any] = {"model": model, "mixture": {SOURCE: 1.0}, "heldout_sources": (SOURCE,), "seed": seed}
    if "rs" in r.methods:
        own = Responses(prompts=prompts, members={"start": start}, seed=2 * seed + 1, **common)
        best = Picked(model=start, prompts=prompts, responses=own, **judge)
        made["rs"] = Sft(start=start, tokens=best, train=r.rs, **sft)
        found |= {"rs-responses": own, "rs-picked": best}
    tuning: dict[str, Any] = {"start": start, "preferences": preferences, "train": r.preference, "seed": seed}
    if "dpo" in r.methods:
        made["dpo"] = PreferenceTuning(kind="dpo", beta=r.beta, **tuning)
    if "ipo" in r.methods:
        made["ipo"] = PreferenceTuning(kind="ipo", beta=r.tau, **tuning)
    if "mdloo" in r.methods:
        made["mdloo"] = Reinforce(
            start=start, prompts=prompts, reward=reward if r.rl_reward == "reward" else None, train=r.mdloo,
            kind="mdloo", responses=r.responses, minibatches=r.minibatches, epochs=r.epochs, beta=r.kl_beta,
            gamma=r.gamma, max_tokens=r.max_tokens, seed=seed,
        )  # fmt: skip
    answers = Responses(prompts=prompts, members={"start": start, **made}, seed=2 * seed + 1, **common)
    picked = Picked(model=start, prompts=prompts, responses=answers, **judge)
    student = Sft(start=start, tokens=picked, train=r.student, **sft)
    found |= made | {"answers": answers, "picked": picked, "student": student}
    return {f"{name}-{number}": stage for name, stage in found.items()}


def spec(steps: int, batch_size: int, lr: float, **more: Any) -> TrainSpec:
    """A short training of the small model: float32, no decay."""
    numbers: dict[str, Any] = {
        "seq_len": 128, "warmup_steps": min(10, steps // 4), "weight_decay": 0.0, "compute": "float32",
        "eval_every": 1_000, "checkpoint_every": 1_000,
    }  # fmt: skip
    return TrainSpec(steps=steps, batch_size=batch_size, lr=lr, **(numbers | more))


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
