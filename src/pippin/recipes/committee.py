"""A round of the committee (iTeC, report section 4.3.1; afm 8) as stages, for the recipes that have one.

The committee answers prompts, a rule says which answers are better, the reward model is trained anew, every algorithm
trains its model from the newest student, all of them answer, the best answer to each prompt is picked, and the student
learns from the picks. The report is silent about nearly all numbers; these are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pippin.model.config import ModelConfig
from pippin.pipeline import Stage
from pippin.stages.collect import CollectPreferences
from pippin.stages.picked import SOURCE, Picked
from pippin.stages.preference import PreferenceTuning
from pippin.stages.prompts import Prompts
from pippin.stages.reinforce import Reinforce
from pippin.stages.responses import Responses
from pippin.stages.reward import Reward
from pippin.stages.round_report import RoundReport
from pippin.stages.sft import Sft
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
    report = RoundReport(number=number, picked=picked, preferences=preferences, reward=reward)
    found |= made | {"answers": answers, "picked": picked, "student": student, "round": report}
    return {f"{name}-{number}": stage for name, stage in found.items()}


def spec(steps: int, batch_size: int, lr: float, **more: Any) -> TrainSpec:
    """A short training of the small model: float32, no decay."""
    numbers: dict[str, Any] = {
        "seq_len": 128, "warmup_steps": min(10, steps // 4), "weight_decay": 0.0, "compute": "float32",
        "eval_every": 1_000, "checkpoint_every": 1_000,
    }  # fmt: skip
    return TrainSpec(steps=steps, batch_size=batch_size, lr=lr, **(numbers | more))
