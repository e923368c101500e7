"""One number for one model: exact match on held-out exercises, each task counting alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pippin import files
from pippin.data import instruct
from pippin.data.records import Instruction
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate import exact_match
from pippin.interop.load import load_model
from pippin.pipeline import Context, Cost, Stage


def benchmark_records(directory: Path, tasks: Sequence[str], per_task: int) -> list[Instruction]:
    """The first `per_task` held-out records of each task that have one right answer; no tasks: all there are.

    Raises:
        UserError: a task that is not there, or nothing with a right answer.
    """
    held = exact_match.with_answer(list(instruct.read(directory, "heldout", tasks or None)))
    if not held:
        raise UserError(f"{directory}: no held-out conversation has an exact answer; name tasks that have one")
    return exact_match.first_of_each(held, per_task)


def score(grade: exact_match.Grade) -> float:
    """The mean over tasks of the share that is right."""
    return statistics.fmean(proportion.share for proportion in grade.by_task.values())


@dataclass(frozen=True, kw_only=True)
class Benchmark(Stage):
    """Greedy answers of a model, graded: `report/grades.json`, and in the results `score` and the share by task.

    Args:
        model: the stage whose `model/` answers.
        instruct: the stage whose `instruct/` asks.
        tasks: of it; () for all that have a right answer.
        per_task: questions of each.
    """

    model: Stage
    instruct: Stage
    tasks: tuple[str, ...] = ()
    per_task: int = 25

    def __post_init__(self) -> None:
        if self.per_task < 1:
            raise UserError(f"per_task: value {self.per_task}: must be at least 1")

    def run(self, ctx: Context) -> None:
        records = benchmark_records(ctx.artifact(self.instruct, "instruct"), self.tasks, self.per_task)
        directory = ctx.artifact(self.model, "model")
        tokenizer = Tokenizer.load(directory)
        with ctx.track(len(records)) as bar:
            answers = exact_match.chat_answers(load_model(directory), tokenizer, records, progress=bar.advance)
        grade = exact_match.grade(records, answers)
        by_task = {task: proportion.as_dict() for task, proportion in grade.by_task.items()}
        files.write_json(ctx.out("report") / "grades.json", {"score": score(grade), "tasks": by_task})
        ctx.result(score=score(grade), tasks={task: found["share"] for task, found in by_task.items()})

    def cost(self) -> Cost:
        return Cost(other_s=1 + 0.3 * self.per_task)
