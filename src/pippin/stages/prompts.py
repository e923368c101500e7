"""Prompts for reinforcement learning, rejection sampling and committees, with what decides whether one is solved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pippin.data.prompts import Prompt, read_prompts, write_prompts
from pippin.data.records import Split
from pippin.data.world_tasks import TASKS, Exercise, exercise
from pippin.data.world_words import Draw
from pippin.errors import UserError
from pippin.pipeline import Context, Cost, Stage, digest_tree

FILE = "prompts.jsonl"
STREAM = "prompts"  # of the generator: other exercises than those of fine-tuning


@dataclass(frozen=True, kw_only=True)
class Prompts(Stage):
    """`prompts/prompts.jsonl` (see `data.prompts`): exercises of the generated world, or the user's own file.

    An exercise has one right answer, so any text can be judged. Held-out ones test combinations that no training text
    has (`data.world_words`). In a prompt of the world, `source` is its task.

    Args:
        data: a file of prompts; "": the world's.
        tasks: of the world (`data.world_tasks.TASKS`), in turn.
        train, heldout: how many of the world's on each side.
        seed: of the world's.
        style: of the world's verifiers. "exact": the answer itself. "benchmark", for "add" and "form" alone: sums as
            GSM8K's are judged, by the last number of the response; forms as IFEval's are, by its kinds of instruction.
    """

    data: str = ""
    tasks: tuple[str, ...] = ()
    train: int = 0
    heldout: int = 0
    seed: int = 0
    style: Literal["exact", "benchmark"] = field(default="exact", metadata={"later": True})

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.tasks):
            raise UserError("prompts: give either a file of them (data) or tasks of the generated world")
        for task in self.tasks:
            if task not in TASKS:
                raise UserError(f"tasks: {task!r}: the world has {', '.join(TASKS)}")
        if self.style not in ("exact", "benchmark"):
            raise UserError(f"style={self.style}: must be exact or benchmark")
        if self.style == "benchmark" and not set(self.tasks) <= {"add", "form"}:
            raise UserError(f"tasks={', '.join(self.tasks)}: in the style of benchmarks there are add and form only")
        if self.tasks and (self.train < 1 or self.heldout < 1):
            raise UserError(f"train={self.train}, heldout={self.heldout}: both sides need a prompt")

    def inputs(self) -> Mapping[str, str]:
        return {"data": digest_tree(Path(self.data).expanduser())} if self.data else {}

    def run(self, ctx: Context) -> None:
        if self.data:
            found = read_prompts(Path(self.data).expanduser())
        else:
            found = [self._prompt(i, "train") for i in range(self.train)]
            found += [self._prompt(i, "heldout") for i in range(self.heldout)]
        write_prompts(ctx.out("prompts") / FILE, found)
        counts = {split: Counter(p["source"] for p in found if p["split"] == split) for split in ("train", "heldout")}
        ctx.result(prompts={split: dict(sorted(each.items())) for split, each in counts.items()})

    def _prompt(self, index: int, split: Split) -> Prompt:
        task = self.tasks[index % len(self.tasks)]
        draw = Draw(STREAM, split, self.seed, index)
        drawn = exercise(task, draw, split)
        while self.style == "benchmark" and task == "form" and drawn.answer.isupper():
            drawn = exercise(task, draw, split)  # IFEval's instruction of capitals is about whole English texts
        return {
            "id": f"world/{task}:{STREAM}:{split}:{self.seed}:{index}",
            "split": split,
            "messages": [{"role": "user", "content": drawn.question}],
            "verifier": {"kind": "exact", "answer": drawn.answer} if self.style == "exact" else as_benchmark(drawn),
            "source": task,
        }

    def cost(self) -> Cost:
        return Cost(other_s=0.5)


def as_benchmark(drawn: Exercise) -> dict[str, Any]:
    """The verifier of a sum as GSM8K has it, or of a form in IFEval's instructions.

    >>> as_benchmark(Exercise("Write these words in brackets: fig pear", "", "[fig] [pear]", "", ""))["kind"]
    'ifeval'
    """
    if drawn.answer.isdigit():
        return {"kind": "gsm8k", "answer": f"#### {drawn.answer}"}
    words = drawn.question.rpartition(": ")[2].split()
    found: list[tuple[str, dict[str, Any]]] = [("keywords:existence", {"keywords": words})]
    if drawn.answer.startswith("["):
        found.append(("detectable_content:number_placeholders", {"num_placeholders": len(words)}))
    elif "," in drawn.answer:
        found.append(_at_least(",", len(words) - 1))
    elif drawn.answer.startswith("1."):
        found += [_at_least(rf"\b{number}\.", 1) for number in range(1, len(words) + 1)]
    else:
        found = [_at_least(rf"\b{word}\b", 2) for word in words]
    return {
        "kind": "ifeval",
        "instruction_id_list": [name for name, _ in found],
        "kwargs": [given for _, given in found],
    }


def _at_least(keyword: str, times: int) -> tuple[str, dict[str, Any]]:
    return "keywords:frequency", {"keyword": keyword, "relation": "at least", "frequency": times}


def prompts_of(ctx: Context, stage: Stage, split: Split) -> list[Prompt]:
    """The prompts of one side that a stage left.

    Raises:
        UserError: there is none.
    """
    found = read_prompts(ctx.artifact(stage, "prompts") / FILE, split)
    if not found:
        raise UserError(f"{ctx.label(stage)}: has no {split} prompts")
    return found
