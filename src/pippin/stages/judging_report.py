"""How well models answer, judge and judge judgements, on the held-out side of the generated world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pippin import files
from pippin.data.judging import BRIEF, judge_prompt
from pippin.data.mixture import derive
from pippin.data.prompts import Prompt
from pippin.data.records import Message
from pippin.data.tokenizer import Tokenizer
from pippin.data.world_judging import conversation
from pippin.data.writer import Writer
from pippin.evaluate.exact_match import Proportion
from pippin.evaluate.metareward import auc, judge_scores
from pippin.evaluate.text_table import text_table
from pippin.evaluate.verify.prompts import Verifier
from pippin.interop.load import load_model
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.prompts import Prompts, prompts_of
from pippin.writer import ModelWriter


@dataclass(frozen=True, kw_only=True)
class JudgingReport(Stage):
    """Of each model, in a table and in `report/judging.json`:

    - act: the share of held-out prompts that its most likely answer solves, and that of its samples;
    - judge: the AUC of its mean score, right answers against wrong ones. All judge the same answers: different samples
      of the first model to the held-out prompts;
    - meta: the share of held-out meta-judgements of `data.world_judging` that its most likely one gets right.

    Args:
        prompts: of the world.
        models: by name; the first one gives the answers that are judged.
        answers, judgements: samples of each prompt, and of each answer's judgement.
        exercises: meta-judgements.
        max_tokens, judge_tokens: of an answer and of either judgement.
        seed: of the samples.
    """

    prompts: Prompts
    models: dict[str, Stage]
    answers: int
    judgements: int
    exercises: int
    max_tokens: int
    judge_tokens: int
    temperature: float = 0.8
    seed: int = 0

    def run(self, ctx: Context) -> None:
        prompts = prompts_of(ctx, self.prompts, "heldout")
        asked = [prompt["messages"] for prompt in prompts]
        meta = [conversation("meta", self.prompts.seed, index, "heldout") for index in range(self.exercises)]
        found: dict[str, dict[str, Any]] = {}
        pool: list[tuple[list[Message], bool]] = []
        with Verifier() as verifier, ctx.track(len(self.models)) as bar:
            for name, stage in self.models.items():
                directory = ctx.artifact(stage, "model")
                writer = ModelWriter(load_model(directory), Tokenizer.load(directory), name)
                greedy = writer.write(asked, max_tokens=self.max_tokens, temperature=0.0)
                drawn = writer.write(
                    asked, n=self.answers, max_tokens=self.max_tokens, temperature=self.temperature,
                    seed=derive(self.seed, "act"),
                )  # fmt: skip
                pool = pool or _pool(verifier, prompts, drawn)
                said = writer.write([messages[:-1] for messages in meta], max_tokens=self.judge_tokens, temperature=0.0)
                right = sum(texts[0] == messages[-1]["content"] for texts, messages in zip(said, meta, strict=True))
                found[name] = {
                    "act": _solved(verifier, prompts, greedy),
                    "act_sampled": _solved(verifier, prompts, drawn),
                    "judge": self._judge(writer, pool),
                    "meta": Proportion(right, len(meta)).as_dict(),
                }
                bar.advance(1)
        rows = [_row(name, each) for name, each in found.items()]
        columns = ["model", "answers right", "samples right", "judge's AUC", "mean score", "unreadable", "meta right"]
        text = text_table("Answering, judging, judging judges (held-out side of the world)", columns, rows)
        files.write_text(ctx.out("report") / "summary.txt", text)
        files.write_json(ctx.out("report") / "judging.json", found)
        ctx.say(text)
        ctx.result(judging=found)

    def _judge(self, writer: Writer, pool: Sequence[tuple[list[Message], bool]]) -> dict[str, float | None]:
        """The AUC over the answers with a readable score, and how the scores lie."""
        said = writer.write(
            [messages for messages, _ in pool], n=self.judgements, max_tokens=self.judge_tokens,
            temperature=self.temperature, seed=derive(self.seed, "judge"),
        )  # fmt: skip
        scored = [(judge_scores(verdicts), right) for verdicts, (_, right) in zip(said, pool, strict=True)]
        read = [(scores.mean, right) for scores, right in scored if scores.mean is not None]
        given = [score for scores, _ in scored for score in scores.of_each]
        return {
            "auc": auc([mean for mean, right in read if right], [mean for mean, right in read if not right]),
            "right": sum(right for _, right in pool),
            "wrong": sum(not right for _, right in pool),
            "score_mean": sum(score for score in given if score is not None) / max(1, len(given) - given.count(None)),
            "unreadable": given.count(None) / max(1, len(given)),
        }

    def cost(self) -> Cost:
        return Cost(other_s=10 * len(self.models))


def _row(name: str, each: dict[str, Any]) -> list[str]:
    judge = each["judge"]
    return [
        name,
        f"{each['act']['share']:.1%}",
        f"{each['act_sampled']['share']:.1%}",
        "-" if judge["auc"] is None else f"{judge['auc']:.3f}",
        f"{judge['score_mean']:.2f}",
        f"{judge['unreadable']:.1%}",
        f"{each['meta']['share']:.1%}",
    ]


def _solved(verifier: Verifier, prompts: Sequence[Prompt], written: Sequence[Sequence[str]]) -> dict[str, float]:
    right = [verifier.check(p, text).correct for p, texts in zip(prompts, written, strict=True) for text in texts]
    return Proportion(sum(right), len(right)).as_dict()


def _pool(
    verifier: Verifier, prompts: Sequence[Prompt], drawn: Sequence[Sequence[str]]
) -> list[tuple[list[Message], bool]]:
    """What judges are asked about each different answer, and whether it is right."""
    return [
        (judge_prompt(BRIEF, prompt["messages"], answer), verifier.check(prompt, answer).correct)
        for prompt, answers in zip(prompts, drawn, strict=True)
        for answer in dict.fromkeys(answers)
    ]
