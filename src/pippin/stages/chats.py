"""A user's conversations as tokens of the model that will be adapted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pippin.data import instruct
from pippin.data.chat import render
from pippin.data.conversations import TASK, read_conversations
from pippin.data.packing import TokenWriter
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.pipeline import Context, Cost, Stage, digest_tree
from pippin.stages.guard import FILE, GuardChats
from pippin.stages.tokenize import TokenStage, deal_answers

SOURCE = "chat"
SHUFFLED = "chat-shuffled"


@dataclass(frozen=True, kw_only=True)
class Chats(TokenStage):
    """Check a file of conversations, split it, encode it with the tokenizer of `model`.

    Artifacts: `tokens/` with the sources `chat` and `chat-shuffled` (training answers dealt out at random: a control
    that must not learn), `instruct/` with the conversations of each side. The loss is on assistant messages only.

    Args:
        data: the file, of any layout that `data.conversations` reads.
        heldout_share: of the questions, by a hash of their text.
        guard: of the same file; then what it left is read.
    """

    version: ClassVar[int] = 3

    model: Stage
    data: str
    heldout_share: float = 0.1
    guard: GuardChats | None = field(default=None, metadata={"later": True})

    def __post_init__(self) -> None:
        if not 0 < self.heldout_share < 1:
            raise UserError(f"heldout_share: value {self.heldout_share}: must lie between 0 and 1")

    def inputs(self) -> Mapping[str, str]:
        return {"data": digest_tree(Path(self.data).expanduser())}

    def tokenizer_dir(self, ctx: Context) -> Path:
        return ctx.artifact(self.model, "model")

    def run(self, ctx: Context) -> None:
        tokenizer = Tokenizer.load(self.tokenizer_dir(ctx))
        data = Path(self.data).expanduser() if self.guard is None else ctx.artifact(self.guard, "chats") / FILE
        records, repeated = read_conversations(data, self.heldout_share)
        train = [record for record in records if record["split"] == "train"]
        counts = {split: sum(record["split"] == split for record in records) for split in ("train", "heldout")}
        with TokenWriter(ctx.out("tokens"), tokenizer.vocab_size, tokenizer.eos_id) as writer:
            for source, chosen in ((SOURCE, records), (SHUFFLED, deal_answers(train))):
                for record in chosen:
                    rendered = render(tokenizer, record["messages"], conversation_id=record["id"])
                    learnt = sum(len(m["content"].encode()) for m in record["messages"] if m["role"] == "assistant")
                    writer.add(source, record["split"], rendered.ids, learnt, rendered.loss_mask, document=record["id"])
        instruct.write(ctx.out("instruct"), records)
        ctx.say(f"{counts['train']} conversations to train on, {counts['heldout']} held out, {repeated} repeated")
        ctx.result(conversations=counts, repeated=repeated, task=TASK)

    def cost(self) -> Cost:
        return Cost(other_s=2)
