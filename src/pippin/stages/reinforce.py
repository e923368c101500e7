"""Online reinforcement learning: RLOO, MDLOO (report section 4.3.2) and, to compare with, a clipped ratio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.verify.prompts import Verifier
from pippin.files import write_text
from pippin.interop.load import load_model
from pippin.interop.reward import check_same_tokenizer, load_reward
from pippin.model.reward import RewardModel
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage
from pippin.rollout import Rollout, rollouts
from pippin.stages.policies import encode_prompts, save_policy, share, text_of, verified
from pippin.stages.prompts import Prompts, prompts_of
from pippin.training.experience import Experience, Iteration, Told
from pippin.training.loop import TrainSpec, fit
from pippin.training.policy import PolicyKind, policy_loss
from pippin.training.rewards import reward_responses

KINDS: tuple[PolicyKind, ...] = ("mdloo", "rloo", "ppo")
LOOK_PROMPTS = 128  # held-out prompts looked at while training


@dataclass(frozen=True, kw_only=True)
class Reinforce(Stage):
    """Train `start` on its own responses to prompts, in one process (afm 9).

    At each iteration the model answers prompts, K responses each. R = r - beta (log pi - log pi_ref), the KL to the
    reference inside the reward; the advantage is R less the mean of the prompt's other responses. Then a few steps
    are taken on the same responses. Artifacts: `model/`, and `responses/iteration-<n>.jsonl` with what was sampled.

    Args:
        start: whose `model/` it begins from; it is the reference, too.
        prompts: the training side is answered, the held-out side looked at.
        reward: a stage with `reward/` that judges; None: the prompts' own verifiers, 1 for a solution and 0 else.
        train: the numbers; `batch_size` counts responses, `seq_len` is prompt and response at most.
        kind: "mdloo"; "rloo", one step on each response unless `epochs` says otherwise; "ppo", which clips the ratio.
        responses: K, 4 (8 at scale); ours, as beta and gamma, for the report is silent (afm 9.8, 9.9).
        minibatches: steps in which an iteration's responses are seen once.
        epochs: how often they are gone over.
        beta: of the KL to the reference.
        gamma: of MDLOO's KL to the iterate.
        unfinished: taken off the reward of a response that `max_tokens` cut short (ours).
        max_tokens: of a response.
        temperature: of sampling; log-probabilities are those at this temperature.
        seed: of prompts, samples and minibatches.
    """

    start: Stage
    prompts: Prompts
    reward: Stage | None = None
    train: TrainSpec
    kind: PolicyKind = "mdloo"
    responses: int = 4
    minibatches: int = 2
    epochs: int = 1
    beta: float = 0.05
    gamma: float = 0.1
    unfinished: float = 1.0
    max_tokens: int = 32
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.train.check()
        if self.kind not in KINDS:
            raise UserError(f"kind={self.kind}: must be one of {', '.join(KINDS)}")
        if self.responses < 2:
            raise UserError(
                f"responses={self.responses}: leave-one-out compares a prompt's responses; ask for 2 or more"
            )
        if self.train.batch_size % self.responses:
            raise UserError(
                f"batch_size={self.train.batch_size}: counts responses; must be a multiple of "
                f"responses={self.responses}"
            )
        for name in ("minibatches", "epochs", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("beta", "gamma", "unfinished"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name}={getattr(self, name)}: must be at least 0 and finite")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature}: must be above 0 and finite")
        if self.steps_together > 1:
            for name in ("steps", "checkpoint_every"):
                if getattr(self.train, name) % self.steps_together:
                    raise UserError(
                        f"{name}={getattr(self.train, name)}: an iteration is minibatches x epochs = "
                        f"{self.steps_together} steps; must be a multiple of it"
                    )

    @property
    def steps_together(self) -> int:
        """Steps of an iteration."""
        return self.minibatches * self.epochs

    @property
    def samples(self) -> int:
        """Responses sampled in all."""
        return self.train.steps // self.epochs * self.train.batch_size

    def run(self, ctx: Context) -> None:
        torch.manual_seed(self.seed)
        directory = ctx.artifact(self.start, "model")
        model = load_model(directory, self.train.dtype)
        reference = load_model(directory, self.train.dtype).requires_grad_(False).eval()
        with Verifier() as verifier:
            actor = _Actor(self, ctx, model, Tokenizer.load(directory), self._reward_model(ctx, directory), verifier)
            iteration = Iteration(self.responses, self.minibatches, self.epochs, self.beta)
            experience = Experience(
                model, reference, actor.ids, iteration, self.train.batch_size, self.seed, actor, self.temperature
            )
            loss = partial(policy_loss, model, experience.iterate, self.kind, self.gamma, self.temperature)
            before = actor.look()
            fit(model, loss, experience, self.train, ctx, actor.look, period=self.steps_together)
            after = actor.look()
        save_policy(ctx, model, directory)
        ctx.result(samples=self.samples, before=before, **after)

    def _reward_model(self, ctx: Context, directory: Path) -> RewardModel | None:
        if self.reward is None:
            return None
        own = ctx.artifact(self.reward, "reward")
        check_same_tokenizer(own, directory)
        return load_reward(own, self.train.dtype).requires_grad_(False).eval()

    def cost(self) -> Cost:
        return Cost(tokens=self.train.tokens, other_s=self.samples * self.max_tokens / 4_000)


class _Actor:
    """The model as it answers prompts, and what judges the answers."""

    def __init__(
        self, stage: Reinforce, ctx: Context, model: Transformer, tokenizer: Tokenizer, reward: RewardModel | None,
        verifier: Verifier,
    ) -> None:  # fmt: skip
        self.stage, self.ctx, self.model, self.tokenizer = stage, ctx, model, tokenizer
        self.reward, self.verifier = reward, verifier
        longest = min(stage.train.seq_len, model.config.max_seq_len)
        self.asked = prompts_of(ctx, stage.prompts, "train")
        self.ids = encode_prompts(tokenizer, self.asked, stage.max_tokens, longest)
        self.looked = prompts_of(ctx, stage.prompts, "heldout")[:LOOK_PROMPTS]
        self.looked_ids = encode_prompts(tokenizer, self.looked, stage.max_tokens, longest)
        self.stops = set(tokenizer.special.values())

    def sample(self, numbers: Sequence[int], each: int, seed: int) -> list[Rollout]:
        return rollouts(
            self.model, [self.ids[n] for n in numbers], n_per_prompt=each, max_tokens=self.stage.max_tokens,
            stop_ids=self.stops, temperature=self.stage.temperature, seed=seed,
        )  # fmt: skip

    def judge(self, numbers: Sequence[int], drawn: Sequence[Rollout]) -> list[float]:
        if self.reward is None:
            right = verified(self.verifier, self.tokenizer, [self.asked[n] for n in numbers], drawn)
            found = [float(ok) for ok in right]
        else:
            rows = [[*r.prompt, *r.tokens] for r in drawn]
            found = reward_responses(self.reward, rows, self.tokenizer.end_id)
        return [r - self.stage.unfinished * (not d.stopped) for r, d in zip(found, drawn, strict=True)]

    def log(self, step: int, numbers: Sequence[int], drawn: Sequence[Rollout], told: Told) -> None:
        """Figures of an iteration, and its responses as JSON lines."""
        n = len(drawn)
        self.ctx.log(
            step, reward=sum(told.rewards) / n, kl_reference=sum(told.kl) / n, log_prob_error=told.log_prob_error,
            response_tokens=sum(len(d.tokens) for d in drawn) / n, stopped=sum(d.stopped for d in drawn) / n,
        )  # fmt: skip
        number = step // self.stage.steps_together
        each = n // len(numbers)
        lines = [
            json.dumps(
                {
                    "prompt": self.asked[numbers[row // each]]["id"], "sample": row % each,
                    "response": text_of(self.tokenizer, d), "stopped": d.stopped, "reward": reward,
                    "advantage": advantage,
                },
                ensure_ascii=False,
            )
            for row, (d, reward, advantage) in enumerate(zip(drawn, told.rewards, told.advantages, strict=True))
        ]  # fmt: skip
        write_text(self.ctx.out("responses") / f"iteration-{number:05}.jsonl", "".join(line + "\n" for line in lines))

    def look(self) -> dict[str, float]:
        """The share of held-out prompts that the most likely response solves."""
        training = self.model.training
        self.model.eval()
        found = rollouts(
            self.model, self.looked_ids, max_tokens=self.stage.max_tokens, stop_ids=self.stops, temperature=0.0
        )
        self.model.train(training)
        return {"solved": share(verified(self.verifier, self.tokenizer, self.looked, found))["share"]}
