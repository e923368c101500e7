"""Which checkpoint of a training stage goes on: by a metric, or by best-of-N with the reward model (afm 6.4)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pippin import files
from pippin.data.chat import render
from pippin.data.prompts import Prompt
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate import exact_match
from pippin.evaluate.text_table import text_table
from pippin.evaluate.verify.prompts import Verifier
from pippin.interop.load import load_model
from pippin.interop.reward import check_same_tokenizer
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage
from pippin.rollout import rollouts
from pippin.stages.adapter import Adapter
from pippin.stages.benchmark import benchmark_records, score
from pippin.stages.committee import score_responses
from pippin.stages.prompts import prompts_of
from pippin.stages.training import TrainingStage
from pippin.training.checkpoint_files import step_directory
from pippin.training.checkpoint_model import step_model

EXACT, BEST_OF_N, BITS = "exact_match", "best_of_n", "bpb_"
SCORES = "scores.json"  # of the candidates that are done, until all are


def best_step(scores: Mapping[int, float], larger: bool) -> int:
    """The step with the best score; the earliest of equals. A score that is not finite never wins.

    Raises:
        UserError: no score is finite.
    """
    finite = {step: value for step, value in scores.items() if math.isfinite(value)}
    if not finite:
        raise UserError(f"steps {', '.join(map(str, sorted(scores)))}: no score is a finite number; none can be chosen")
    return min(finite, key=lambda step: (-finite[step] if larger else finite[step], step))


@dataclass(frozen=True, kw_only=True)
class Choose(Stage):
    """`model/` of the best step that `trained` kept (`keep_every`) or ended with; `report/` has every step's score.

    A step whose files are not what they were is left out, and said. Scores that are done survive a kill.

    Args:
        trained: what left the checkpoints; it trains a whole model.
        metric: "bpb_<source>", held-out bits per byte of one of its sources (less is better); "exact_match" on
            held-out exercises, each task counting alike; "best_of_n": of n samples for each held-out prompt the reward
            model takes its favourite, and its reward counts, the mean over prompts.
        instruct, tasks, per_task: for exact_match, as in `Benchmark`.
        prompts, reward: for best_of_n, where `prompts/` and `reward/` come from.
        samples, max_tokens, temperature, seed: of best_of_n; the same for every step. A sample that was cut short is
            nobody's favourite while another one ended.
        max_prompts: of best_of_n, the first of them.
    """

    trained: TrainingStage
    metric: str
    instruct: Stage | None = None
    tasks: tuple[str, ...] = ()
    per_task: int = 25
    prompts: Stage | None = None
    reward: Stage | None = None
    samples: int = 8
    max_tokens: int = 64
    temperature: float = 1.0
    max_prompts: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.trained, Adapter):
            raise UserError("trained: its checkpoints are of an adapter; give a stage that trains a whole model")
        sources = self.trained.heldout_sources or tuple(self.trained.mixture)
        known = (*(f"{BITS}{source}" for source in sources), EXACT, BEST_OF_N)
        if self.metric not in known:
            raise UserError(f"metric: value {self.metric!r}: choose from {', '.join(known)}")
        if self.metric == EXACT and self.instruct is None:
            raise UserError(f"instruct: missing; metric={EXACT} needs a stage with exercises")
        if self.metric == BEST_OF_N and (self.prompts is None or self.reward is None):
            raise UserError(f"prompts, reward: metric={BEST_OF_N} needs a stage with prompts and a reward model")
        for name in ("per_task", "samples", "max_tokens", "max_prompts"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: value {getattr(self, name)}: must be at least 1")
        if not self._kept():
            t = self.trained.train
            raise UserError(
                f"keep_every={t.keep_every}, checkpoint_every={t.checkpoint_every}: no checkpoint of {t.steps} steps "
                "is kept, so there is nothing to choose from; set keep_every to a multiple of checkpoint_every"
            )

    def _kept(self) -> list[int]:
        """The steps whose checkpoints stay when `trained` is done, however often it was stopped on the way."""
        t = self.trained.train
        return list(range(each := math.lcm(t.checkpoint_every, t.keep_every), t.steps, each)) if t.keep_every else []

    def run(self, ctx: Context) -> None:
        kept = ctx.dir / "checkpoint" / SCORES
        found: dict[str, dict[str, Any]] = files.read_json(kept) if kept.exists() else {}
        steps = [*self._kept(), self.trained.train.steps]
        with ctx.track(len(steps)) as bar:
            for step in steps:
                if str(step) not in found:
                    found[str(step)] = self._tried(ctx, step)
                    kept.parent.mkdir(exist_ok=True)
                    files.write_json(kept, found)
                bar.advance()
        scores = {int(step): _number(each["score"]) for step, each in found.items() if "damage" not in each}
        larger = not self.metric.startswith(BITS)
        chosen = best_step(scores, larger)
        self.trained.save(ctx, self._model(ctx, chosen), {})
        files.write_json(
            ctx.out("report") / "choice.json", {"metric": self.metric, "larger_is_better": larger, "step": chosen}
            | {"steps": found},
        )  # fmt: skip
        text = _table(self.metric, larger, found, chosen)
        files.write_text(ctx.out("report") / "summary.txt", text)
        ctx.say(text)
        ctx.result(step=chosen, metric=self.metric, score=scores[chosen], steps=found)

    def _model(self, ctx: Context, step: int) -> Transformer:
        if step == self.trained.train.steps:
            return load_model(ctx.artifact(self.trained, "model"), self.trained.train.dtype)
        directory = step_directory(ctx.directory(self.trained) / "checkpoint", step)
        return step_model(directory, self.trained.train.dtype)

    def _tried(self, ctx: Context, step: int) -> dict[str, Any]:
        """The score of a step and what belongs to it, or the damage."""
        try:
            model = self._model(ctx, step)
        except UserError as error:
            if step == self.trained.train.steps:
                raise
            ctx.say(f"step {step} is left out: {error}")
            return {"damage": str(error)}
        model.requires_grad_(False)
        if self.metric == EXACT:
            return self._exact(ctx, model)
        if self.metric == BEST_OF_N:
            return self._best_of_n(ctx, model)
        return {"score": _json(self.trained.figures(ctx, model)[self.metric])}

    def _exact(self, ctx: Context, model: Transformer) -> dict[str, Any]:
        assert self.instruct is not None
        tokenizer = Tokenizer.load(self.trained.tokens.tokenizer_dir(ctx))
        records = benchmark_records(ctx.artifact(self.instruct, "instruct"), self.tasks, self.per_task)
        grade = exact_match.grade(records, exact_match.chat_answers(model, tokenizer, records))
        return {"score": score(grade), "tasks": {task: each.share for task, each in grade.by_task.items()}}

    def _best_of_n(self, ctx: Context, model: Transformer) -> dict[str, Any]:
        assert self.prompts is not None
        assert self.reward is not None
        reward = ctx.artifact(self.reward, "reward")
        check_same_tokenizer(reward, self.trained.tokens.tokenizer_dir(ctx))
        tokenizer = Tokenizer.load(reward)
        prompts = prompts_of(ctx, self.prompts, "heldout")[: self.max_prompts]
        asked = [render(tokenizer, prompt["messages"], add_generation_prompt=True).ids for prompt in prompts]
        drawn = rollouts(
            model, asked, max_tokens=self.max_tokens, stop_ids={tokenizer.end_id, tokenizer.eos_id},
            n_per_prompt=self.samples, temperature=self.temperature, seed=self.seed,
        )  # fmt: skip
        texts = [tokenizer.decode(each.tokens[:-1] if each.stopped else each.tokens) for each in drawn]
        every = [prompt["messages"] for prompt in prompts for _ in range(self.samples)]
        rewards = score_responses(reward, every, texts)
        picks = []
        for start in range(0, len(texts), self.samples):
            own = range(start, start + self.samples)
            ended = [place for place in own if drawn[place].stopped and texts[place].strip()]
            picks.append(max(ended or own, key=lambda place: (rewards[place], -place)))
        means = {
            "score": statistics.fmean(rewards[place] for place in picks), "mean_reward": statistics.fmean(rewards),
            "ended": sum(each.stopped for each in drawn) / len(drawn),
        }  # fmt: skip
        return means | _right(prompts, texts, picks)

    def cost(self) -> Cost:
        return Cost(other_s=10 * (1 + len(self._kept())))


def _right(prompts: Sequence[Prompt], texts: Sequence[str], picks: Sequence[int]) -> dict[str, float]:
    """Where every prompt has a verifier: the share of picks that are right, of all samples, of prompts with one."""
    if not all(prompt["verifier"] for prompt in prompts):
        return {}
    n = len(texts) // len(prompts)
    with Verifier() as verifier:
        right = [verifier.check(prompts[place // n], text).correct for place, text in enumerate(texts)]
    return {
        "right_picked": sum(right[place] for place in picks) / len(picks),
        "right_mean": sum(right) / len(right),
        "right_any": sum(any(right[start : start + n]) for start in range(0, len(right), n)) / len(picks),
    }


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _table(metric: str, larger: bool, found: Mapping[str, Mapping[str, Any]], chosen: int) -> str:
    names = dict.fromkeys(name for each in found.values() for name in each)
    numbers = [name for name in names if name not in ("score", "tasks", "damage")]
    rows = [
        [step, _told(each.get("score")), *(_told(each.get(name)) for name in numbers),
         "chosen" if int(step) == chosen else "damaged" if "damage" in each else ""]
        for step, each in found.items()
    ]  # fmt: skip
    title = f"Steps by {metric} ({'more' if larger else 'less'} is better)"
    return text_table(title, ["step", "score", *(name.replace("_", " ") for name in numbers), ""], rows)


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
