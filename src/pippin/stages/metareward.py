"""Meta-Rewarding: a model answers, judges its answers and judges its judgements; both give pairs to learn from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from pippin import files
from pippin.data.chat import render
from pippin.data.judging import BEST, FULL, Rubric, judge_prompt, meta_prompt, read_better
from pippin.data.mixture import derive
from pippin.data.prompts import Prompt
from pippin.data.records import Message
from pippin.data.tokenizer import Tokenizer
from pippin.data.writer import KeptWriter, Writer
from pippin.errors import UserError
from pippin.evaluate.metareward import (
    Battle,
    Scores,
    battle_matrix,
    elo_mle,
    judge_pair,
    judge_scores,
    length_control_pair,
    position_weights,
    score_entropy,
    top_share,
)
from pippin.interop.load import load_model
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.pairs import PREFERENCES
from pippin.stages.prompts import Prompts, prompts_of
from pippin.writer import ModelWriter

BY = "meta-reward"

GROUP = 64  # conversations that are asked together, and that a kill may cost
SATURATED = 0.8  # share of scores at the maximum, above which they say nothing (ours)


class Judged(NamedTuple):
    """An answer to a prompt, how often it was sampled, its judgements and what they say."""

    prompt: Prompt
    answer: str
    samples: int
    verdicts: list[str]
    scores: Scores


class Tournament(NamedTuple):
    """The different readable judgements of one answer, their scores, and the battles among them."""

    of: Judged
    verdicts: list[str]
    scores: list[float | None]
    battles: list[Battle]


@dataclass(frozen=True, kw_only=True)
class MetaReward(Stage):
    """One iteration of Meta-Rewarding (Wu et al., arXiv:2407.19594) as a source of preferences; see
    `evaluate.metareward`.

    Per prompt K answers, N judgements of each, and N(N - 1) meta-judgements of the answer whose scores differ most.
    Equal answers to a prompt are judged once; equal judgements do not meet (both ours). Answers that have no end within
    `max_tokens` and empty ones are left out and counted, as is what has no room in the model's context (`too_long`).

    Artifacts: `preferences/preferences.jsonl` (see `data.preferences`; "by": "meta-reward", "part": "actor" or
    "judge"), `scores/answers.jsonl` and `scores/battles.jsonl` with every verdict, `report/metareward.json`.

    Args:
        prompts: whose training prompts are answered.
        model: actor, judge and meta-judge.
        rubric: what the two judges are asked; its default is for models that follow instructions.
        answers: K.
        judgements: N.
        meta: make pairs of judgements, too; without, it is self-rewarding with length control.
        rho: of the length control.
        max_tokens, judge_tokens, meta_tokens: of an answer, a judgement and a meta-judgement.
        temperature: of all three.
        max_calls: refuse, before a model is loaded, where more samples than this may be asked for.
    """

    prompts: Stage
    model: Stage
    max_tokens: int
    judge_tokens: int = 256
    meta_tokens: int = 256
    rubric: Rubric = FULL
    answers: int = 4
    judgements: int = 4
    meta: bool = True
    rho: float = 0.1
    temperature: float = 0.8
    max_calls: int = field(default=50_000, metadata={"how": True})
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_tokens", "judge_tokens", "meta_tokens", "max_calls"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("answers", "judgements"):
            if getattr(self, name) < 2:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 2, as pairs are made of them")
        if not 0 <= self.rho < 0.5:
            raise UserError(f"rho={self.rho}: must be at least 0 and below 0.5")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature}: must be above 0; equal samples make no pairs")

    @property
    def calls_per_prompt(self) -> int:
        """K + K N, and N(N - 1) with the meta-judge."""
        k, n = self.answers, self.judgements
        return k + k * n + (n * (n - 1) if self.meta else 0)

    def run(self, ctx: Context) -> None:
        prompts = prompts_of(ctx, self.prompts, "train")
        most = len(prompts) * self.calls_per_prompt
        if most > self.max_calls:
            raise UserError(
                f"max_calls={self.max_calls}: {len(prompts)} prompts with up to {self.calls_per_prompt} calls each are "
                f"{most}; allow that many, or take fewer prompts, answers or judgements"
            )
        directory = ctx.artifact(self.model, "model")
        tokenizer = Tokenizer.load(directory)
        model = load_model(directory).to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False)
        with ctx.track(most) as bar:
            kept = KeptWriter(
                ModelWriter(model, tokenizer, ctx.label(self.model)), ctx.dir / "checkpoint" / "calls.jsonl", GROUP,
                progress=bar.advance, keep_empty=True,
            )  # fmt: skip
            asker = _Asker(kept, tokenizer, model.config.max_seq_len, self.temperature)
            judged = self._judged(asker, prompts)
            report = self._spread(ctx, judged)
            tournaments = self._fought(asker, judged) if self.meta else []
        chosen = self._actor_pairs(judged)
        battles = [battle for each in tournaments for battle in each.battles]
        weights = position_weights(battles)
        fought = [(each, *self._judge_pair(tokenizer, each, weights)) for each in tournaments]
        lines = [_pair("actor", one.prompt["messages"], one.answer, other.answer) for one, other in chosen]
        lines += [
            _pair("judge", self._asked(each.of), each.verdicts[pair[0]], each.verdicts[pair[1]])
            for each, _, pair in fought
            if pair is not None
        ]
        if not lines:
            raise UserError(f"{ctx.name}: no pair came out; its judge gives all answers to a prompt the same score")
        files.write_text(ctx.out("preferences") / PREFERENCES, _lines(lines))
        files.write_text(ctx.out("scores") / "answers.jsonl", _lines(map(_answer_line, judged)))
        files.write_text(ctx.out("scores") / "battles.jsonl", _lines(_battle_line(*each) for each in fought))
        won = [sum(battle.result == side for battle in battles) for side in (1, -1, 0)]
        report |= {
            "prompts": len(prompts),
            "calls": kept.calls + kept.kept,
            "too_long": asker.too_long,
            "left_out": len(prompts) * self.answers - sum(each.samples for each in judged),
            "actor_pairs": len(chosen),
            "judge_pairs": len(lines) - len(chosen),
            "longer_by": _mean([len(one.answer) - len(other.answer) for one, other in chosen]),
            "battles": {"first": won[0], "second": won[1], "tie": won[2]},
            "position_weights": list(weights),
        }
        files.write_json(ctx.out("report") / "metareward.json", report)
        ctx.log(score_mean=report["score_mean"], score_entropy=report["score_entropy"])
        ctx.say(
            f"{report['actor_pairs']} pairs of answers, {report['judge_pairs']} of judgements; scores: mean "
            f"{report['score_mean']:.2f}, entropy {report['score_entropy']:.2f} bits, at the maximum "
            f"{report['score_at_best']:.0%}"
        )
        ctx.result(**report)

    def _asked(self, each: Judged) -> list[Message]:
        return judge_prompt(self.rubric, each.prompt["messages"], each.answer)

    def _judged(self, asker: _Asker, prompts: Sequence[Prompt]) -> list[Judged]:
        """The different answers to each prompt, with their scores."""
        written = asker.ask([p["messages"] for p in prompts], self.answers, self.max_tokens, derive(self.seed, "actor"))
        found = []
        for prompt, texts in zip(prompts, written, strict=True):
            whole = [text for text in texts if text.strip() and asker.length(text) < self.max_tokens]
            found += [Judged(prompt, text, whole.count(text), [], judge_scores([])) for text in dict.fromkeys(whole)]
        verdicts = asker.ask(
            list(map(self._asked, found)), self.judgements, self.judge_tokens, derive(self.seed, "judge")
        )
        return [
            each._replace(verdicts=said, scores=judge_scores(said)) for each, said in zip(found, verdicts, strict=True)
        ]

    def _spread(self, ctx: Context, judged: Sequence[Judged]) -> dict[str, Any]:
        """How the scores of this iteration lie; the paper's judges drift to giving 5, which ends it here."""
        verdicts = sum(len(each.verdicts) for each in judged)
        scores = [score for each in judged for score in each.scores.of_each if score is not None]
        if not verdicts:
            raise UserError(
                f"{ctx.name}: no answer ends within max_tokens={self.max_tokens} and leaves room to judge it; raise "
                f"it, or lower judge_tokens={self.judge_tokens}"
            )
        if not scores:
            raise UserError(
                f"{ctx.name}: none of {verdicts} judgements has a line 'Score: N'; take another model or rubric"
            )
        at_best = top_share(scores, BEST)
        if at_best > SATURATED:
            raise UserError(
                f"{ctx.name}: {at_best:.0%} of {len(scores)} scores are the maximum: the judge tells answers apart no "
                "more; end with the model before, or take harder prompts"
            )
        return {
            "answers": len(judged),
            "verdicts": verdicts,
            "unreadable": verdicts - len(scores),
            "score_mean": _mean(scores),
            "score_entropy": score_entropy(scores),
            "score_at_best": at_best,
        }

    def _actor_pairs(self, judged: Sequence[Judged]) -> list[tuple[Judged, Judged]]:
        by_prompt: dict[str, list[Judged]] = {}
        for each in judged:
            if each.scores.mean is not None:
                by_prompt.setdefault(each.prompt["id"], []).append(each)
        pairs = []
        for answers in by_prompt.values():
            means = [each.scores.mean or 0.0 for each in answers]
            pair = length_control_pair(means, [len(each.answer) for each in answers], self.rho)
            if pair is not None:
                pairs.append((answers[pair[0]], answers[pair[1]]))
        return pairs

    def _fought(self, asker: _Asker, judged: Sequence[Judged]) -> list[Tournament]:
        """Of each prompt the answer whose scores differ most: its judgements against each other, in both orders."""
        least_sure: dict[str, Judged] = {}
        for each in judged:
            known = least_sure.get(each.prompt["id"])
            if each.scores.variance > (known.scores.variance if known else 0.0):
                least_sure[each.prompt["id"]] = each
        tournaments, asked = [], []
        for each in least_sure.values():
            scores = dict(zip(each.verdicts, each.scores.of_each, strict=True))
            verdicts = [verdict for verdict, score in scores.items() if score is not None]
            tournament = Tournament(each, verdicts, [scores[verdict] for verdict in verdicts], [])
            tournaments.append(tournament)
            for a in range(len(verdicts)):
                for b in range(len(verdicts)):
                    if a != b:
                        messages = meta_prompt(
                            self.rubric, each.prompt["messages"], each.answer, verdicts[a], verdicts[b]
                        )
                        asked.append((tournament, a, b, messages))
        said = asker.ask([messages for *_, messages in asked], 1, self.meta_tokens, derive(self.seed, "meta"))
        for (tournament, a, b, _), texts in zip(asked, said, strict=True):
            tournament.battles.append(Battle(a, b, read_better(texts[0]) if texts else 0))
        return tournaments

    def _judge_pair(
        self, tokenizer: Tokenizer, each: Tournament, weights: tuple[float, float]
    ) -> tuple[list[float], tuple[int, int] | None]:
        """The strengths of the judgements and which two make a pair."""
        strengths = elo_mle(battle_matrix(len(each.verdicts), each.battles, weights))
        lengths = [len(tokenizer.encode(verdict)) for verdict in each.verdicts]
        # One that fills judge_tokens has no end.
        return strengths, judge_pair(strengths, each.scores, lengths, self.judge_tokens - 1)

    def cost(self) -> Cost:
        calls = self.max_calls
        if isinstance(self.prompts, Prompts) and self.prompts.tasks:
            calls = min(calls, self.prompts.train * self.calls_per_prompt)
        return Cost(bytes=400 * calls, other_s=2 + calls * self.judge_tokens / 5_000)


class _Asker:
    """A writer for conversations of which some have no room in the model's context."""

    def __init__(self, writer: Writer, tokenizer: Tokenizer, max_seq_len: int, temperature: float) -> None:
        self._writer, self._tokenizer, self._room, self._temperature = writer, tokenizer, max_seq_len, temperature
        self.too_long = 0

    def length(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode(text))

    def ask(self, conversations: Sequence[Sequence[Message]], n: int, max_tokens: int, seed: int) -> list[list[str]]:
        """As `Writer.write`; no texts for a conversation that is too long."""
        fits = [
            len(render(self._tokenizer, messages, add_generation_prompt=True).ids) + max_tokens <= self._room
            for messages in conversations
        ]
        self.too_long += fits.count(False)
        asked = [messages for messages, fit in zip(conversations, fits, strict=True) if fit]
        said = iter(self._writer.write(asked, n=n, max_tokens=max_tokens, temperature=self._temperature, seed=seed))
        return [next(said) if fit else [] for fit in fits]


def _pair(part: str, prompt: Sequence[Message], chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": list(prompt), "chosen": chosen, "rejected": rejected, "level": None, "by": BY, "part": part}


def _answer_line(each: Judged) -> dict[str, Any]:
    return {
        "prompt": each.prompt["id"], "answer": each.answer, "samples": each.samples, "verdicts": each.verdicts,
        "scores": each.scores.of_each, "mean": each.scores.mean,
    }  # fmt: skip


def _battle_line(each: Tournament, strengths: list[float], pair: tuple[int, int] | None) -> dict[str, Any]:
    return {
        "prompt": each.of.prompt["id"], "answer": each.of.answer, "verdicts": each.verdicts, "scores": each.scores,
        "battles": [list(battle) for battle in each.battles], "strengths": strengths,
        "pair": None if pair is None else list(pair),
    }  # fmt: skip


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
