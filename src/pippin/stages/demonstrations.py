"""Demonstrations of mixed quality: what post-training starts from where nobody had the time to check every answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pippin.data.chat import render
from pippin.data.packing import TokenWriter
from pippin.data.records import Message, Split
from pippin.data.tokenizer import Tokenizer
from pippin.data.world_tasks import TASKS, Exercise, exercise
from pippin.data.world_words import Draw
from pippin.errors import UserError
from pippin.pipeline import Context, Cost
from pippin.stages.tokenize import TokenStage, TrainTokenizer

SOURCE = "demonstrations"
REMARKS = ("Here you are: {}", "{} I hope this helps.", "Well, {}", "{} That was easy.")


@dataclass(frozen=True, kw_only=True)
class Demonstrations(TokenStage):
    """Conversations about exercises of the generated world, a share of them answered badly (ours).

    A bad answer is one of two kinds, as likely: careless (the words as they were given; a sum that is off by one), or
    right with a remark around it that nobody asked for. A model that learns from them can do better than it does: that
    is what preferences and rewards have to bring out.

    Artifact: `tokens/` with the source `demonstrations`.

    Args:
        tokenizer: of the model.
        tasks: of the world, in turn.
        train, heldout: how many on each side.
        bad: the share of bad answers, on both sides.
    """

    tokenizer: TrainTokenizer
    tasks: tuple[str, ...]
    train: int
    heldout: int = 200
    bad: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task not in TASKS:
                raise UserError(f"tasks: {task!r}: the world has {', '.join(TASKS)}")
        if not 0 <= self.bad <= 1:
            raise UserError(f"bad={self.bad}: a share must lie between 0 and 1")
        if not self.tasks or self.train < 1 or self.heldout < 1:
            raise UserError(f"tasks={self.tasks}, train={self.train}, heldout={self.heldout}: both sides need some")

    def tokenizer_dir(self, ctx: Context) -> Path:
        return ctx.artifact(self.tokenizer, "tokenizer")

    def run(self, ctx: Context) -> None:
        tokenizer = Tokenizer.load(self.tokenizer_dir(ctx))
        counts: Counter[str] = Counter()
        sides: tuple[tuple[Split, int], ...] = (("train", self.train), ("heldout", self.heldout))
        with TokenWriter(ctx.out("tokens"), tokenizer.vocab_size, tokenizer.eos_id) as writer:
            for split, n in sides:
                for index in range(n):
                    task = self.tasks[index % len(self.tasks)]
                    draw = Draw(SOURCE, split, self.seed, index)
                    drawn = exercise(task, draw, split)
                    answer, kind = self._answer(drawn, draw)
                    counts[kind] += 1
                    messages: list[Message] = [
                        {"role": "user", "content": drawn.question},
                        {"role": "assistant", "content": answer},
                    ]
                    id = f"world/{task}:{SOURCE}:{split}:{self.seed}:{index}"
                    rendered = render(tokenizer, messages, conversation_id=id)
                    writer.add(SOURCE, split, rendered.ids, len(answer.encode()), rendered.loss_mask, document=id)
        ctx.result(answers=dict(sorted(counts.items())))

    def _answer(self, drawn: Exercise, draw: Draw) -> tuple[str, str]:
        if draw.below(1_000_000) >= self.bad * 1_000_000:
            return drawn.answer, "good"
        if draw.below(2):
            return draw.pick(REMARKS).format(drawn.answer), "with a remark"
        return careless(drawn, draw), "careless"

    def cost(self) -> Cost:
        return Cost(other_s=1 + self.train / 10_000)


def careless(drawn: Exercise, draw: Draw) -> str:
    """The words of the question's list as they stand there; of a sum, one more or less."""
    if drawn.answer.isdigit() and ": " not in drawn.question:
        return str(abs(int(drawn.answer) + (1 if draw.below(2) else -1)))
    return drawn.question.rpartition(": ")[2]
