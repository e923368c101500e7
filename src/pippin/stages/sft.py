"""Supervised fine-tuning on conversations: the loss is on the assistant's tokens only."""

from __future__ import annotations

from dataclasses import dataclass

from pippin.pipeline import Context, Stage
from pippin.stages.heldout import heldout
from pippin.stages.training import QUICK_LOOK_TOKENS, TrainingStage


@dataclass(frozen=True, kw_only=True)
class Sft(TrainingStage):
    """Fine-tune `start` on whole conversations packed into rows (afm 6; packing and loss masks are ours, 6.5)."""

    start: Stage

    def run(self, ctx: Context) -> None:
        model = self.load(ctx, self.start)

        def look() -> dict[str, float]:
            return heldout(model, self.token_dir(ctx), tuple(self.mixture), self.train.seq_len, QUICK_LOOK_TOKENS)

        self.fit(ctx, model, mode="bins", look=look)
        self.save(ctx, model)
        ctx.result(**look())
