"""Tokens of the generated world in which a model learns three parts: to answer, to judge answers, to judge judges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pippin.data.chat import render
from pippin.data.packing import TokenWriter
from pippin.data.tokenizer import train_tokenizer
from pippin.data.world import task_document
from pippin.data.world_judging import conversation
from pippin.errors import UserError
from pippin.pipeline import Context, Cost
from pippin.stages.tokenize import SPLITS, TokenStage

PARTS = ("act", "judge", "meta")
TEXT = "text"
_SHOWN = 2_000  # of each source, to the tokenizer


@dataclass(frozen=True, kw_only=True)
class JudgingTokens(TokenStage):
    """Artifacts: `tokens/` with the sources `text` (songs and worked exercises), `act`, `judge` and `meta` (see
    `data.world_judging`; the loss is on the last message), and the `tokenizer/` that made them.

    Args:
        documents: of `text`.
        each: training conversations of each part.
        heldout: held-out ones of each part.
        vocab_size: of the tokenizer.
        seed: of the world.
    """

    documents: int
    each: int
    heldout: int
    vocab_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("documents", "each", "heldout"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")

    def tokenizer_dir(self, ctx: Context) -> Path:
        return ctx.artifact(self, "tokenizer")

    def run(self, ctx: Context) -> None:
        texts = [task_document(self.seed, index) for index in range(self.documents)]
        shown = [document["text"] for document in texts[:_SHOWN] if document["split"] == "train"]
        for part in PARTS:
            for index in range(min(self.each, _SHOWN)):
                shown += [message["content"] for message in conversation(part, self.seed, index, "train")]
        tokenizer = train_tokenizer(shown, ctx.out("tokenizer"), self.vocab_size)
        counts = {}
        with TokenWriter(ctx.out("tokens"), tokenizer.vocab_size, tokenizer.eos_id) as writer:
            for document in texts:
                ids = tokenizer.encode(document["text"])
                writer.add(TEXT, document["split"], ids, len(document["text"].encode()), document=document["id"])
            for part in PARTS:
                for split in SPLITS:
                    for index in range(self.each if split == "train" else self.heldout):
                        messages = conversation(part, self.seed, index, split)
                        rendered = render(tokenizer, messages)
                        writer.add(part, split, rendered.ids, len(messages[-1]["content"].encode()), rendered.loss_mask)
                        counts[f"{part}.{split}"] = index + 1
        ctx.result(vocab_size=tokenizer.vocab_size, conversations=counts)

    def cost(self) -> Cost:
        return Cost(bytes=200 * (self.documents + 3 * self.each), other_s=2 + (self.documents + 3 * self.each) / 4_000)
