"""Synthetic mathematics as a stage; what it makes of questions is told in `data.synthesis.maths`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pippin import files
from pippin.data.prompts import Prompt
from pippin.data.synthesis.maths import (
    Answered,
    Plan,
    by_rules,
    conversation_rows,
    evolve,
    prompt_row,
    solve,
    sound,
    summary,
)
from pippin.data.synthesis.maths_questions import Question, read_seeds, template_seeds
from pippin.data.writer import KeptWriter
from pippin.errors import UserError
from pippin.evaluate.verify.prompts import Verifier
from pippin.pipeline import Context, Cost, digest_tree
from pippin.stages.writing import WritingStage

PROMPTS, CONVERSATIONS, REPORT = "prompts.jsonl", "maths.jsonl", "maths.json"


@dataclass(frozen=True, kw_only=True)
class SynthesizeMaths(WritingStage):
    """Questions with verifiers, and right solutions to them (afm 5.4-5.6).

    Artifacts: `prompts/prompts.jsonl` (`data.prompts`, with origin, difficulty and steps beside its fields);
    `conversations/maths.jsonl`, one a right solution, of the train side; `report/maths.json`.

    Args:
        seeds: a file of questions (see `maths_questions.read_seeds`); "": word problems by templates.
        n: seeds.
        plan: what is made of them.
    """

    seeds: str = ""
    n: int = 200
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            raise UserError(f"n: value {self.n}: must be at least 1")

    def inputs(self) -> Mapping[str, str]:
        return {"seeds": digest_tree(Path(self.seeds).expanduser())} if self.seeds else {}

    def cost(self) -> Cost:
        return Cost(bytes=2_000 * self.n, other_s=1 + self.n / 250 + self.seconds(self.plan.calls(self.n)))

    def run(self, ctx: Context) -> None:
        seeds = (
            read_seeds(Path(self.seeds).expanduser(), self.n, self.plan.seed)
            if self.seeds
            else template_seeds(self.n, self.plan.seed)
        )
        if self.offline:
            questions, dropped = evolve(seeds, self.plan, None)
            answered, unanswered = by_rules(questions)
            dropped.update(unanswered)
        else:
            calls = self.plan.calls(len(seeds), sum(question.answer is None for question in seeds))
            with ctx.track(calls, "calls") as bar:
                writer = self.opened(ctx, calls, bar.advance)
                questions, answered, dropped = self._written(seeds, writer)
            ctx.result(writer=writer.name, calls=writer.before + writer.calls)
        if not answered:
            raise UserError(f"{ctx.name}: nothing is left of {len(questions)} questions ({_most(dropped)})")
        prompts = [prompt_row(each) for each in answered]
        conversations = [row for each in answered for row in conversation_rows(each)]
        write_rows(ctx.out("prompts") / PROMPTS, prompts)
        write_rows(ctx.out("conversations") / CONVERSATIONS, conversations)
        found = summary(questions, answered, dropped)
        files.write_json(ctx.out("report") / REPORT, found)
        ctx.result(prompts=len(prompts), conversations=len(conversations), **found)
        ctx.say(f"{len(prompts)} prompts, {len(conversations)} conversations; dropped: {_most(dropped)}")

    def _written(
        self, seeds: list[Question], writer: KeptWriter
    ) -> tuple[list[Question], list[Answered], Counter[str]]:  # fmt: skip
        questions, dropped = evolve(seeds, self.plan, writer)
        good, refused = sound(questions, writer)
        if refused:
            dropped["judge: no sense or no solution"] = refused
        with Verifier() as verifier:

            def check(fields: dict[str, Any], response: str) -> tuple[bool, str | None]:
                prompt: Prompt = {"id": "", "split": "train", "messages": [], "verifier": fields, "source": ""}
                verdict = verifier.check(prompt, response)
                return verdict.correct, None if verdict.extracted is None else str(verdict.extracted)

            answered, unanswered = solve(good, self.plan, writer, check)
        return questions, answered, dropped + unanswered


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    files.write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def _most(dropped: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in dropped.most_common(5)) or "nothing"
